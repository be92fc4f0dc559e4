"""How far arrivals lag behind presentation times: the bound of it, slowly forgotten."""

from __future__ import annotations

from typing import Final

FORGET: Final = 0.025
"""Seconds a second by which a bound is forgotten: far more than clocks drift apart, far less than
is seen between two pictures."""


class Envelope:
    """The highest of some values that come with time, or the lowest, leaking towards the others.

    The clocks of a source and of this machine run apart by up to some 200 millionths, and a
    connection may get slower for good: a bound that was touched long ago says nothing any more.

    Args:
        sign: 1 for an upper bound, -1 for a lower one.
        forget: seconds a second by which it gives way.
    """

    def __init__(self, sign: int, *, forget: float = FORGET) -> None:
        self._sign = sign
        self._forget = forget
        self._value: float | None = None
        self._at = 0.0

    @property
    def value(self) -> float | None:
        """The bound as of the last value; None before the first."""
        return self._value

    def add(self, value: float, at: float) -> float:
        """Takes a value and returns the bound.

        Args:
            value: seconds.
            at: when it came, in seconds of any steady clock.
        """
        if self._value is not None:
            faded = self._value - self._sign * self._forget * max(0.0, at - self._at)
            value = self._sign * max(self._sign * value, self._sign * faded)
        self._value, self._at = value, at
        return value

    def limit(self, value: float) -> float:
        """Takes the bound back to a value if it lies beyond it, and returns the bound.

        Raises:
            ValueError: nothing was added yet.
        """
        if self._value is None:
            raise ValueError("there is no bound before the first value")
        self._value = self._sign * min(self._sign * self._value, self._sign * value)
        return self._value
