"""The order in which pictures and sound leave, and how long each waits for the other."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from nodes.encoder.order import SOUND, VIDEO, Due, Interleaver, SoundGate

PATIENCE = Fraction(1, 2)
TIMES = st.lists(st.integers(0, 5000), max_size=60, unique=True).map(sorted)


def due(stream: int, milliseconds: int) -> Due:
    return Due(stream, (stream, milliseconds), Fraction(milliseconds, 1000))


@given(TIMES, TIMES, st.randoms())
def test_a_file_gets_everything_and_each_stream_in_its_order(pictures, sounds, chance):
    order = Interleaver(sound=True, patience=PATIENCE)
    waiting = [[due(VIDEO, at) for at in pictures], [due(SOUND, at) for at in sounds]]
    given_out: list[Due] = []
    while waiting[0] or waiting[1]:
        stream = chance.choice([n for n in (0, 1) if waiting[n]])
        given_out += order.put(waiting[stream].pop(0))
    given_out += order.flush()
    for stream, times in ((VIDEO, pictures), (SOUND, sounds)):
        assert [d.packet[1] for d in given_out if d.stream == stream] == times


@given(st.lists(st.tuples(st.booleans(), st.integers(10, 400)), max_size=60))
def test_a_file_is_in_order_of_time_where_sound_comes_in_time(steps):
    order = Interleaver(sound=True, patience=PATIENCE)
    at, given_out = 0, []
    for is_sound, step in steps:
        at += step
        given_out += order.put(due(VIDEO, at))
        given_out += order.put(due(SOUND, at + 5 * is_sound))
    given_out += order.flush()
    times = [d.at for d in given_out]
    assert times == sorted(times)
    assert len(times) == 2 * len(steps)


@given(TIMES)
def test_pictures_wait_for_sound_that_has_stopped_but_not_long(pictures):
    order = Interleaver(sound=True, patience=PATIENCE)
    out = 0
    for number, at in enumerate(pictures):
        out += len(list(order.put(due(VIDEO, at))))
        held = [Fraction(t, 1000) for t in pictures[out : number + 1]]
        assert held[-1] - held[0] <= PATIENCE


@given(TIMES)
def test_pictures_without_sound_never_wait(pictures):
    order = Interleaver(sound=False, patience=PATIENCE)
    for at in pictures:
        assert len(list(order.put(due(VIDEO, at)))) == 1


@given(TIMES, st.lists(st.integers(0, 6000), max_size=30).map(sorted))
def test_sound_of_a_live_output_is_never_far_ahead_of_the_pictures(sounds, pictures):
    lead = Fraction(1, 10)
    gate = SoundGate(lead=lead, patience=None)
    for at in sounds:
        gate.put(at, Fraction(at, 1000), 0.0)
    let: list[int] = []
    for shown in (Fraction(at, 1000) for at in pictures):
        now = list(gate.due(shown, 100.0))
        assert all(d.at <= shown + lead for d in now)
        let += [d.packet for d in now]
        assert let == [at for at in sounds if Fraction(at, 1000) <= shown + lead]
    assert let + [d.packet for d in gate.flush()] == sounds


def test_sound_of_a_live_output_does_not_wait_for_ever():
    gate = SoundGate(lead=Fraction(1, 10), patience=2.0)
    gate.put("early", Fraction(5), 10.0)
    gate.put("later", Fraction(6), 11.0)
    assert not list(gate.due(Fraction(1), 11.9))
    assert [d.packet for d in gate.due(Fraction(1), 12.1)] == ["early"]
    assert [d.packet for d in gate.due(Fraction(6), 12.2)] == ["later"]
