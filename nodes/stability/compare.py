"""Options of a model against each other: one video, styled once with each."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from nodes.decoder import Decoder
from nodes.preprocess import Preprocess
from nodes.stability.measures import flicker, noisy_stills
from nodes.stability.steadiness import Result, Steadiness
from streamer import Frame, ParameterError
from streamer.testing import SoloContext, solo

if TYPE_CHECKING:
    from nodes.sdxs import OneStep

Bytes = npt.NDArray[np.uint8]

STILLS: Final = 12
"""Pictures of something at rest by which flicker is measured."""
SETTLING: Final = 6
"""Pictures of it before those, in which a model that remembers forgets what it saw before."""


class Draw(Protocol):
    """Makes a control picture, uint8 of shape (H, W), of a picture of shape (H, W, 3)."""

    def __call__(self, picture: Bytes, /) -> Bytes:
        """The control picture."""
        ...


@dataclass(frozen=True, slots=True)
class Case:
    """A way to run the model.

    Attributes:
        name: for people.
        options: attributes of the engine, or of `nodes.sdxs.steady.Steady`, and their values.
        new_noise: whether every picture gets noise of its own.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    new_noise: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """What was measured of one case.

    Attributes:
        name: of the case.
        motion: against the motion of the source.
        still_source: flicker of the noisy still picture, grey levels.
        still_styled: flicker of what the model makes of it.
        ms: median time of a picture in the model.
    """

    name: str
    motion: Result
    still_source: float
    still_styled: float
    ms: float

    def to_dict(self) -> dict[str, Any]:
        """The row as JSON types."""
        return {
            "name": self.name,
            "motion": self.motion.to_dict(),
            "still": {"source": self.still_source, "styled": self.still_styled},
            "ms": self.ms,
        }


_MEMORY: Final = ("feedback", "similar", "drift")
"""options of `Steady`"""
_USUAL: Final = (
    Case("fixed noise"),
    Case("new noise for every picture", new_noise=True),
    Case("drift 30", {"drift": 30}),
    Case("feedback 0.2", {"feedback": 0.2}),
    Case("feedback 0.35", {"feedback": 0.35}),
    Case("similar 3", {"similar": 3.0}),
)


def cases(engine: OneStep, extra: Sequence[Case] = ()) -> list[Case]:
    """The cases to compare: noise that is fixed, new or turning, memory of the past, and others.

    Args:
        engine: tells which options it has.
        extra: more of them.

    Raises:
        ParameterError: an option that this engine does not have.
    """
    for case in extra:
        for name in case.options:
            if name not in _MEMORY and not hasattr(type(engine), name):
                raise ParameterError(f"option {name}: the model has no such setting")
    return [*_USUAL, *extra]


def compare(
    load: Callable[[], OneStep],
    pictures: Sequence[Bytes],
    *,
    extra: Sequence[Case] = (),
    draw: Draw | None = None,
    sigma: float = 2.0,
    progress: Callable[[str], None] = lambda text: None,
) -> list[Row]:
    """Styles a video once for each case, and a still picture with a camera's noise.

    Args:
        load: gives an engine with prompt and scale set; called for each case, so that none finds
            what another left.
        pictures: of the video, uint8 of shape (H, W, 3), in sizes that the engine takes.
        extra: cases beside the usual ones.
        draw: makes the picture for a ControlNet; by default that is the picture itself.
        sigma: standard deviation of the noise, grey levels.
        progress: told what is going on.

    Raises:
        ParameterError: an option that the engine does not have, or a value that it refuses.
        ValueError: no two neighbouring pictures have a motion in common.
    """
    engine = load()
    rows = []
    for number, case in enumerate(cases(engine, extra)):
        if number:
            engine = load()
        progress(case.name)
        rows.append(_measured(case, engine, pictures, draw=draw, sigma=sigma))
    return rows


def read_pictures(url: str, size: tuple[int, int], *, count: int) -> list[Bytes]:
    """The first pictures of a video, scaled and cut to a size.

    Args:
        url: as the decoder takes it.
        size: width and height in pixels.
        count: at most so many.

    Returns:
        uint8 arrays of shape (height, width, 3), RGB.

    Raises:
        SourceError: it cannot be read.
    """
    decoder = solo(Decoder, context=SoloContext(name="video"), url=url, audio=False)
    shaper = solo(Preprocess, context=SoloContext(name="size"), size=f"{size[0]}x{size[1]}")
    frames = decoder.frames()
    found: list[Bytes] = []
    try:
        for frame in itertools.islice((f for f in frames if isinstance(f, Frame)), count):
            with frame:
                made = shaper.process(frame)
            assert made is not None, "no rate was set, so none is left out"
            with made:
                found.append(made.numpy().copy())
    finally:
        frames.close()  # type: ignore[attr-defined]
        shaper.close()
        decoder.close()
    return found


def _measured(
    case: Case,
    engine: OneStep,
    pictures: Sequence[Bytes],
    *,
    draw: Draw | None,
    sigma: float,
) -> Row:
    times: list[float] = []
    steadiness = Steadiness()
    for source, made in zip(pictures, _styled(case, engine, pictures, draw, times), strict=True):
        steadiness.add(source, made)
    stills = list(noisy_stills(pictures[0], sigma=sigma, count=SETTLING + STILLS))
    rested = list(_styled(case, engine, stills, draw, []))
    return Row(
        name=case.name,
        motion=steadiness.result(),
        still_source=flicker(stills[SETTLING:]),
        still_styled=flicker(rested[SETTLING:]),
        ms=float(np.median(times)) if times else math.nan,
    )


def _styled(
    case: Case,
    engine: OneStep,
    pictures: Sequence[Bytes],
    draw: Draw | None,
    times: list[float],
) -> Iterator[Bytes]:
    from nodes.sdxs.steady import Steady

    steady = Steady(engine)
    for name, value in case.options.items():
        try:
            setattr(steady if name in _MEMORY else engine, name, value)
        except (TypeError, ValueError) as error:
            raise ParameterError(f"option {name}: {error}") from error
    first = engine.seed
    for number, picture in enumerate(pictures):
        if case.new_noise:
            engine.seed = first + number
        # A model with a ControlNet takes its picture for the control picture.
        shown = picture if draw is None else np.repeat(draw(picture)[..., None], 3, axis=2)
        made = np.empty_like(picture)
        begin = time.perf_counter()
        steady(shown, made)
        times.append((time.perf_counter() - begin) * 1e3)
        yield made
