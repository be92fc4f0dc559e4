"""A jitter buffer for sources that send in bursts: when each picture is due.

`ffmpeg -re` to UDP, a segmented stream or a busy wireless link bring many pictures at one moment
and then none for a while. Links that hold one picture would lose most of them. So pictures of such
a source are let go at the distances that their presentation times have, as late as the latest of
them came. A source that sends smoothly is not delayed at all.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Final

from nodes.decoder.envelope import Envelope
from nodes.decoder.render import Shot
from streamer import Packet

AUTO: Final = 0.25
"""Seconds by which a picture waits at most, where none are given."""
_HURRIED: Final = 0.25
"""Part of a picture's duration; one that follows sooner than that came in a bunch."""
_ON: Final = 0.3
"""Share of bunched pictures at which smoothing begins."""
_OFF: Final = 0.1
"""Share at which it ends."""
_MEMORY: Final = 32
"""Pictures over which the share is averaged."""
_ENOUGH: Final = 3
_STEADY: Final = 0.001
"""Seconds a second by which lateness is forgotten where a source is read as it is needed."""
_SLICE: Final = 0.1
"""Seconds between two looks at whether the run is ending."""


class Smoothing:
    """When the pictures of a source are due; a policy without a clock of its own.

    Args:
        bound: seconds that a picture waits at most; 0 switches it off.
        always: whether it is known to be bursty, so that nothing need be learnt.
    """

    def __init__(self, bound: float, *, always: bool = False) -> None:
        self.reset(bound, always=always)

    def due(self, time: float, arrival: float) -> float:
        """When a picture is to be let go, on the clock of `arrival`; never sooner than that.

        Args:
            time: presentation time in seconds.
            arrival: when all had come that it needs, in seconds of a steady clock.
        """
        self._learn(time, arrival)
        lag = arrival - time
        self._latest.add(lag, arrival)
        # One long hitch is not to have every picture wait as long as it may, each as bunched as
        # it came, until that is forgotten.
        offset = self._latest.limit(lag + self.bound)
        return max(time + offset, arrival) if self.on else arrival

    def reset(self, bound: float, *, always: bool = False) -> None:
        """The source was connected anew: how it sends now is to be learnt again."""
        self.bound = bound
        """seconds that a picture waits at most"""
        self.on = always and bound > 0
        """whether pictures wait"""
        self._always = always
        self._latest = Envelope(1, forget=_STEADY) if always else Envelope(1)
        self._share, self._seen = 0.0, 0
        self._last: tuple[float, float] | None = None

    def _learn(self, time: float, arrival: float) -> None:
        last, self._last = self._last, (time, arrival)
        if last is None or self.bound <= 0 or self._always:
            return
        bunched = arrival - last[1] < _HURRIED * (time - last[0])
        self._seen += 1
        # A plain mean at first, so that the first burst is known as one.
        self._share += (bunched - self._share) / min(self._seen, _MEMORY)
        if self._seen >= _ENOUGH:
            self.on = self._share > (_OFF if self.on else _ON)


def smoothed(
    shots: Iterator[Shot | Packet],
    smoothing: Smoothing,
    stopping: threading.Event,
    *,
    alive: Callable[[], None],
    changed: Callable[[bool], None],
) -> Iterator[Shot | Packet]:
    """Pictures when they are due; their time of capture stays that of their arrival.

    Args:
        shots: pictures in order of presentation, and audio packets, which do not wait.
        smoothing: says when.
        stopping: ends the wait, and the pictures, when set.
        alive: called while waiting.
        changed: told when smoothing begins or ends.
    """
    on = False
    for shot in shots:
        if isinstance(shot, Packet) or shot.stale:
            yield shot
            continue
        due = smoothing.due(float(shot.time), shot.ready_ns * 1e-9)
        while (wait := due - time.monotonic()) > 0:
            alive()
            if stopping.wait(min(wait, _SLICE)):
                return
        if smoothing.on != on:
            on = smoothing.on
            changed(on)
        yield shot
