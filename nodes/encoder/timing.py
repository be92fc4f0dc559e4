"""Times of the source as times of the output."""

from __future__ import annotations

from fractions import Fraction
from typing import Final

JUMP: Final = Fraction(1)
"""Seconds by which a clock must go back to be taken for a new one (a loop, a restarted camera)."""


class Clock:
    """Makes times start at zero and only ever grow; pictures and sound shift together.

    Times keep their distances at any frame rate. A time that is not later than the one before it
    is moved to the next unit and counted; a clock that goes back by more than `JUMP` is taken for
    a new one and continued where the old one ended. Between two pictures of the source others can
    be shown; where the source comes back with a time before theirs, it is shifted behind them.

    Args:
        time_base: seconds in one unit of the output's times.
        origin: seconds of the source that become zero.
        nominal: seconds that a picture of unknown duration lasts before any rate is seen.

    Attributes:
        mended: how many times were moved.
        jumps: how many times the clock went back.
        step: least distance of two pictures, in units of `time_base`; more than 1 where the
            container's times are coarser than the source's.
    """

    def __init__(self, time_base: Fraction, origin: Fraction, nominal: Fraction) -> None:
        self.time_base = time_base
        self.mended = 0
        self.jumps = 0
        self.step = 1
        self._origin = origin
        self._last: int | None = None
        self._filled = False
        self._shown = 0
        self._usual = max(1, round(nominal / time_base))

    def limit_to(self, coarsest: Fraction) -> None:
        """Keeps pictures apart by at least one unit of the container's own time base."""
        self.step = max(1, -int(-coarsest // self.time_base))

    def picture(self, pts: int, time_base: Fraction, duration: int) -> tuple[int, int]:
        """Time and duration of a picture, in units of the output's time base.

        Args:
            pts: presentation time in units of `time_base`.
            time_base: seconds in one unit of the source.
            duration: in units of `time_base`, 0 if unknown.
        """
        lasting = round(duration * time_base / self.time_base) if duration > 0 else 0
        at = self._scaled(pts * time_base)
        last = self._last
        if last is not None:
            if at < last + self.step:
                if self._filled:
                    # It fell short of what was shown meanwhile: from here on all is later.
                    self._origin -= (last + max(self._usual, self.step) - at) * self.time_base
                    at = max(self._scaled(pts * time_base), last + self.step)
                elif (last - at) * self.time_base > JUMP:
                    # Continue one picture after the last one.
                    self._origin -= (last + max(self._usual, self.step) - at) * self.time_base
                    self.jumps += 1
                    at = max(self._scaled(pts * time_base), last + self.step)
                else:
                    at = last + self.step
                    self.mended += 1
            elif not self._filled:
                self._usual = at - last
        self._last, self._filled = at, False
        return at, lasting or self._usual

    def fill(self, since: float, lasting: float) -> tuple[int, int]:
        """Time and duration of a picture that is shown in place of one that did not come.

        Args:
            since: seconds from the last picture of the source to the present.
            lasting: seconds until the next one.
        """
        last = self._last if self._last is not None else -self.step
        if not self._filled:
            self._shown = last
        at = max(self._shown + round(Fraction(since) / self.time_base), last + self.step)
        self._last, self._filled = at, True
        return at, max(self.step, round(Fraction(lasting) / self.time_base))

    @property
    def usual(self) -> float:
        """Seconds between two pictures, as seen last."""
        return float(self._usual * self.time_base)

    @property
    def last(self) -> Fraction:
        """Seconds of the picture that came last."""
        return (self._last or 0) * self.time_base

    def seconds(self, pts: int, time_base: Fraction) -> Fraction:
        """A time of the source, of sound say, in seconds of the output; may be below zero."""
        return pts * time_base - self._origin

    def _scaled(self, seconds: Fraction) -> int:
        return round((seconds - self._origin) / self.time_base)
