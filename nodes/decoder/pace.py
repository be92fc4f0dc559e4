"""Changes of a source's pace: another frame rate, or a file played at its own speed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from typing import Final

from nodes.decoder.render import Shot
from nodes.rate import RateLimit
from streamer import Drop, Packet

_LATE: Final = 1.0
"""Seconds behind its clock after which a file goes on from where it is instead of hurrying."""
_LONGEST_WAIT: Final = 1.0

Count = Callable[[Drop, int], None]


def convert(
    shots: Iterator[Shot | Packet], rate: Fraction, count: Count
) -> Iterator[Shot | Packet]:
    """Pictures at a constant rate: on each tick the one that is shown then.

    A picture that is shown on no tick is left out and counted; one that is shown on several comes
    once for each. A picture is held until the next one tells how long it is shown; sound passes.

    Args:
        shots: pictures in order of presentation, and audio packets.
        rate: pictures a second.
        count: told of every picture that is left out.
    """
    held: Shot | None = None
    shown = False
    for shot in shots:
        if isinstance(shot, Packet):
            yield shot
            continue
        if held is not None:
            for tick in _ticks(held, shot.time, rate, count):
                shown = True
                yield tick
        held = shot
    if held is None:
        return
    end = held.time + (held.duration * held.time_base or 1 / rate)
    if not shown:
        # However short, a source shows something.
        end = max(end, held.time + 1 / rate)
    yield from _ticks(held, end, rate, count)


def _ticks(shot: Shot, end: Fraction, rate: Fraction, count: Count) -> Iterator[Shot]:
    first, last = round(shot.time * rate), round(end * rate)
    if first >= last:
        count(Drop.RATE, 1)
    for tick in range(first, last):
        yield replace(shot, pts=tick, time_base=1 / rate, duration=1)


def limit(shots: Iterator[Shot | Packet], rate: Fraction, count: Count) -> Iterator[Shot | Packet]:
    """Pictures of a live source at no more than a rate; their times stay as they are.

    Args:
        shots: pictures in order of presentation, and audio packets.
        rate: pictures a second, at most.
        count: told of every picture that is left out.
    """
    gate = RateLimit(rate)
    for shot in shots:
        if isinstance(shot, Packet) or gate.passes(shot.time):
            yield shot
        else:
            count(Drop.RATE, 1)


def at_own_speed(
    shots: Iterator[Shot | Packet],
    stopping: threading.Event,
    *,
    alive: Callable[[], None] = lambda: None,
) -> Iterator[Shot | Packet]:
    """Pictures of a file when their time has come, as a camera would send them.

    Their time of capture becomes the moment at which they are let go.

    Args:
        shots: pictures in order of presentation, and audio packets.
        stopping: ends the wait, and the pictures, when set.
        alive: called while waiting.
    """
    begun: float | None = None
    for shot in shots:
        if isinstance(shot, Packet):
            yield shot
            continue
        now, offset = time.monotonic(), float(shot.time)
        if begun is None or now - begun - offset > _LATE:
            begun = now - offset
        while (left := begun + offset - time.monotonic()) > _LONGEST_WAIT:
            alive()
            if stopping.wait(_LONGEST_WAIT):
                return
        if stopping.wait(max(0.0, left)):
            return
        yield replace(shot, capture_ns=time.monotonic_ns())
