"""Faults that a GPU has to survive, on a real one and on a simulated one: what holds on both.

After each, frames come again, no lease is lost and the GPU's memory is what it was.
"""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import links
import pytest
import zmq
from cuda_ends import Peer, stand_still
from links import consumer, inlet, next_of, outlet, publish, settled

from streamer import gpu
from streamer.drops import Drop
from streamer.errors import SlabError
from streamer.gpu import probe, simulated
from streamer.gpu.device import GRANULE, Device
from streamer.link import pool
from streamer.link.inlet import EndOfStream, Received
from streamer.link.outlet import Consumer, Outlet

SCALE = 20
"""of the pictures: a slab of them is larger than what may be left"""


@dataclass
class Bench:
    """A GPU to be disturbed.

    Attributes:
        device: the GPU.
        folder: of a simulated one.
        pause: seconds that a process stands still.
        left: bytes of GPU memory that may be taken afterwards: of a real one the driver may have
            loaded kernels.
    """

    device: Device
    folder: Path | None
    pause: float
    left: int

    def __post_init__(self) -> None:
        self._free = self.device.memory()[0]

    def given_back(self, out: Outlet | None = None) -> bool:
        """Whether all memory comes back in the end."""
        until = time.monotonic() + links.DEADLINE
        while (back := self._free - self.device.memory()[0] <= self.left) is False:
            if time.monotonic() > until:
                break
            if out is not None:
                out.service()
            time.sleep(0.02)
        return back

    def taken(self) -> int:
        """Bytes of GPU memory that are taken now, by all processes."""
        return self._free - self.device.memory()[0]

    @contextmanager
    def full(self) -> Iterator[None]:
        """Inside, hardly any memory is free."""
        held = []
        size = self.device.memory()[0]
        while size >= GRANULE:
            try:
                held.append(self.device.malloc(size))
            except SlabError:
                size //= 2
        try:
            yield
        finally:
            for pointer in held:
                self.device.free(pointer)


@pytest.fixture(params=["simulated", pytest.param("real", marks=pytest.mark.gpu)])
def bench(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(links, "memory", "cuda")
    monkeypatch.setenv("LINKS_MEMORY", "cuda")
    monkeypatch.setattr(pool, "QUARANTINE", 0.2)
    monkeypatch.setattr(probe, "_answers", {})
    if request.param == "real":
        return Bench(request.getfixturevalue("real_gpu"), None, pause=8.0, left=16 << 20)
    folder = request.getfixturevalue("simulated_gpu")
    simulated.change(folder, memory=256 << 20)
    return Bench(gpu.device(0), folder, pause=2.0, left=0)


@pytest.fixture
def endpoint(tmp_path: Path) -> str:
    return f"ipc://{tmp_path}/link"


def take(source: Any, count: int) -> None:
    """Takes so many pictures and looks at each on the GPU."""
    for _ in range(count):
        arrival = next_of(source)
        assert isinstance(arrival, Received)
        with arrival.frame as frame:
            assert frame.memory == "cuda"
            assert (frame.cupy().get() == frame.seq % 256).all()


def feed(out: Outlet, sink: Consumer, seqs: range, *, scale: int = SCALE) -> None:
    """Publishes pictures to a consumer that waits for each."""
    for seq in seqs:
        assert settled(out, lambda: not sink.full)
        publish(out, seq, scale=scale)


def publish_when_possible(out: Outlet, seq: int) -> None:
    """Publishes a picture as soon as there is memory: it is not asked for again at once."""
    until = time.monotonic() + links.DEADLINE
    while True:
        try:
            publish(out, seq, scale=SCALE)
        except SlabError:
            assert time.monotonic() < until, "there is no memory"
            time.sleep(0.05)
        else:
            return


def ended(out: Outlet, peer: Peer) -> list[int]:
    """Ends the stream; the numbers of what the consumer saw, none of it torn."""
    out.finish()
    found = peer.saw(out)
    assert found["torn"] == found["refused"] == 0
    out.consumer_down("sink", 1)
    assert settled(out, lambda: out.drained)
    assert settled(out, lambda: not out._pool.open_elsewhere)
    seqs: list[int] = found["seqs"]
    return seqs


def test_producers_are_killed(context: zmq.Context[Any], endpoint: str, bench: Bench) -> None:
    source = inlet(context, endpoint)
    for life in (1, 2, 3):
        producer = Peer("produce", endpoint + str(life), life, 100_000, SCALE)
        source.connect(endpoint + str(life), life)
        take(source, 5)
        held = next_of(source)
        producer.kill()
        held.frame.release()
    last = Peer("produce", endpoint + "4", 4, 3, SCALE)
    source.connect(endpoint + "4", 4)
    while not isinstance(arrival := next_of(source), EndOfStream):
        arrival.frame.release()
    source.close()
    last.process.communicate()
    assert last.process.returncode == 0
    assert bench.given_back()


def test_consumers_are_killed_with_slots(
    context: zmq.Context[Any], endpoint: str, bench: Bench
) -> None:
    sink = consumer("sink", "wait", depth=4)
    out = outlet(context, endpoint, sink)
    sent = 0
    for life in (1, 2, 3):
        peer = Peer("consume", endpoint, "sink", life, "hold")
        assert settled(out, lambda life=life: sink.incarnation == life)  # type: ignore[misc]
        while not sink.full:
            publish(out, sent, scale=SCALE)
            sent += 1
        assert settled(out, lambda: bool(sink.kept) or len(sink.outstanding) >= 2)
        peer.kill()
        out.consumer_down("sink", life)
        assert not sink.outstanding + sink.kept
        assert sum(sum(g.holders) for g in out._pool.generations) == len(sink.mailbox)
    assert bench.taken() > bench.left
    last = Peer("consume", endpoint, "sink", 4, "device")
    out.finish()
    assert last.saw(out)["torn"] == 0
    out.consumer_down("sink", 4)
    generations = out._pool.generations
    assert settled(out, lambda: all(g.free_at <= time.monotonic() for g in generations))
    out.close()
    assert bench.given_back()


def test_both_ends_are_killed(context: zmq.Context[Any], endpoint: str, bench: Bench) -> None:
    for life in (1, 2):
        producer = Peer("produce", f"{endpoint}{life}", 1, 100_000, SCALE)
        taker = Peer("consume", f"{endpoint}{life}", "sink", life, "hold")
        taker.says("ready")
        taker.says("holds")
        assert bench.taken() > bench.left
        producer.kill()
        taker.kill()
        assert bench.given_back()
    producer = Peer("produce", endpoint, 1, 100_000, SCALE)
    source = inlet(context, endpoint)
    take(source, 3)
    producer.kill()
    source.close()
    assert bench.given_back()


def test_a_consumer_stands_still(context: zmq.Context[Any], endpoint: str, bench: Bench) -> None:
    sink, other = consumer("sink"), consumer("other")
    out = outlet(context, endpoint, sink, other)
    peers = [Peer("consume", endpoint, name, 1, "device") for name in ("sink", "other")]
    assert settled(out, lambda: sink.identity is not None and other.identity is not None)
    publish(out, 0)
    assert settled(out, lambda: not (sink.outstanding or sink.attaching))
    stand_still(peers[0].process, bench.folder)
    seq = 1
    until = time.monotonic() + bench.pause
    while time.monotonic() < until:
        assert publish(out, seq), "a slot was lost"
        seq += 1
        out.service()
        time.sleep(0.01)
    assert other.board.dropped[Drop.NO_SLOT].value == 0
    assert 1 <= len(sink.outstanding) <= 2  # what it was sent stays its own
    peers[0].process.send_signal(signal.SIGCONT)
    assert settled(out, lambda: not sink.outstanding)
    for _ in range(10):
        publish(out, seq)
        seq += 1
        out.service()
        time.sleep(0.01)
    out.finish()
    stood, ran = (peer.saw(out) for peer in peers)
    assert stood["torn"] == ran["torn"] == 0
    assert stood["seqs"][-1] == ran["seqs"][-1] == seq - 1
    for one, seen in ((sink, stood), (other, ran)):
        dropped = sum(cell.value for cell in one.board.dropped.values())
        assert one.board.offered.value == seq == len(seen["seqs"]) + dropped
    for name in ("sink", "other"):
        out.consumer_down(name, 1)
    out.close()
    assert bench.given_back()


def test_memory_is_short_at_the_start(
    context: zmq.Context[Any], endpoint: str, bench: Bench
) -> None:
    sink = consumer("sink", "wait", depth=2)
    out = outlet(context, endpoint, sink)
    with bench.full(), pytest.raises(SlabError, match=r"gpu 0 has no \d+ MiB for \d+ frames"):
        publish(out, 0, scale=SCALE)
    peer = Peer("consume", endpoint, "sink", 1, "device")
    assert settled(out, lambda: sink.identity is not None)
    publish_when_possible(out, 0)
    feed(out, sink, range(1, 10))
    assert ended(out, peer) == list(range(10))
    out.close()
    assert bench.given_back()


def test_memory_is_short_in_mid_run(context: zmq.Context[Any], endpoint: str, bench: Bench) -> None:
    sink = consumer("sink", "wait", depth=2)
    out = outlet(context, endpoint, sink)
    peer = Peer("consume", endpoint, "sink", 1, "device")
    assert settled(out, lambda: sink.identity is not None)
    feed(out, sink, range(5), scale=2)
    assert settled(out, lambda: not sink.full)
    with bench.full():
        with pytest.raises(SlabError, match="gpu 0 has no"):
            publish(out, 5, scale=SCALE)
        feed(out, sink, range(5, 10), scale=2)  # pictures that fit go on
    publish_when_possible(out, 10)
    feed(out, sink, range(11, 15))
    assert ended(out, peer) == list(range(15))
    out.close()
    assert bench.given_back()


def test_the_resolution_changes(context: zmq.Context[Any], endpoint: str, bench: Bench) -> None:
    sink = consumer("sink", "wait", depth=2)
    out = outlet(context, endpoint, sink)
    peer = Peer("consume", endpoint, "sink", 1, "device")
    assert settled(out, lambda: sink.identity is not None)
    for step, scale in enumerate((10, 20, 30)):
        feed(out, sink, range(step * 3, step * 3 + 3), scale=scale)
        # The consumer closes the former memory when it has given back the last slot of it.
        assert settled(out, lambda: len(out._pool.generations) == 1 and not out._pool._parked)
    assert ended(out, peer) == list(range(9))
    out.close()
    assert bench.given_back()


def test_the_driver_has_no_ipc(
    context: zmq.Context[Any],
    endpoint: str,
    bench: Bench,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    why = "the driver has no events between processes"
    monkeypatch.setattr(type(bench.device), "ipc_refusal", lambda self: why)
    sink = consumer("sink", "wait", depth=4)
    out = outlet(context, endpoint, sink)
    with caplog.at_level(logging.WARNING, "streamer.link"):
        out.use_device(bench.device, probe.ask(bench.device))
        peer = Peer("consume", endpoint, "sink", 1, "device")
        assert settled(out, lambda: sink.identity is not None)
        feed(out, sink, range(10))
        assert ended(out, peer) == list(range(10))
    said = f"frames for sink leave gpu 0 through host memory: {why}"
    assert [record.getMessage() for record in caplog.records] == [said]
    out.close()
    assert bench.given_back()
