"""Frame rates: their exact value, and a limit that drops by presentation time."""

from __future__ import annotations

from fractions import Fraction
from typing import Final

_NTSC: Final = Fraction(1000, 1001)


def exact_rate(fps: float) -> Fraction:
    """The rate that a rounded number means: 29.97 is 30000/1001, 12.5 is 25/2.

    Args:
        fps: frames a second, above 0.
    """
    whole = round(fps)
    if whole and abs(fps - whole * _NTSC) < 0.004 and fps != whole:
        return whole * _NTSC
    return Fraction(fps).limit_denominator(1000)


class RateLimit:
    """Lets at most `rate` frames a second pass, chosen by presentation time alone.

    Times that jitter by less than a quarter of a period change nothing, and the rate holds in the
    long run: the next frame is due a period after the last one was due, not after it came.

    Args:
        rate: frames a second.
    """

    def __init__(self, rate: Fraction) -> None:
        self._period = 1 / rate
        self._due: Fraction | None = None

    def passes(self, time: Fraction) -> bool:
        """Whether a frame of this presentation time, in seconds, goes on.

        Times usually rise; after a jump back, of a source that was started again, counting starts
        afresh.
        """
        due, period = self._due, self._period
        if due is None or time < due - 2 * period:
            self._due = time + period
            return True
        if time < due - period / 4:
            return False
        self._due = max(due, time - period / 2) + period
        return True
