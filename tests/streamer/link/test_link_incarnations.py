"""Ends of a link that die and are followed by others: leases, slots, and who is listened to."""

from __future__ import annotations

import time
from typing import Any

import pytest
import zmq
from links import (
    consumer,
    inlet,
    next_of,
    next_of_published,
    outlet,
    publish,
    said_hello,
    seq_of,
    settled,
)

from streamer.link import wire
from streamer.link.inlet import Inlet, Received
from streamer.link.outlet import Outlet

ENDPOINT = "inproc://link"

pytestmark = pytest.mark.usefixtures("memory")


def test_slots_of_a_dead_consumer_come_back(context: zmq.Context[Any]) -> None:
    sink = consumer("sink", "wait", depth=3)
    out, source = outlet(context, ENDPOINT, sink), inlet(context, ENDPOINT, window=3)
    said_hello(out, sink)
    for seq in range(3):
        publish(out, seq)
    held = [next_of(source, out) for _ in range(2)]
    assert sink.full
    out.consumer_down("sink", 1)
    assert not sink.full
    assert not any(any(g.holders) for g in out._pool.generations)
    again = inlet(context, ENDPOINT, incarnation=2, window=3)
    # It is told that what its former life was sent will not come.
    mark = next_of(again, out)
    assert isinstance(mark, wire.Watermark)
    assert (mark.stream, mark.seq) == ("camera", 2)
    assert seq_of(next_of_published(out, again, 3)) == 3
    for arrival in held:  # too late: these are not its slots any more
        arrival.frame.release()
    out.service()
    assert seq_of(next_of_published(out, again, 4)) == 4


def test_what_waits_for_a_dead_consumer_waits_for_the_next(context: zmq.Context[Any]) -> None:
    sink = consumer("sink", "wait", depth=4)
    out, source = outlet(context, ENDPOINT, sink), inlet(context, ENDPOINT, window=1)
    said_hello(out, sink)
    for seq in range(4):
        publish(out, seq)
    next_of(source, out)
    out.consumer_down("sink", 1)
    again = inlet(context, ENDPOINT, incarnation=2, window=4)
    assert isinstance(next_of(again, out), wire.Watermark)
    assert [seq_of(next_of(again, out)) for _ in range(3)] == [1, 2, 3]


def test_a_hello_of_a_newer_incarnation_may_come_before_the_news_of_a_death(
    context: zmq.Context[Any],
) -> None:
    sink = consumer("sink", "wait", depth=2)
    out, first = outlet(context, ENDPOINT, sink), inlet(context, ENDPOINT, window=2)
    next_of_published(out, first, 0)
    second = inlet(context, ENDPOINT, incarnation=2, window=2)
    assert settled(out, lambda: sink.incarnation == 2)
    held = next_of_published_after_mark(out, second, 1)
    assert settled(out, lambda: len(sink.outstanding) == 1)  # the mark is credited at once
    out.consumer_down("sink", 1)  # about the first one: the second keeps what it has
    assert len(sink.outstanding) == 1
    assert (held.frame.numpy() == 1).all()
    out.consumer_down("sink", 2)
    assert sink.outstanding == []


def next_of_published_after_mark(out: Outlet, source: Inlet, seq: int) -> Received:
    publish(out, seq)
    while not isinstance(arrival := next_of(source, out), Received):
        assert isinstance(arrival, wire.Watermark)
    return arrival


def test_a_hello_of_an_older_incarnation_is_refused(context: zmq.Context[Any]) -> None:
    sink = consumer("sink")
    out, source = outlet(context, ENDPOINT, sink), inlet(context, ENDPOINT, incarnation=2)
    said_hello(out, sink)
    inlet(context, ENDPOINT, incarnation=1)
    assert settled(out, lambda: out.protocol_errors == 1)
    assert sink.incarnation == 2
    assert seq_of(next_of_published(out, source, 3)) == 3


def test_pictures_of_another_incarnation_of_the_producer_are_refused(
    context: zmq.Context[Any],
) -> None:
    sink = consumer("sink", "latest", depth=2)
    out = outlet(context, ENDPOINT, sink, incarnation=1)
    source = inlet(context, ENDPOINT, producer=2)
    said_hello(out, sink)
    publish(out, 0)
    out.finish()
    time.sleep(0.05)
    assert source.receive() is None
    assert not source.ended


def test_frames_held_across_a_reconnection_stay_readable_and_credit_nobody(
    context: zmq.Context[Any],
) -> None:
    old_sink, new_sink = consumer("sink", "wait", 2), consumer("sink", "wait", 2)
    old = outlet(context, "inproc://old", old_sink)
    source = inlet(context, "inproc://old", window=2)
    held = next_of_published(old, source, 9).frame
    new = outlet(context, "inproc://new", new_sink, incarnation=2)
    source.connect("inproc://new", 2)
    old.close()
    fresh = next_of_published(new, source, 1)
    assert (held.numpy() == 9).all()
    held.release()
    new.service()
    assert new.protocol_errors == 0  # the old slot's credit did not go to the new producer
    assert len(new_sink.outstanding) == 1
    fresh.frame.release()
    assert settled(new, lambda: not new_sink.outstanding)
