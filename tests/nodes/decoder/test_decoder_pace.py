from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import av
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodes.decoder import pace
from nodes.decoder.render import Shot
from nodes.decoder.timeline import Timeline
from nodes.rate import RateLimit, exact_rate


def shots(times, *, duration=40):
    for number, time in enumerate(times):
        picture = av.VideoFrame(16, 16, "gray")
        picture.opaque = number
        yield Shot(picture, time, Fraction(1, 1000), duration, 7)


@pytest.mark.parametrize("fps", [5, 12.5, 25, 29.97, 50, 60])
def test_a_file_is_brought_to_a_rate_and_counts_what_it_leaves_out(clip, play, fps):
    played = play(clip("clip.mp4", count=50), fps=fps)
    rate = exact_rate(fps)
    assert len(played.headers) == pytest.approx(2 * fps, abs=1)
    assert [header.pts for header in played.headers] == list(range(len(played.headers)))
    assert {header.time_base for header in played.headers} == {1 / rate}
    shown = {header.capture_ns for header in played.headers}
    assert len(shown) + played.dropped.get("rate", 0) == 50
    assert played.context.expected["frames"] == len(played.headers)


def test_each_tick_shows_what_is_shown_then():
    dropped = []
    converted = pace.convert(
        shots([0, 100, 110, 120, 900]), Fraction(10), lambda reason, n: dropped.append((reason, n))
    )
    shown = [(shot.pts, shot.picture.opaque) for shot in converted]
    # That of 0 s on the first tick; of 0.1, 0.11 and 0.12 s, all nearest to the second tick, the
    # last one stays until 0.9 s; and that of 0.9 s has no tick after it, since it lasts 0.04 s.
    assert [tick for tick, _ in shown] == list(range(9))
    assert [number for _, number in shown] == [0] + [3] * 8
    assert [number for _, number in dropped] == [1, 1, 1]


def test_a_source_shows_something_however_short():
    converted = pace.convert(shots([0]), Fraction(5), lambda reason, n: None)
    assert [shot.pts for shot in converted] == [0]


@pytest.mark.parametrize(
    ("fps", "exact"),
    [
        (29.97, Fraction(30000, 1001)),
        (23.976, Fraction(24000, 1001)),
        (59.94, Fraction(60000, 1001)),
        (30, Fraction(30)),
        (12.5, Fraction(25, 2)),
        (0.1, Fraction(1, 10)),
    ],
)
def test_rates_that_are_meant(fps, exact):
    assert exact_rate(fps) == exact


def test_a_limit_holds_in_the_long_run_whatever_the_jitter():
    gate = RateLimit(Fraction(10))
    times = [Fraction(number, 30) + Fraction((number * 7) % 5, 1000) for number in range(300)]
    passed = [time for time in times if gate.passes(time)]
    assert len(passed) == 100
    assert min(later - sooner for sooner, later in pairwise(passed)) > Fraction(1, 15)


def test_a_limit_above_the_rate_drops_nothing():
    gate = RateLimit(Fraction(30))
    assert all(gate.passes(Fraction(round(number * 1000 / 30), 1000)) for number in range(300))


def test_a_limit_starts_afresh_when_time_jumps_back():
    gate = RateLimit(Fraction(10))
    assert [gate.passes(Fraction(time, 10)) for time in (100, 101, 0, 1)] == [True] * 4


class Clock:
    """A clock that only waiting moves; stands for `time` and for the event that ends a run."""

    def __init__(self):
        self.now = 100.0
        self.stop_at = float("inf")

    def monotonic(self):
        return self.now

    def monotonic_ns(self):
        return int(self.now * 1e9)

    def wait(self, seconds):
        self.now += seconds
        return self.now >= self.stop_at


def test_a_file_at_its_own_speed_lets_pictures_go_when_their_time_has_come(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(pace, "time", clock)
    gone = []
    for shot in pace.at_own_speed(shots([0, 40, 80, 500]), clock):
        gone.append(round(clock.now - 100, 6))
        assert shot.capture_ns == clock.monotonic_ns()
        clock.now += 0.005  # the work of others takes time and delays nothing
    assert gone == [0, 0.04, 0.08, 0.5]


def test_a_file_that_cannot_keep_up_goes_on_from_where_it_is(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(pace, "time", clock)
    gone = []
    for shot in pace.at_own_speed(shots([0, 40, 80]), clock):
        gone.append(round(clock.now - 100, 6))
        if shot.pts == 0:
            clock.now += 30
    assert gone == [0, 30, 30.04]


def test_waiting_ends_with_the_run(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(pace, "time", clock)
    clock.stop_at = 100.06
    assert [shot.pts for shot in pace.at_own_speed(shots([0, 40, 80, 120]), clock)] == [0, 40]


def test_realtime_plays_the_whole_file(clip, play):
    played = play(clip("clip.mp4", count=8, fps=50), realtime=True)
    captured = [header.capture_ns for header in played.headers]
    assert captured[-1] - captured[0] >= 0.99 * 7 / 50 * 1e9
    assert played.times == pytest.approx([number / 50 for number in range(8)])


TIMES = st.lists(st.one_of(st.none(), st.integers(-(10**7), 10**7)), min_size=1, max_size=60)


@given(TIMES, st.booleans(), st.booleans())
def test_time_never_goes_back_whatever_a_source_says(times, live, broadcast):
    line = Timeline(start=None, live=live, broadcast=broadcast)
    step = Fraction(1, 25)
    made = [
        line.picture(time, Fraction(1, 90000), step, arrival) for arrival, time in enumerate(times)
    ]
    assert all(later > sooner for sooner, later in pairwise(made))


def test_a_clock_that_is_set_back_goes_on_where_it_stood():
    line = Timeline(start=Fraction(0), live=True, broadcast=True)
    made = [line.picture(pts, Fraction(1, 1000), Fraction(1, 25), 0) for pts in (0, 40, 80, 7, 47)]
    # 7 is less than half a second back: taken for jitter, and held just above the last time.
    assert made == [0, 40, 80, 81, 82]
    line = Timeline(start=Fraction(0), live=True, broadcast=True)
    made = [line.picture(pts, Fraction(1, 1000), Fraction(1, 25), 0) for pts in (9000, 9040, 0, 40)]
    assert made == [9000, 9040, 9080, 9120]


def test_pictures_without_a_time_follow_at_the_frame_rate_or_at_arrival():
    line = Timeline(start=Fraction(0), live=False, broadcast=False)
    step = Fraction(1, 25)
    assert [line.picture(None, Fraction(1, 1000), step, 0) for _ in range(3)] == [0, 40, 80]
    line = Timeline(start=Fraction(0), live=True, broadcast=False)
    arrivals = (5_000_000, 17_000_000, 90_000_000)
    made = [line.picture(None, Fraction(1, 1000), step, arrival) for arrival in arrivals]
    assert made == [0, 12, 85]
