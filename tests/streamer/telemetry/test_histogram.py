"""Histograms: exactness where it is promised, against numpy's percentiles."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.telemetry.histogram import CELLS, Histogram, bucket_of, middle_of

LONGEST_US = 2**36 - 1


def histogram(*microseconds: int) -> Histogram:
    made = Histogram(np.zeros(CELLS, np.int64))
    for us in microseconds:
        made.add_ns(us * 1000)
    return made


@given(st.integers(0, LONGEST_US))
def test_a_bucket_stands_for_what_it_counts(us: int) -> None:
    bucket = bucket_of(us)
    assert 0 <= bucket < CELLS
    error = abs(middle_of(bucket) - us)
    assert error <= (0 if us < 128 else us * 0.008)


@given(st.integers(0, LONGEST_US), st.integers(0, LONGEST_US))
def test_longer_durations_are_in_later_buckets(one: int, other: int) -> None:
    low, high = sorted((one, other))
    assert bucket_of(low) <= bucket_of(high)


def test_every_bucket_is_used_once() -> None:
    middles = [middle_of(bucket) for bucket in range(CELLS)]
    assert middles == sorted(set(middles))
    assert [bucket_of(int(middle)) for middle in middles] == list(range(CELLS))


def test_durations_out_of_range_count_at_the_ends() -> None:
    assert bucket_of(-5) == 0
    assert bucket_of(LONGEST_US * 1000) == CELLS - 1
    assert histogram(-3).percentiles_us(50) == (0.0,)


@given(st.lists(st.integers(0, 10**7), min_size=1, max_size=300), st.floats(0.1, 100))
def test_percentiles_agree_with_numpy(durations: list[int], percent: float) -> None:
    (found,) = histogram(*durations).percentiles_us(percent)
    exact = float(np.percentile(durations, percent, method="inverted_cdf"))
    assert found == pytest.approx(exact, rel=0.008, abs=0.5)


def test_counts_and_nothing_counted() -> None:
    assert histogram().percentiles_us(50, 95, 99) == (None, None, None)
    assert (histogram().count, histogram(1, 2, 3).count) == (0, 3)
    assert histogram(5, 5, 5, 100).percentiles_us(0, 50, 75, 100) == (5, 5, 5, 100)


def test_nanoseconds_are_cut_to_microseconds() -> None:
    made = Histogram(np.zeros(CELLS, np.int64))
    made.add_ns(1999)
    assert made.percentiles_us(100) == (1.0,)
