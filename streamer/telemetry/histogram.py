"""Histograms of durations in a few thousand integers, so that they can lie in shared memory.

Buckets are linear up to 128 µs and then 64 to an octave (the layout of HdrHistogram, Gil Tene),
so a percentile is exact to 1 µs below 128 µs and to 0.8 % above.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

_SUB_BITS: Final = 6
_SUB: Final = 1 << _SUB_BITS
_OCTAVES: Final = 30
_LARGEST: Final = (1 << (_OCTAVES + _SUB_BITS)) - 1

CELLS: Final = (_OCTAVES + 1) * _SUB
"""integers that one histogram takes"""


def bucket_of(microseconds: int) -> int:
    """Index of the bucket that counts a duration; durations beyond 19 hours count as 19 hours."""
    value = min(max(microseconds, 0), _LARGEST)
    octave = max(0, value.bit_length() - _SUB_BITS - 1)
    return (octave << _SUB_BITS) + (value >> octave)


def middle_of(bucket: int) -> float:
    """Duration in microseconds that a bucket stands for: the middle of its range."""
    octave = max(0, (bucket >> _SUB_BITS) - 1)
    low = (bucket - (octave << _SUB_BITS)) << octave
    return low + ((1 << octave) - 1) / 2


class Histogram:
    """Durations counted by size; one writer, any number of readers.

    Args:
        cells: int64 array of `CELLS` counts, all 0 at first.
    """

    __slots__ = ("_cells",)

    def __init__(self, cells: npt.NDArray[np.int64]) -> None:
        self._cells = cells

    def add_ns(self, nanoseconds: int) -> None:
        """Counts one duration."""
        self._cells[bucket_of(nanoseconds // 1000)] += 1

    @property
    def count(self) -> int:
        """How many durations were counted."""
        return int(self._cells.sum())

    def percentiles_us(self, *percents: float) -> tuple[float | None, ...]:
        """Durations in microseconds below which the given shares (0 to 100) lie.

        None for each where nothing was counted.
        """
        cumulative = np.cumsum(self._cells)
        total = int(cumulative[-1])
        if not total:
            return (None,) * len(percents)
        ranks = [max(1, int(np.ceil(total * percent / 100))) for percent in percents]
        return tuple(
            middle_of(int(np.searchsorted(cumulative, rank, side="left"))) for rank in ranks
        )
