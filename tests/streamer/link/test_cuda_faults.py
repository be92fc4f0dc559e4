"""Processes die, stop and run short of a GPU's memory: frames come again, and nothing is lost."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import links
import pytest
import zmq
from cuda_ends import Peer, stand_still
from links import consumer, inlet, next_of, outlet, publish, settled

from streamer import gpu
from streamer.drops import Drop
from streamer.errors import FrameError
from streamer.gpu import pixels, simulated
from streamer.gpu.device import GRANULE
from streamer.link import pool
from streamer.link.inlet import EndOfStream, Received
from streamer.link.outlet import Consumer, Outlet


@pytest.fixture(autouse=True)
def on_gpu(simulated_gpu: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(links, "memory", "cuda")
    monkeypatch.setattr(pool, "QUARANTINE", 0.2)
    return simulated_gpu


@pytest.fixture
def endpoint(tmp_path: Path) -> str:
    return f"ipc://{tmp_path}/link"


def opened_handles(folder: Path) -> int:
    return len(json.loads((folder / "ledger.json").read_text())["opened"])


def granules(folder: Path) -> int:
    """The GPU's memory that is taken, in units in which it is exported."""
    return simulated.used(folder) // GRANULE


def freed(folder: Path, out: Outlet | None = None) -> bool:
    """Whether the GPU's memory comes back in the end."""
    until = time.monotonic() + links.DEADLINE
    while simulated.used(folder) and time.monotonic() < until:
        if out is not None:
            out.service()
        time.sleep(0.01)
    return simulated.used(folder) == 0


def take(source: Any, count: int) -> list[int]:
    """Takes so many pictures and looks at each on the GPU."""
    seqs = []
    while len(seqs) < count:
        arrival = next_of(source)
        assert isinstance(arrival, Received)
        with arrival.frame as frame:
            assert (frame.cupy().get() == frame.seq % 256).all()
            seqs.append(frame.seq)
    return seqs


def test_a_killed_producer_is_followed_by_another(
    context: zmq.Context[Any], endpoint: str, on_gpu: Path
) -> None:
    source = inlet(context, endpoint)
    for life in (1, 2, 3):
        producer = Peer("produce", endpoint + str(life), life, 100_000)
        source.connect(endpoint + str(life), life)
        seqs = take(source, 5)
        assert seqs == sorted(seqs)
        assert opened_handles(on_gpu) == 1
        assert granules(on_gpu) == 1
        held = next_of(source)
        producer.kill()
        held.frame.release()
    last = Peer("produce", endpoint + "4", 4, 3)
    source.connect(endpoint + "4", 4)
    while not isinstance(arrival := next_of(source), EndOfStream):
        arrival.frame.release()
    source.close()
    last.process.communicate()
    assert last.process.returncode == 0
    assert opened_handles(on_gpu) == 0
    assert freed(on_gpu)


def test_work_that_a_dead_producer_had_announced_is_not_waited_for(
    context: zmq.Context[Any], endpoint: str, on_gpu: Path
) -> None:
    simulated.change(on_gpu, delay=1000.0)
    producer = Peer("produce", endpoint, 1, 5)
    source = inlet(context, endpoint)
    arrival = next_of(source)
    producer.kill()
    with arrival.frame as frame, pytest.raises(FrameError, match="its producer died before"):
        frame.cupy()
    source.close()
    assert opened_handles(on_gpu) == 0
    assert freed(on_gpu)


def test_work_that_a_living_producer_never_ends_is_given_up_after_a_while(
    context: zmq.Context[Any], endpoint: str, on_gpu: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pixels, "DEADLINE", 0.3)
    simulated.change(on_gpu, delay=1000.0)
    producer = Peer("produce", endpoint, 1, 5)
    source = inlet(context, endpoint)
    arrival = next_of(source)
    with arrival.frame as frame, pytest.raises(FrameError, match=r"not finished .* within 0\.3 s"):
        frame.cupy()
    producer.kill()


def test_a_consumer_killed_with_slots_and_work_under_way_costs_nothing(
    context: zmq.Context[Any], endpoint: str, on_gpu: Path
) -> None:
    sink = consumer("sink", "wait", depth=4)
    out = outlet(context, endpoint, sink)
    sent = 0
    for life in (1, 2, 3):
        peer = Peer("consume", endpoint, "sink", life, "hold")
        assert settled(out, lambda life=life: sink.incarnation == life)  # type: ignore[misc]
        while not sink.full:
            publish(out, sent)
            sent += 1
        assert settled(out, lambda: len(sink.kept) == 2 and len(sink.outstanding) >= 2)
        peer.kill()
        out.consumer_down("sink", life)
        assert not sink.outstanding + sink.kept
        assert sum(sum(g.holders) for g in out._pool.generations) == len(sink.mailbox)
    last = Peer("consume", endpoint, "sink", 4, "device")
    out.finish()
    assert last.saw(out)["torn"] == 0
    assert granules(on_gpu) == 1
    assert settled(out, lambda: out.drained)
    # It waits for its last word to be sent, but not for ever; its death is told in any case.
    out.consumer_down("sink", 4)
    generations = out._pool.generations
    assert settled(out, lambda: all(g.free_at <= time.monotonic() for g in generations))
    out.close()
    assert freed(on_gpu)


def test_both_ends_killed_come_back(context: zmq.Context[Any], endpoint: str, on_gpu: Path) -> None:
    for life in (1, 2):
        producer = Peer("produce", f"{endpoint}{life}", 1, 100_000)
        taker = Peer("consume", f"{endpoint}{life}", "sink", life, "hold")
        taker.says("ready")
        taker.says("holds")
        producer.kill()
        taker.kill()
        assert freed(on_gpu)
        assert opened_handles(on_gpu) == 0
    producer = Peer("produce", endpoint, 1, 50)
    source = inlet(context, endpoint)
    assert take(source, 3)
    producer.kill()


def _had(consumer: Consumer) -> int:
    """How many pictures it was given and has done with."""
    dropped = sum(cell.value for cell in consumer.board.dropped.values())
    return consumer.board.offered.value - dropped - len(consumer.outstanding)


def test_a_consumer_that_stands_still_loses_no_lease_and_holds_up_nobody(
    context: zmq.Context[Any], endpoint: str, on_gpu: Path
) -> None:
    sink, other = consumer("sink", "latest", depth=1), consumer("other", "latest", depth=1)
    out = outlet(context, endpoint, sink, other)
    peers = [Peer("consume", endpoint, name, 1, "device") for name in ("sink", "other")]
    assert settled(out, lambda: sink.identity is not None and other.identity is not None)
    publish(out, 0)
    assert settled(out, lambda: not (sink.outstanding or sink.attaching))
    stand_still(peers[0].process, on_gpu)
    seq = 1
    until = time.monotonic() + pixels.DEADLINE + 0.5  # longer than any deadline of the link
    # And as many pictures as the other one needs to have had many more.
    while time.monotonic() < until or _had(other) < 200:
        assert publish(out, seq), "a slot was lost"
        seq += 1
        out.service()
        time.sleep(0.005)
    under_way = len(sink.outstanding)
    assert 1 <= under_way <= 2  # what it was sent stays its own
    assert sink.board.dropped[Drop.REPLACED].value >= seq - 1 - under_way - 1
    assert other.board.dropped[Drop.NO_SLOT].value == 0
    peers[0].process.send_signal(signal.SIGCONT)
    assert settled(out, lambda: not sink.outstanding)
    for _ in range(20):
        publish(out, seq)
        seq += 1
        out.service()
        time.sleep(0.005)
    out.finish()
    stood, ran = (peer.saw(out) for peer in peers)
    assert stood["torn"] == ran["torn"] == 0
    assert stood["seqs"][-1] == ran["seqs"][-1] == seq - 1
    assert len(ran["seqs"]) > 5 * len(stood["seqs"])
    for one, seen in ((sink, stood), (other, ran)):
        dropped = sum(cell.value for cell in one.board.dropped.values())
        assert one.board.offered.value == seq == len(seen["seqs"]) + dropped


def test_another_size_takes_new_memory_and_gives_the_old_back(
    context: zmq.Context[Any], endpoint: str, on_gpu: Path
) -> None:
    sink = consumer("sink", "wait", depth=2)
    out = outlet(context, endpoint, sink)
    peer = Peer("consume", endpoint, "sink", 1, "device")
    assert settled(out, lambda: sink.identity is not None)
    sizes = []
    for scale in (1, 9, 14):
        for seq in range(3):
            assert settled(out, lambda: not sink.full)
            publish(out, seq, scale=scale)
        # The consumer closes the former memory when it has given back the last slot of it.
        assert settled(out, lambda: len(out._pool.generations) == 1 and not out._pool._parked)
        sizes.append(simulated.used(on_gpu))
    assert sizes == sorted(set(sizes))
    assert opened_handles(on_gpu) == 1
    out.finish()
    assert peer.saw(out)["torn"] == 0
    assert settled(out, lambda: out.drained)
    out.close()
    assert freed(on_gpu)


def test_memory_that_a_dead_consumer_had_open_is_freed_after_a_quarantine(
    context: zmq.Context[Any], endpoint: str, on_gpu: Path
) -> None:
    sink = consumer("sink", "wait", depth=4)
    out = outlet(context, endpoint, sink)
    peer = Peer("consume", endpoint, "sink", 1, "hold")
    assert settled(out, lambda: sink.identity is not None)
    publish(out, 0)
    peer.says("ready")
    assert settled(out, lambda: bool(sink.kept))
    publish(out, 1, scale=9)
    two = granules(on_gpu)
    assert len(out._pool.generations) == 2  # it holds a slot of the first
    peer.kill()
    before = time.monotonic()
    out.consumer_down("sink", 1)
    assert len(out._pool._parked) == 1
    assert granules(on_gpu) == two
    assert settled(out, lambda: not out._pool._parked)
    assert time.monotonic() - before >= pool.QUARANTINE
    assert granules(on_gpu) == two - 1
    assert gpu.device(0).calls["free"] == 1


def test_memory_that_a_living_consumer_has_open_is_not_freed_by_closing(
    context: zmq.Context[Any], endpoint: str, on_gpu: Path
) -> None:
    sink = consumer("sink", "wait", depth=4)
    out = outlet(context, endpoint, sink)
    peer = Peer("consume", endpoint, "sink", 1, "hold")
    assert settled(out, lambda: sink.identity is not None)
    publish(out, 0)
    assert settled(out, lambda: bool(sink.kept))
    out.close()
    assert gpu.device(0).calls["free"] == 0
    assert granules(on_gpu) == 1
    peer.kill()
