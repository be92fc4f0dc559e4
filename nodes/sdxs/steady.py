"""Video through a one-step engine: what keeps it still from one picture to the next.

The engine knows one picture at a time. A `Steady` remembers the last one: it can mix the last
result into the next (feedback), show the last result again while the source hardly changes, and
let the noise turn slowly from one seed's to the next's. The effect of each is measured by
`streamer bench stability`; see docs/conditions.md.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from nodes.sdxs import seeds
from nodes.sdxs.engine import OneStep, SpoiledPictureError
from nodes.sdxs.jobs import Job, Picture
from nodes.sdxs.on_arrays import OnArrays

if TYPE_CHECKING:
    from nodes.sdxs.on_tensors import OnTensors

STRONGEST_FEEDBACK: Final = 0.35
"""share of the past beyond which pictures smear into each other"""


class Outcome(Enum):
    """What a call of `Steady` has put out."""

    PAINTED = "painted"
    """the picture"""
    REPEATED = "repeated"
    """the last result, since the source has hardly changed"""
    SPOILED = "spoiled"
    """the last good result, since the engine gave none"""


class Steady:
    """A one-step engine for the pictures of one video, in order.

    Args:
        engine: loaded; its settings may change at any time.

    Attributes:
        feedback: share of the last result in the next, 0 to `STRONGEST_FEEDBACK`. Where the picture
            itself is the condition, results are mixed where the source stands still, so that what
            moves leaves no trail; else latents are mixed.
        similar: mean difference of the source in grey levels up to which the last result is shown
            again; 0 paints every picture.
        smaller: whether pictures may be painted at half the size, or less, and enlarged, once
            memory has run out.
        halvings: how often the size has been halved.
        drift: pictures in which the noise turns from one seed's to the next's; 0 holds it where it
            is. Seeds of which none was there before, or another engine, begin with their own.
        trouble: the error behind the latest picture that was spoiled.
        spoiled: pictures so far that were not finite and were known for it only after their call,
            as those of a GPU are: in their place is the last good result, or black.
    """

    def __init__(self, engine: OneStep) -> None:
        self.engine = engine
        self.feedback = 0.0
        self.similar = 0.0
        self.drift = 0
        self.smaller = False
        self.halvings = 0
        self.trouble: Exception | None = None
        self.spoiled = 0
        self._on: OnArrays | OnTensors = OnArrays()
        self._source: Any = None
        self._before: Any = None
        self._result: Any = None
        self._latents: Any = None
        self._given: tuple[int, str | None] | None = None
        self._seeds: frozenset[int] = frozenset()
        self._turned = 0.0
        self._settings: tuple[object, ...] = ()

    def forget(self) -> None:
        """Begins anew: the next picture owes nothing to those before it."""
        self._source = self._before = self._result = self._latents = None

    def take(self, engine: OneStep) -> None:
        """Goes on with another engine, which owes nothing to the former, at the full size."""
        self.engine, self.halvings = engine, 0
        self._turned = 0.0
        self.forget()

    def __call__(self, image: Picture, out: Picture) -> Outcome:
        """Paints the next picture, or shows the last good result again.

        Args:
            image: uint8 RGB, height × width × 3: an array, or a tensor on the engine's device
                where it takes tensors.
            out: receives the result, of the same kind and shape; shares no memory with `image`.

        Returns:
            What `out` holds; `trouble` is the error behind `SPOILED`.

        Raises:
            ValueError: as the engine does.
            SpoiledPictureError: likewise, where there is no result to show again.
            MemoryError: likewise.
        """
        on = self._on_kind(image)
        if self._result is not None and self._result.shape != image.shape:
            self.forget()
        self._count_spoiled()
        engine = self.engine
        settings = (
            *(engine.name, engine.prompt, engine.conditioning_scale),
            *(engine.seed, engine.seeds, engine.blend),
        )
        changed, self._settings = settings != self._settings, settings
        look = on.look(image) if self.similar else None
        if look is not None and self._hardly_differs(look) and not changed:
            on.put(self._result, out)
            return Outcome.REPEATED
        self._source = look
        self._turn_anew_for_other_seeds()
        engine.turn = self._turned
        if self.drift:
            self._turned += 1 / self.drift
        try:
            self._paint_what_fits(image, out)
        except (SpoiledPictureError, MemoryError) as error:
            # Without its traceback, which holds the pictures, and by them slots of the link.
            self.trouble = type(error)(*error.args)
            self._before = self._latents = self._source = None
            if self._result is None:
                raise
            on.put(self._result, out)
            return Outcome.SPOILED
        if self._result is None:
            self._result = on.like(out)
        on.put(out, self._result)
        return Outcome.PAINTED

    def _turn_anew_for_other_seeds(self) -> None:
        """Other weights of the same seeds, or one more of them, go on from where the noise is."""
        given = (self.engine.seed, self.engine.seeds)
        if given == self._given:
            return
        number, several = self._given = given
        found = {number} if several is None else {one for one, _ in seeds.parse(several)}
        if self._seeds.isdisjoint(found):
            self._turned = 0.0
        self._seeds = frozenset(found)

    def _on_kind(self, image: Picture) -> Any:
        """What works on pictures of this kind; with another kind all begins anew."""
        if isinstance(image, np.ndarray):
            if not isinstance(self._on, OnArrays):
                self._on = OnArrays()
                self.forget()
        elif isinstance(self._on, OnArrays):
            from nodes.sdxs.on_tensors import OnTensors

            self._on = OnTensors(image.device)
            self.forget()
        return self._on

    def _count_spoiled(self) -> None:
        late = self._on.spoiled_before()
        if late:
            self.spoiled += late
            self.trouble = SpoiledPictureError(
                f"model {self.engine.name} gave numbers that are not finite"
            )
            # What the pictures since then have of them is spoiled, too.
            self._latents = self._source = None

    def _paint_what_fits(self, image: Picture, out: Picture) -> None:
        """Paints at the full size, or at the first half of it for which there is memory."""
        on: Any = self._on
        while True:
            width, height = self._size(image)
            try:
                if not self.halvings:
                    self._paint(image, out)
                    return
                small = on.shrunk(image, width, height)
                made = on.like(small)
                good = None if self._result is None else on.shrunk(self._result, width, height)
                self._job(small, made, good=good)
                on.enlarge(made, out)
                return
            except MemoryError:
                if not self.smaller or min(width, height) < 4 * self.engine.multiple:
                    raise
                self.halvings += 1

    def _size(self, image: Picture) -> tuple[int, int]:
        """Width and height at which to paint: halved, and multiples of the engine's."""
        step = self.engine.multiple
        height, width = (max(1, (side >> self.halvings) // step) * step for side in image.shape[:2])
        return width, height

    def _paint(self, image: Picture, out: Picture) -> None:
        if self.feedback and self.engine.feeds_back_latents:
            job = self._job(image, out, good=self._result, past=self._latents, share=self.feedback)
            self._latents = job.latents
            return
        self._job(image, out, good=self._result)
        self._latents = None
        if not self.feedback:
            self._before = None
            return
        on: Any = self._on
        before, self._before = self._before, on.copy(image)
        if before is not None and self._result is not None:
            on.mix(image, before, self._result, out, self.feedback)

    def _job(
        self, image: Picture, out: Picture, *, good: Any, past: Any = None, share: float = 0.0
    ) -> Job:
        """Paints; where that is known late, `good` of the size of `out` stands for no picture."""
        on: Any = self._on
        settings = self.engine.snapshot()
        job = Job(image, out, settings, past=past, share=share, stream=on.stream)
        self.engine.paint_jobs([job])
        if on.spoiled(job.finite, out, good):
            raise SpoiledPictureError(f"model {self.engine.name} gave numbers that are not finite")
        return job

    def _hardly_differs(self, look: Any) -> bool:
        if self._result is None or self._source is None or self._source.shape != look.shape:
            return False
        # Against the source of the last painted picture, so that slow changes add up.
        on: Any = self._on
        difference = on.difference(look, self._source)
        return difference is not None and difference <= self.similar
