"""What is known of a picture besides its pixels."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from fractions import Fraction
from typing import NamedTuple

from streamer.formats import YUV_FORMATS


class Hop(NamedTuple):
    """What one node did with a frame; times are nanoseconds of CLOCK_MONOTONIC of the host."""

    node: str
    received: int
    started: int
    finished: int


@dataclass(slots=True, kw_only=True)
class Header:
    """All that is known of a picture besides its pixels.

    Attributes:
        stream: name of the source node.
        seq: number of the picture in its stream, from 0; gaps are dropped frames.
        pts: presentation time in units of `time_base`; from the source, passed through unchanged.
        time_base: seconds in one unit of `pts`.
        duration: how long the picture is shown, in units of `time_base`; 0 if unknown.
        capture_ns: CLOCK_MONOTONIC at the source, nanoseconds.
        wall_ns: wall-clock time at the source, nanoseconds since 1970.
        width: pixels.
        height: pixels.
        format: one of `streamer.formats.FORMATS`.
        colorspace: `bt601`, `bt709`, `bt2020` or `rgb`; how YUV relates to RGB.
        full_range: whether YUV samples use 0 to 255 rather than 16 to 235.
        generation: number of the parameter set that the picture was made with.
        passed: whether a node on its way has passed it on as it came, since it was not ready yet.
        trace: one `Hop` for each node passed, oldest first.
    """

    stream: str
    seq: int
    pts: int
    time_base: Fraction
    width: int
    height: int
    format: str
    capture_ns: int
    wall_ns: int
    duration: int = 0
    colorspace: str = "rgb"
    full_range: bool = True
    generation: int = 0
    passed: bool = False
    trace: list[Hop] = field(default_factory=list)

    @property
    def time(self) -> float:
        """Presentation time in seconds."""
        return float(self.pts * self.time_base)

    def age_ns(self, now: int | None = None) -> int:
        """Nanoseconds since capture; `now` is CLOCK_MONOTONIC, the present by default."""
        return (time.monotonic_ns() if now is None else now) - self.capture_ns


def new_header(
    stream: str,
    seq: int,
    width: int,
    height: int,
    format: str,
    *,
    like: Header | None,
    pts: int | None,
    time_base: Fraction | None,
    capture_ns: int | None,
) -> Header:
    """Header of a new picture, as `Context.allocate` describes it.

    Raises:
        TypeError: neither `like` nor both of `pts` and `time_base` were given.
    """
    if like is not None:
        same_kind = (format in YUV_FORMATS) == (like.format in YUV_FORMATS)
        return Header(
            stream=like.stream,
            seq=like.seq,
            pts=like.pts,
            time_base=like.time_base,
            duration=like.duration,
            width=width,
            height=height,
            format=format,
            capture_ns=like.capture_ns,
            wall_ns=like.wall_ns,
            colorspace=like.colorspace if same_kind else "rgb",
            full_range=like.full_range if same_kind else True,
            generation=like.generation,
            passed=like.passed,
            trace=list(like.trace),
        )
    if pts is None or time_base is None:
        raise TypeError("allocate needs like=, or pts= and time_base=")
    now = time.monotonic_ns()
    capture = now if capture_ns is None else capture_ns
    return Header(
        stream=stream,
        seq=seq,
        pts=pts,
        time_base=time_base,
        width=width,
        height=height,
        format=format,
        capture_ns=capture,
        wall_ns=time.time_ns() - (now - capture),
    )
