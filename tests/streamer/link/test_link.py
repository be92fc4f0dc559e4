"""The two ends of a link in one process: policies, leases, generations, incarnations, the end."""

from __future__ import annotations

import gc
import threading
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import zmq
from links import (
    SIZE,
    board,
    consumer,
    fill,
    header,
    inlet,
    next_of,
    next_of_published,
    opened,
    outlet,
    publish,
    said_hello,
    seq_of,
    settled,
)

from streamer.audio import AudioFormat, Packet
from streamer.drops import Drop
from streamer.errors import LinkError, ProtocolError, SlabError
from streamer.link import outlet as outlets
from streamer.link import wire
from streamer.link.consumer import MOST_KEPT, Mark
from streamer.link.inlet import END, Inlet, Received

ENDPOINT = "inproc://link"

pytestmark = pytest.mark.usefixtures("memory")


def test_a_picture_arrives_as_it_was_written(context: zmq.Context[Any]) -> None:
    sink = consumer("sink")
    out, source = outlet(context, ENDPOINT, sink), inlet(context, ENDPOINT)
    said_hello(out, sink)
    assert publish(out, 7)
    arrival = next_of(source, out)
    assert isinstance(arrival, Received)
    with arrival.frame as frame:
        assert (frame.seq, frame.width, frame.height, frame.format) == (7, 64, 48, "rgb24")
        assert (frame.numpy() == 7).all()
        assert not frame.numpy().flags.writeable
    assert sink.board.offered.value == 1
    source.close()
    out.close()


def test_a_latest_mailbox_keeps_the_newest_and_counts_the_others(
    context: zmq.Context[Any],
) -> None:
    sink = consumer("sink", "latest", depth=2)
    out = outlet(context, ENDPOINT, sink)
    for seq in range(10):
        publish(out, seq)
    source = inlet(context, ENDPOINT)
    assert [seq_of(next_of(source, out)) for _ in range(2)] == [8, 9]
    assert sink.board.dropped[Drop.REPLACED].value == 8
    first = next_of_published(out, source, 10)
    for seq in range(11, 20):  # one is held, two wait
        publish(out, seq)
    first.frame.release()
    assert [seq_of(next_of(source, out)) for _ in range(2)] == [18, 19]
    assert sink.board.dropped[Drop.REPLACED].value == 8 + 7
    assert sink.board.offered.value == 20


def test_wait_loses_nothing_and_bounds_what_is_under_way(context: zmq.Context[Any]) -> None:
    sink = consumer("sink", "wait", depth=3)
    out, source = outlet(context, ENDPOINT, sink), inlet(context, ENDPOINT, window=3)
    under_way: list[int] = []

    def produce() -> None:
        for seq in range(200):
            publish(out, seq)
            under_way.append(len(sink.mailbox) + len(sink.outstanding))
        out.finish()

    producer = threading.Thread(target=produce)
    producer.start()
    seqs = []
    while (arrival := next_of(source, out)) is not END:
        seqs.append(seq_of(arrival))
    producer.join()
    assert seqs == list(range(200))
    assert max(under_way) <= 3
    assert not any(cell.value for cell in sink.board.dropped.values())
    assert settled(out, lambda: out.drained)


def test_waiting_for_room_can_be_cancelled(context: zmq.Context[Any]) -> None:
    sink = consumer("sink", "wait", depth=1)
    out = outlet(context, ENDPOINT, sink)
    publish(out, 0)
    stop = threading.Event()
    got: list[Any] = ["nothing"]
    waiter = threading.Thread(
        target=lambda: got.__setitem__(0, out.allocate(SIZE, cancelled=stop.is_set))
    )
    waiter.start()
    assert settled(out, lambda: out.waiting)
    assert got == ["nothing"]
    stop.set()
    out.wake()
    waiter.join()
    assert got == [None]
    assert not out.waiting


def test_a_full_wait_consumer_that_is_gone_holds_up_nobody(context: zmq.Context[Any]) -> None:
    sink, other = consumer("sink", "wait", depth=1), consumer("other", "wait", depth=4)
    out = outlet(context, ENDPOINT, sink, other)
    publish(out, 0)
    out.consumer_gone("sink")
    publish(out, 1)
    assert sink.board.dropped[Drop.CONSUMER_GONE].value == 2
    assert len(other.mailbox) == 2
    out.finish()
    assert not out.drained  # the other one still waits for its pictures
    out.consumer_gone("other")
    assert out.drained


def test_without_a_free_slot_a_live_outlet_drops_the_new_picture(
    context: zmq.Context[Any],
) -> None:
    sink = consumer("sink")
    out = outlet(context, ENDPOINT, sink)
    slots = []
    while (slot := out.allocate(SIZE)) is not None and slot.generation:
        slots.append(slot)
    assert slot is not None
    fill(slot, 0)  # scratch memory, as good as any to write to
    assert not out.publish(slot, header(0))
    assert sink.board.dropped[Drop.NO_SLOT].value == 1
    for slot in slots:
        out.discard(slot)
    assert publish(out, 1)


def test_a_node_that_keeps_all_its_slots_is_told_so(
    context: zmq.Context[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outlets, "_STARVED_S", 0.2)
    out = outlet(context, ENDPOINT, consumer("sink", "wait", depth=2))
    slots = [out.allocate(SIZE) for _ in range(7)]
    with pytest.raises(SlabError, match=r"all 7 slots are in use: a frame from context\.allocate"):
        out.allocate(SIZE)
    assert slots[0] is not None
    out.discard(slots[0])
    assert out.allocate(SIZE) is not None


def test_a_larger_picture_makes_a_new_generation_and_old_leases_stay_readable(
    context: zmq.Context[Any],
) -> None:
    sink = consumer("sink", "wait", depth=4)
    out, source = outlet(context, ENDPOINT, sink), inlet(context, ENDPOINT, window=4)
    held = next_of_published(out, source, 1).frame
    pixels = held.numpy()
    for seq in (2, 3):
        large = next_of_published(out, source, seq)
        large.frame.release()
    publish(out, 4, scale=2)
    large = next_of(source, out)
    assert large.frame.numpy().shape == (96, 128, 3)
    assert (large.frame.numpy() == 4).all()
    large.frame.release()
    assert (pixels == 1).all()
    assert len(out._pool.generations) == 2
    del pixels
    held.release()
    # The old slab goes with the last lease of it; smaller pictures fit into the new one.
    assert settled(out, lambda: len(out._pool.generations) == 1)
    assert seq_of(next_of_published(out, source, 5)) == 5
    assert len(out._pool.generations) == 1


def test_growing_again_and_again_leaves_no_slab_behind(context: zmq.Context[Any]) -> None:
    sink = consumer("sink", "wait", depth=4)
    out, source = outlet(context, ENDPOINT, sink), inlet(context, ENDPOINT, window=4)
    for number in range(1, 9):
        publish(out, number, scale=number)
        assert seq_of(next_of(source, out)) == number
    assert settled(out, lambda: len(out._pool.generations) == 1)


def test_the_end_comes_last_and_is_acknowledged(context: zmq.Context[Any]) -> None:
    slow, away = consumer("slow", "latest", depth=2), consumer("away")
    out, source = outlet(context, ENDPOINT, slow, away), inlet(context, ENDPOINT, "slow")
    said_hello(out, slow)
    held = next_of_published(out, source, 0)
    for seq in range(1, 5):
        publish(out, seq)
    out.finish()
    out.finish()
    assert publish(out, 5)  # after the end: dropped, and counted
    assert slow.board.dropped[Drop.ABORTED].value == away.board.dropped[Drop.ABORTED].value == 1
    held.frame.release()
    assert [seq_of(next_of(source, out)) for _ in range(2)] == [3, 4]
    assert next_of(source, out) is END
    assert source.ended
    assert not out.drained
    late = inlet(context, ENDPOINT, "away")
    assert seq_of(next_of(late, out)) == 4
    assert next_of(late, out) is END
    assert settled(out, lambda: out.drained)


def test_a_picture_held_past_the_end_keeps_the_outlet_from_draining(
    context: zmq.Context[Any],
) -> None:
    sink = consumer("sink", "latest", depth=2)
    out, source = outlet(context, ENDPOINT, sink), inlet(context, ENDPOINT, window=2)
    held = next_of_published(out, source, 0).frame.hold()
    gc.collect()
    out.finish()
    assert next_of(source, out) is END
    out.service()
    assert not out.drained
    held.release()
    assert settled(out, lambda: out.drained)


def test_a_frame_released_in_another_thread_is_credited_by_the_owner(
    context: zmq.Context[Any],
) -> None:
    sink = consumer("sink", "wait", depth=1)
    out = outlet(context, ENDPOINT, sink)
    rung = threading.Event()
    source = Inlet(
        context, consumer="sink", incarnation=1, window=1, board=board(), on_release=rung.set
    )
    opened.append(source)
    source.connect(ENDPOINT, 1)
    held = next_of_published(out, source, 0).frame
    thread = threading.Thread(target=held.release)
    thread.start()
    thread.join()
    assert rung.is_set()
    out.service()
    assert len(sink.outstanding) == 1
    assert source.receive() is None  # the owner comes by
    assert settled(out, lambda: not sink.outstanding)


def test_a_kept_picture_makes_room_for_two_more_and_no_more(context: zmq.Context[Any]) -> None:
    sink = consumer("sink", "latest")
    out, source = outlet(context, ENDPOINT, sink), inlet(context, ENDPOINT)
    said_hello(out, sink)
    kept = []
    for seq in range(MOST_KEPT + 1):
        with next_of_published(out, source, seq).frame as frame:
            kept.append(frame.hold())
    publish(out, 90)
    publish(out, 91)
    out.service()
    assert source.receive() is None  # three are kept: the third one counts as under way
    assert [frame.numpy()[0, 0, 0] for frame in kept] == [0, 1, 2]
    kept[2].release()
    assert seq_of(next_of(source, out)) == 91
    for frame in kept[:2]:
        frame.release()
    assert settled(out, lambda: not (sink.kept or sink.outstanding))
    assert not any(any(g.holders) for g in out._pool.generations)


def test_a_forgotten_frame_gives_its_slot_back(context: zmq.Context[Any]) -> None:
    sink = consumer("sink", "wait", depth=1)
    out, source = outlet(context, ENDPOINT, sink), inlet(context, ENDPOINT)
    arrival: Any = next_of_published(out, source, 0)
    on_host = arrival.frame.memory == "host"
    view = arrival.frame.numpy() if on_host else arrival.frame.cupy()
    del arrival
    out.service()
    assert sink.full  # the view still shows it
    assert ((view if on_host else view.get()) == 0).all()
    del view
    assert settled(out, lambda: not sink.full)


def test_marks_reach_wait_consumers_in_order_and_are_merged(context: zmq.Context[Any]) -> None:
    waits, latest = consumer("waits", "wait", depth=3), consumer("latest")
    out = outlet(context, ENDPOINT, waits, latest)
    publish(out, 0)
    for seq in range(1, 50):
        out.pass_by(Mark("camera", seq, seq, Fraction(1, 30)))
    publish(out, 50)
    assert len(waits.mailbox) == 3
    assert not waits.full  # a mark takes no picture's place
    publish(out, 51)
    assert waits.full
    source = inlet(context, ENDPOINT, "waits", window=3)
    assert seq_of(next_of(source, out)) == 0
    mark = next_of(source, out)
    assert (mark.seq, mark.pts, mark.time_base) == (49, 49, Fraction(1, 30))
    assert [seq_of(next_of(source, out)) for _ in range(2)] == [50, 51]
    assert settled(out, lambda: not waits.outstanding)
    assert len(latest.mailbox) == 1


def test_packets_come_whole_and_in_order_after_their_announcement(
    context: zmq.Context[Any],
) -> None:
    sink = consumer("sink", "wait", depth=8)
    out, source = outlet(context, ENDPOINT, sink), inlet(context, ENDPOINT, window=8)
    made = [make_packet(0, b""), *(make_packet(n) for n in range(6))]
    for one in made:
        out.send_packet(one)
    assert [next_of(source, out) for _ in made] == made
    assert settled(out, lambda: not sink.outstanding)


def make_packet(number: int, data: bytes = b"sound") -> Packet:
    return Packet(
        stream="camera",
        pts=number,
        time_base=Fraction(1, 48000),
        duration=1024,
        data=data,
        audio=AudioFormat(codec="aac", sample_rate=48000, layout="stereo", extradata=b"\x12\x10"),
    )


def test_a_consumer_that_comes_late_or_back_hears_the_announcement_first(
    context: zmq.Context[Any],
) -> None:
    sink = consumer("sink", "latest", depth=4)
    out = outlet(context, ENDPOINT, sink)
    out.send_packet(make_packet(0, b""))
    for number in range(20):  # more than the mailbox holds
        out.send_packet(make_packet(number))
    first = inlet(context, ENDPOINT, window=4)
    assert next_of(first, out).data == b""
    assert [next_of(first, out).pts for _ in range(4)] == [16, 17, 18, 19]
    out.consumer_down("sink", 1)
    second = inlet(context, ENDPOINT, incarnation=2, window=4)
    assert next_of(second, out).data == b""
    out.send_packet(make_packet(20))
    assert next_of(second, out).pts == 20


def test_an_address_in_use_is_said(context: zmq.Context[Any]) -> None:
    out = outlet(context, ENDPOINT, consumer("sink"))
    with pytest.raises(LinkError, match="no link can be offered at inproc://link"):
        outlet(context, ENDPOINT, consumer("sink"))
    out.close()


def test_a_producer_that_breaks_the_protocol_is_told_from_one_that_ended(
    context: zmq.Context[Any],
) -> None:
    bad = context.socket(zmq.ROUTER)
    bad.bind(ENDPOINT)
    source = inlet(context, ENDPOINT)
    identity, _ = bad.recv_multipart()
    big = header(0, width=4000, height=4000)
    slab = outlets.SlotPool()
    slot = slab.lease(SIZE, 2)
    assert slot is not None
    generation = slab.find(slot.generation)
    assert generation is not None
    ticket = wire.SlabTicket(1, 1, "memfd", generation.slab.ticket())
    for message, said in (
        (b"garbage", "not a msgpack message|an array of a kind"),
        (wire.pack(wire.Credit(1, 1)), "a producer does not send Credit"),
        (wire.pack(wire.FrameReady(1, 5, 0, 0, header(0))), "generation 5 of an unknown slab"),
        (wire.pack(ticket) + b"", ""),
        (wire.pack(wire.FrameReady(1, 1, 0, 0, big)), "picture of 48000000 bytes in a slot of"),
        (wire.pack(wire.FrameReady(1, 1, 9, 0, header(0))), "no slot 9 in a slab of 2"),
    ):
        bad.send_multipart((identity, message))
        if said:
            with pytest.raises((ProtocolError, SlabError), match=said):
                next_of(source)
        else:
            assert source.receive() is None
    slab.close()
    bad.close(0)


@pytest.mark.parametrize("memory", ["memfd"], indirect=True)
def test_views_share_memory_with_the_slot_in_one_process(context: zmq.Context[Any]) -> None:
    sink = consumer("sink")
    out, source = outlet(context, ENDPOINT, sink), inlet(context, ENDPOINT)
    said_hello(out, sink)
    slot = out.allocate(SIZE)
    assert slot is not None
    written = np.frombuffer(slot.pixels, np.uint8)
    out.publish(slot, header(0))
    arrival = next_of(source)
    assert np.shares_memory(arrival.frame.numpy(), written)
    arrival.frame.release()
