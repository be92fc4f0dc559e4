"""Times of a source counted from zero, never going back, also across loops and broken clocks."""

from __future__ import annotations

from fractions import Fraction
from typing import Final

_BACK: Final = Fraction(1, 2)
"""Seconds by which a clock may go back and count as jitter; beyond that it was set anew."""
_AHEAD: Final = 10
"""Seconds by which the clock of a broadcast may jump ahead, as in FFmpeg's own tools."""


class Timeline:
    """Turns a stream's own times into presentation times.

    Times pass through unchanged but for one shift, common to picture and sound, that lets the
    source begin at zero. Where a picture has no time, it gets one from the frame rate or, of a
    live source, from its arrival. Two pictures never have the same time.

    Args:
        start: seconds of the source's own time at which it begins; the first time seen if None.
        live: whether arrival tells the time where the source does not.
        broadcast: whether the format's times may jump ahead without a pause being meant.
    """

    def __init__(self, *, start: Fraction | None, live: bool, broadcast: bool) -> None:
        self._shift: Fraction | None = None if start is None else -start
        self._live = live
        self._broadcast = broadcast
        self._last_picture: tuple[int, Fraction] | None = None
        self._last_sound: tuple[int, Fraction] | None = None
        self._last_arrival = 0
        self._step = Fraction(0)
        self.end = Fraction(0)
        """seconds at which the last thing that was shown or heard ends"""

    def picture(self, pts: int | None, time_base: Fraction, step: Fraction, arrival_ns: int) -> int:
        """Presentation time of the next picture, in units of `time_base`.

        Args:
            pts: the stream's own time, in units of `time_base`; None if it has none.
            time_base: seconds.
            step: how long the picture is shown, in seconds.
            arrival_ns: when it was read, CLOCK_MONOTONIC.
        """
        last = self._last_picture
        if pts is None:
            time = self._guess(last, arrival_ns, time_base)
        else:
            if self._shift is None:
                self._shift = -pts * time_base
            time = pts + round(self._shift / time_base)
        if last is not None and pts is not None and self._jumped(time * time_base, last):
            # The clock was set anew: time goes on where it stood.
            target = last[0] * last[1] + (self._step or step)
            assert self._shift is not None
            self._shift += target - time * time_base
            time = round(target / time_base)
        if last is not None and time * time_base <= last[0] * last[1]:
            time = int(last[0] * last[1] / time_base) + 1
        self._last_picture, self._last_arrival = (time, time_base), arrival_ns
        self._step = step
        self.end = max(self.end, time * time_base + step)
        return time

    def sound(self, pts: int | None, time_base: Fraction, duration: int) -> int | None:
        """Presentation time of the next audio packet; None if it would go back and must be left.

        Args:
            pts: the stream's own time, in units of `time_base`.
            time_base: seconds.
            duration: in units of `time_base`.
        """
        last = self._last_sound
        if pts is None:
            if last is None:
                return None
            time = last[0] + max(1, duration)
        else:
            if self._shift is None:
                self._shift = -pts * time_base
            time = pts + round(self._shift / time_base)
        if last is not None and time <= last[0]:
            if last[0] - time > max(1, duration):
                return None
            time = last[0] + 1
        self._last_sound = (time, time_base)
        self.end = max(self.end, (time + duration) * time_base)
        return time

    def again(self, start: Fraction | None) -> None:
        """The source begins anew (a loop): its time `start` is now the end of what was played."""
        self._shift = None if start is None else self.end - start
        if self._shift is None:
            raise ValueError("a source without times cannot be looped")

    def _guess(
        self, last: tuple[int, Fraction] | None, arrival_ns: int, time_base: Fraction
    ) -> int:
        if last is None:
            return round(self.end / time_base)
        passed = self._step
        if self._live:
            passed = Fraction(arrival_ns - self._last_arrival, 1_000_000_000)
        return round((last[0] * last[1] + passed) / time_base)

    def _jumped(self, time: Fraction, last: tuple[int, Fraction]) -> bool:
        ahead = time - last[0] * last[1]
        return ahead < -_BACK or (self._broadcast and ahead > _AHEAD)
