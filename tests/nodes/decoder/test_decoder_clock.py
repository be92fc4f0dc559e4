"""Clocks that wrap, jump, drift and come back: simulated, since days are long."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodes.decoder.envelope import Envelope
from nodes.decoder.jitter import AUTO, Smoothing
from nodes.decoder.timeline import Seen, Timeline

TICK = Fraction(1, 90000)
STEP = Fraction(1, 25)
DAY = 86400
NS = 10**9


class Mended:
    def __init__(self):
        self.count = 0

    def __call__(self):
        self.count += 1


def line(**options):
    mended = Mended()
    options = {"start": Fraction(0), "live": True, "broadcast": True, **options}
    return Timeline(mended=mended, **options), mended


def test_a_clock_of_33_bits_that_wraps_loses_nothing():
    timeline, mended = line()
    pictures, sounds = [], []
    hours = 80
    for number in range(hours * 3600 // 9):
        own = number * 9 * 90000
        arrival = number * 9 * NS
        # The sound wraps a little before the picture does.
        heard = (own + 40000) % (1 << 33)
        sounds.append(timeline.sound(heard, TICK, 1920, arrival) - 40000)
        pictures.append(timeline.picture(own % (1 << 33), TICK, STEP, arrival))
    expected = [number * 9 * 90000 for number in range(hours * 3600 // 9)]
    assert pictures == expected
    assert sounds == expected
    assert mended.count == 3  # once in 26.5 hours


def test_a_clock_that_is_set_anew_keeps_picture_and_sound_together():
    timeline, mended = line()
    for number in range(50):
        timeline.picture(number * 3600, TICK, STEP, number * 40_000_000)
        timeline.sound(number * 3600 + 1000, TICK, 3600, number * 40_000_000)
    reset = 10**9
    made = []
    for number in range(50, 100):
        arrival = number * 40_000_000
        # The sound of the old clock is still on its way, and comes between pictures of the new.
        old = 0 if number < 53 else reset
        sound = timeline.sound(number * 3600 + 1000 + old, TICK, 3600, arrival)
        picture = timeline.picture(number * 3600 + reset, TICK, STEP, arrival)
        made.append((picture, sound))
    assert made == [(number * 3600, number * 3600 + 1000) for number in range(50, 100)]
    assert mended.count == 1


def test_a_clock_that_is_set_back_for_the_sound_first():
    timeline, mended = line()
    for number in range(50):
        timeline.picture(90000 + number * 3600, TICK, STEP, number * 40_000_000)
        timeline.sound(90000 + number * 3600, TICK, 3600, number * 40_000_000)
    made = []
    for number in range(50):
        arrival = (50 + number) * 40_000_000
        sound = timeline.sound(number * 3600, TICK, 3600, arrival)
        made.append((timeline.picture(number * 3600, TICK, STEP, arrival), sound))
    expected = [90000 + number * 3600 for number in range(50, 100)]
    assert made == [(time, time) for time in expected]
    assert mended.count == 1


def test_a_pause_of_a_live_source_is_a_pause_and_a_jump_is_none():
    timeline, mended = line()
    timeline.picture(0, TICK, STEP, 0)
    assert timeline.picture(20 * 90000, TICK, STEP, 20 * NS) == 20 * 90000
    assert mended.count == 0
    assert timeline.picture(520 * 90000, TICK, STEP, 20 * NS + 40_000_000) == 20 * 90000 + 3600
    assert mended.count == 1


def test_times_that_stand_still_are_counted():
    timeline, mended = line()
    made = [timeline.picture(pts, TICK, STEP, 0) for pts in (0, 3600, 3600, 3599, 7200)]
    assert made == [0, 3600, 3601, 3602, 7200]
    assert mended.count == 2


def seen(*times, at, picture=True):
    return [Seen(picture, Fraction(time), round((at + time) * NS)) for time in times]


def played(timeline, own, arrivals):
    return [
        timeline.picture(round(time * 90000), TICK, STEP, round(arrival * NS)) / 90000
        for time, arrival in zip(own, arrivals, strict=True)
    ]


def test_time_goes_on_while_a_source_is_away():
    timeline, mended = line()
    timeline.sound(0, TICK, 3600, NS)
    assert played(timeline, [0, 0.04, 0.08], [1, 1.04, 1.08]) == [0, 0.04, 0.08]
    # It comes back 30 s later, and its clock begins at 500 s.
    timeline.resume(Fraction(500), seen(500, 500.04, at=-468.92))
    assert played(timeline, [500, 500.04], [31.08, 31.12]) == pytest.approx([30.08, 30.12])
    assert timeline.sound(500 * 90000, TICK, 3600, 31 * NS) / 90000 == pytest.approx(30.08)
    assert mended.count == 0


def test_what_came_at_once_after_a_break_does_not_move_the_clock():
    timeline, _ = line()
    played(timeline, [0, 0.04], [1, 1.04])
    for _ in range(500):
        # Half a second had been looked at before the first packet was handed over.
        at = timeline.end + 10
        burst = [Seen(True, Fraction(n, 25), round((at + 1) * NS)) for n in range(13)]
        timeline.resume(Fraction(0), burst)
        own = [n / 25 for n in range(50)]
        arrivals = [float(at + 1) + max(0.0, time - 0.48) for time in own]
        made = played(timeline, own, arrivals)
    assert arrivals[-1] - made[-1] == pytest.approx(1, abs=0.1)


def test_a_break_too_short_for_what_comes_shows_nothing_twice():
    timeline, mended = line()
    played(timeline, [0, 0.04, 0.08], [1, 1.04, 1.08])
    # A server that sends its last two seconds again: time runs ahead of arrival ...
    again = [Seen(True, Fraction(n, 25), round(1.2 * NS)) for n in range(50)]
    timeline.resume(Fraction(0), again)
    made = played(timeline, [n / 25 for n in range(50)], [1.2] * 50)
    assert made[0] == pytest.approx(0.12)
    assert all(later > sooner for sooner, later in pairwise(made))
    # ... until the next break makes up for it.
    timeline.resume(Fraction(0), seen(0, 0.04, at=60))
    assert played(timeline, [0, 0.04], [60, 60.04]) == pytest.approx([59, 59.04], abs=0.1)
    assert mended.count == 0


def test_the_first_picture_of_a_session_without_a_time():
    timeline, mended = line()
    assert timeline.picture(None, TICK, STEP, NS) == 0
    assert timeline.picture(3600, TICK, STEP, NS) == 3600
    timeline.resume(Fraction(0), seen(0.04, 0.08, at=60))
    first = timeline.picture(None, TICK, STEP, 60 * NS)
    assert timeline.picture(3600, TICK, STEP, 60 * NS) - first == 3600
    assert mended.count == 0


TIMES = st.integers(-(1 << 34), 1 << 34)
EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("picture"), st.one_of(st.none(), TIMES), st.integers(0, 10 * NS)),
        st.tuples(st.just("sound"), st.one_of(st.none(), TIMES), st.integers(0, 10 * NS)),
        st.tuples(st.just("break"), st.lists(TIMES, max_size=3), st.integers(0, 100 * NS)),
    ),
    max_size=60,
)


@given(EVENTS, st.booleans(), st.one_of(st.none(), st.integers(-5, 5)))
def test_time_never_goes_back_across_breaks(events, broadcast, start):
    timeline, _ = line(start=None if start is None else Fraction(start), broadcast=broadcast)
    now, pictures, sounds = 0, [], []
    for kind, what, passed in events:
        now += passed
        if kind == "picture":
            pictures.append(timeline.picture(what, TICK, STEP, now))
        elif kind == "sound":
            time = timeline.sound(what, TICK, 1920, now)
            sounds += [] if time is None else [time]
        else:
            timeline.resume(None, [Seen(True, time * TICK, now) for time in what])
    assert all(later > sooner for sooner, later in pairwise(pictures))
    assert all(later > sooner for sooner, later in pairwise(sounds))


@pytest.mark.parametrize("drift", [-200e-6, 200e-6])
def test_a_smooth_source_is_never_delayed_however_its_clock_drifts(drift):
    smoothing = Smoothing(AUTO)
    for number in range(2 * DAY):
        arrival = number * (1 + drift)
        assert smoothing.due(float(number), arrival) == arrival


@pytest.mark.parametrize("drift", [-200e-6, 200e-6])
def test_drift_builds_no_delay_behind_a_bursty_source(drift):
    smoothing = Smoothing(AUTO)
    waits = []
    for burst in range(DAY):
        arrival = (burst + 1) * (1 + drift)
        for part in range(4):
            # Four pictures 50 ms apart, all at once, each second.
            due = smoothing.due(burst + part * 0.05, arrival)
            waits.append(due - arrival)
    assert smoothing.on
    assert min(waits) >= 0
    assert max(waits) <= 0.18
    assert max(waits[-400:]) == pytest.approx(max(waits[400:800]), abs=0.01)


def test_pictures_that_come_in_bunches_are_let_go_evenly():
    smoothing = Smoothing(AUTO)
    gone = []
    for number in range(300):
        arrival = (number // 7) * 7 / 30
        gone.append(smoothing.due(number / 30, arrival))
    gaps = [later - sooner for sooner, later in pairwise(gone)]
    hurried = [gap for gap in gaps if gap < 0.02]
    assert len(hurried) <= 3  # the first ones, before it is known
    assert max(gap for gap in gaps[7:]) < 0.06


def test_no_picture_waits_longer_than_it_may():
    for bound in (0.0, 0.05, 2.0):
        smoothing = Smoothing(bound)
        waits = []
        for number in range(300):
            arrival = (number // 60) * 2.0
            waits.append(smoothing.due(number / 30, arrival) - arrival)
        assert 0 <= max(waits) <= bound + 1e-9
        assert smoothing.on is (bound > 0)


def test_smoothing_ends_when_the_source_sends_smoothly():
    smoothing = Smoothing(AUTO)
    for number in range(70):
        smoothing.due(number / 30, (number // 7) * 7 / 30)
    assert smoothing.on
    for number in range(70, 300):
        smoothing.due(number / 30, number / 30)
    assert not smoothing.on
    assert smoothing.due(10.0, 10.0) == 10.0


def test_after_a_long_hitch_bunches_are_let_go_evenly_again():
    smoothing = Smoothing(AUTO)
    gone = []
    for number in range(600):
        arrival = (number // 7) * 7 / 30
        if 5 <= arrival < 6:
            arrival = 6.0  # everything stood still for a second
        gone.append(smoothing.due(number / 30, arrival))
    gaps = [later - sooner for sooner, later in pairwise(gone[200:])]
    assert min(gaps) > 0.02
    assert max(gaps) < 0.06


def test_one_hitch_of_a_smooth_source_delays_nothing():
    smoothing = Smoothing(AUTO)
    for number in range(300):
        # The machine was busy for 100 ms: three pictures came late, together.
        arrival = max(number / 30, 5.1) if 150 <= number < 153 else number / 30
        assert smoothing.due(number / 30, arrival) == arrival


@given(st.lists(st.tuples(st.floats(-1e3, 1e3), st.floats(0, 10)), max_size=50))
def test_an_envelope_bounds_what_it_was_given_and_forgets_slowly(values):
    upper, lower = Envelope(1), Envelope(-1)
    now, before = 0.0, None
    for value, passed in values:
        now += passed
        high, low = upper.add(value, now), lower.add(value, now)
        assert low <= value <= high
        if before is not None:
            assert high >= before - 0.025 * passed - 1e-9
        before = high
