"""Video through a one-step engine: what keeps it still from one picture to the next.

The engine knows one picture at a time. A `Steady` remembers the last one: it can mix the last
result into the next (feedback), show the last result again while the source hardly changes, and
let the noise turn slowly from one seed's to the next's. The effect of each is measured by
`streamer bench stability`; see docs/conditions.md.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, Final

import cv2
import numpy as np

from nodes.sdxs.engine import Bytes, OneStep, SpoiledPictureError

STRONGEST_FEEDBACK: Final = 0.35
"""share of the past beyond which pictures smear into each other"""
MOVED: Final = 16.0
"""mean change of a patch of the source in grey levels at which nothing of the past is left in it"""
LOOK_EVERY: Final = 4
"""pixels along each side, one of which is compared, to see whether the source has changed"""


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
        drift: pictures in which the noise turns from one seed's to the next's; 0 holds it fixed.
    """

    def __init__(self, engine: OneStep) -> None:
        self.engine = engine
        self.feedback = 0.0
        self.similar = 0.0
        self.drift = 0
        self.smaller = False
        self.halvings = 0
        self.trouble: Exception | None = None
        self._source: np.ndarray[Any, np.dtype[np.int16]] | None = None
        self._before: Bytes | None = None
        self._result: Bytes | None = None
        self._latents: Any = None
        self._painted = 0
        self._settings: tuple[object, ...] = ()

    def forget(self) -> None:
        """Begins anew: the next picture owes nothing to those before it."""
        self._source = self._before = self._result = self._latents = None

    def take(self, engine: OneStep) -> None:
        """Goes on with another engine, which owes nothing to the former, at the full size."""
        self.engine, self.halvings = engine, 0
        self.forget()

    def __call__(self, image: Bytes, out: Bytes) -> Outcome:
        """Paints the next picture, or shows the last good result again.

        Args:
            image: uint8 RGB, height × width × 3.
            out: receives the result, of the same shape; shares no memory with `image`.

        Returns:
            What `out` holds; `trouble` is the error behind `SPOILED`.

        Raises:
            ValueError: as the engine does.
            SpoiledPictureError: likewise, where there is no result to show again.
            MemoryError: likewise.
        """
        if self._result is not None and self._result.shape != image.shape:
            self.forget()
        engine = self.engine
        settings = (
            *(engine.name, engine.prompt, engine.conditioning_scale),
            *(engine.seed, engine.seeds, engine.blend),
        )
        changed, self._settings = settings != self._settings, settings
        look = image[::LOOK_EVERY, ::LOOK_EVERY].astype(np.int16) if self.similar else None
        if look is not None and not changed and self._hardly_differs(look):
            assert self._result is not None
            np.copyto(out, self._result)
            return Outcome.REPEATED
        self._source = look
        engine.turn = self._painted / self.drift if self.drift else 0.0
        self._painted += 1
        try:
            self._paint_what_fits(image, out)
        except (SpoiledPictureError, MemoryError) as error:
            self.trouble = error
            self._before = self._latents = self._source = None
            if self._result is None:
                raise
            np.copyto(out, self._result)
            return Outcome.SPOILED
        if self._result is None:
            self._result = np.empty_like(out)
        np.copyto(self._result, out)
        return Outcome.PAINTED

    def _paint_what_fits(self, image: Bytes, out: Bytes) -> None:
        """Paints at the full size, or at the first half of it for which there is memory."""
        while True:
            size = self._size(image)
            try:
                if not self.halvings:
                    self._paint(image, out)
                    return
                shrunk = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
                small = np.asarray(shrunk, np.uint8)
                made = np.empty_like(small)
                self.engine(small, out=made)
                whole = (image.shape[1], image.shape[0])
                np.copyto(out, cv2.resize(made, whole, interpolation=cv2.INTER_CUBIC))
                return
            except MemoryError:
                if not self.smaller or min(size) < 4 * self.engine.multiple:
                    raise
                self.halvings += 1

    def _size(self, image: Bytes) -> tuple[int, int]:
        """Width and height at which to paint: halved, and multiples of the engine's."""
        step = self.engine.multiple
        height, width = (max(1, (side >> self.halvings) // step) * step for side in image.shape[:2])
        return width, height

    def _paint(self, image: Bytes, out: Bytes) -> None:
        engine = self.engine
        if self.feedback and engine.feeds_back_latents:
            self._latents = engine.paint_after(image, out, past=self._latents, share=self.feedback)
            return
        engine(image, out=out)
        if self.feedback:
            self._mix(image, out)
        else:
            self._before = self._latents = None

    def _mix(self, image: Bytes, out: Bytes) -> None:
        """Mixes the last result into `out` where the source has not changed."""
        before, self._before = self._before, image.copy()
        if before is None or self._result is None:
            return
        change = cv2.cvtColor(cv2.absdiff(image, before), cv2.COLOR_RGB2GRAY)
        # Sensor noise differs from pixel to pixel, motion from one patch to the next.
        patch = cv2.blur(change, (9, 9)).astype(np.float32)
        share = self.feedback * np.clip(1 - patch / MOVED, 0, 1)[..., None]
        np.copyto(out, np.rint(out + share * (self._result - out.astype(np.float32))), "unsafe")

    def _hardly_differs(self, look: np.ndarray[Any, np.dtype[np.int16]]) -> bool:
        if self._result is None or self._source is None or self._source.shape != look.shape:
            return False
        # Against the source of the last painted picture, so that slow changes add up.
        return float(np.abs(look - self._source).mean()) <= self.similar
