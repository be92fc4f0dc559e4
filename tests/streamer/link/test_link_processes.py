"""Links between real processes: pictures stay whole, nobody slows another, deaths cost no slot."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import msgpack
import pytest
import zmq
from links import (
    SIZE,
    consumer,
    inlet,
    next_of,
    outlet,
    publish,
    settled,
)

from streamer.errors import FrameError, SlabError
from streamer.link import wire
from streamer.link.inlet import END, Received
from streamer.link.outlet import Consumer, Outlet

pytestmark = pytest.mark.usefixtures("memory")


@pytest.fixture
def endpoint(tmp_path: Path) -> str:
    return f"ipc://{os.path.relpath(tmp_path / 'link')}"


class Reader:
    """A consumer in a process of its own; see `links.main`."""

    def __init__(self, endpoint: str, name: str, *, pace: float, incarnation: int = 1) -> None:
        script = Path(__file__).with_name("links.py")
        words = [str(script), endpoint, name, str(incarnation), str(pace)]
        self.process = subprocess.Popen([sys.executable, *words], stdout=subprocess.PIPE, text=True)

    def saw(self) -> dict[str, Any]:
        """What it has seen by the end of the stream."""
        out, _ = self.process.communicate(timeout=60)
        assert self.process.returncode == 0
        return json.loads(out.splitlines()[-1])  # type: ignore[no-any-return]

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


def serve(out: Outlet, until: threading.Event) -> None:
    while not until.is_set():
        out.service()
        time.sleep(0.0005)


def greeted(out: Outlet, *consumers: Consumer) -> None:
    assert settled(out, lambda: all(c.identity is not None for c in consumers))


def test_no_consumer_ever_sees_a_slot_that_is_written_again(
    context: zmq.Context[Any], endpoint: str, memory: str
) -> None:
    # Thousands of pictures through a handful of slots; every consumer looks at each picture twice,
    # some time apart, and would see it torn if its slot were written to while it holds it.
    paces = {"quick": 0.0, "middling": 0.0005, "slow": 0.04, "slower": 0.2}
    consumers = [consumer(name, "latest", depth=2) for name in paces]
    waits = consumer("careful", "wait", depth=4)
    out = outlet(context, endpoint, *consumers, waits)
    readers = {
        name: Reader(endpoint, name, pace=pace) for name, pace in {**paces, "careful": 0.0}.items()
    }
    greeted(out, *consumers, waits)
    over = threading.Event()
    server = threading.Thread(target=serve, args=(out, over))
    server.start()
    count = 1000 if memory == "cuda" else 4000  # a simulated one takes milliseconds for each
    for seq in range(count):
        publish(out, seq)
    out.finish()
    saw = {name: reader.saw() for name, reader in readers.items()}
    over.set()
    server.join()
    assert out.drained
    assert {name: entry["torn"] for name, entry in saw.items()} == dict.fromkeys(readers, 0)
    assert saw["careful"]["seqs"] == list(range(count))
    for one in consumers:
        seqs = saw[one.name]["seqs"]
        assert seqs == sorted(set(seqs))
        assert seqs[-1] == count - 1
        dropped = sum(cell.value for cell in one.board.dropped.values())
        assert one.board.offered.value == count == len(seqs) + dropped
    # The slow ones see less, which costs the others nothing.
    assert len(saw["slower"]["seqs"]) < len(saw["slow"]["seqs"]) < len(saw["quick"]["seqs"])
    assert not any(any(g.holders) for g in out._pool.generations)


def test_consumers_killed_with_leases_cost_no_slot(
    context: zmq.Context[Any], endpoint: str
) -> None:
    sink = consumer("sink", "wait", depth=4)
    out = outlet(context, endpoint, sink)
    sent = 0
    for life in range(1, 5):
        reader = Reader(endpoint, "sink", pace=10_000, incarnation=life)  # it holds what it gets
        assert settled(out, lambda life=life: sink.incarnation == life)  # type: ignore[misc]
        while not sink.full:
            publish(out, sent)
            sent += 1
        assert settled(out, lambda: sum(slot >= 0 for _, slot in sink.outstanding) == 4)
        reader.kill()
        out.consumer_down("sink", life)
        assert not sink.outstanding
        assert sum(sum(g.holders) for g in out._pool.generations) == len(sink.mailbox) == 0
    last = Reader(endpoint, "sink", pace=0, incarnation=5)
    greeted(out, sink)
    publish(out, sent)
    out.finish()
    assert settled(out, lambda: out.drained)
    assert last.saw() == {"seqs": [sent], "torn": 0}


PRODUCER = """
import sys
import time
import zmq
from links import consumer, outlet, publish, settled
sink = consumer("sink", "wait", 4)
out = outlet(zmq.Context(), sys.argv[1], sink)
settled(out, lambda: sink.identity is not None)
for seq in range(3):
    publish(out, seq)
print("sent", flush=True)
while True:
    out.service()
    time.sleep(0.001)
"""


def start_producer(endpoint: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PRODUCER, endpoint],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


def ended(producer: subprocess.Popen[str]) -> None:
    producer.kill()
    producer.communicate()


def test_pictures_of_a_producer_killed_after_its_memory_was_attached_are_read(
    context: zmq.Context[Any], endpoint: str, memory: str
) -> None:
    producer = start_producer(endpoint)
    source = inlet(context, endpoint, window=4)
    first = next_of(source)
    ended(producer)
    source.producer_gone()  # what it has sent still comes, then the end
    seqs, unfinished = [], []
    arrival: Any = first
    while isinstance(arrival, Received):
        with arrival.frame as frame:
            try:
                whole = (frame.numpy() == frame.seq).all()
            except FrameError:
                # Its GPU may not have come to it: that is said, not shown.
                assert memory == "cuda"
                unfinished.append(frame.seq)
            else:
                assert whole
                assert not unfinished
                seqs.append(frame.seq)
        arrival = next_of(source)
    assert arrival is END
    assert seqs == [0, 1, 2][: len(seqs)]  # the last ones may not have left the dying process


def test_a_producer_killed_before_its_memory_was_attached_is_no_failure(
    context: zmq.Context[Any], endpoint: str
) -> None:
    producer = start_producer(endpoint)
    source = inlet(context, endpoint, window=4)
    assert producer.stdout is not None
    assert producer.stdout.readline() == "sent\n"
    assert source.socket is not None
    assert source.socket.poll(60_000)
    producer.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, producer.pid, os.WEXITED | os.WNOWAIT)  # dead, and not yet buried
    assert source.receive() is None
    ended(producer)
    assert source._board.received.value == 0
    # Its successor is heard.
    sink = consumer("sink")
    out = outlet(context, endpoint + "2", sink, incarnation=2)
    source.connect(endpoint + "2", 2)
    publish(out, 5)
    arrival = next_of(source, out)
    assert arrival.frame.seq == 5
    arrival.frame.release()


def test_memory_of_a_living_producer_that_cannot_be_attached_is_a_failure(
    context: zmq.Context[Any],
) -> None:
    router = context.socket(zmq.ROUTER)
    router.bind("inproc://bad")
    source = inlet(context, "inproc://bad")
    identity, _ = router.recv_multipart()
    ticket = {"pid": 1, "fd": 0, "inode": 1, "slots": 1, "slot_bytes": 1, "stride": 4096}
    router.send_multipart((identity, wire.pack(wire.SlabTicket(1, 1, "memfd", ticket))))
    with pytest.raises(SlabError):
        next_of(source)
    router.close(0)


def hello(name: str, *, incarnation: int = 1, window: int = 1) -> bytes:
    return wire.pack(wire.Hello(name, incarnation, window, "host", os.getpid()))


def test_a_hostile_consumer_disturbs_nobody(context: zmq.Context[Any], endpoint: str) -> None:
    good, bad = consumer("good", "wait", depth=4), consumer("bad", "latest")
    out = outlet(context, endpoint, good, bad)
    reader = Reader(endpoint, "good", pace=0)
    greeted(out, good)
    enemy = context.socket(zmq.DEALER)
    enemy.setsockopt(zmq.LINGER, 0)
    enemy.connect(endpoint)
    stranger = context.socket(zmq.DEALER)
    stranger.setsockopt(zmq.LINGER, 0)
    stranger.connect(endpoint)
    enemy.send(hello("bad", window=1024))
    assert settled(out, lambda: bad.identity is not None)
    assert bad.window == 2  # it gets no more than is planned for it
    # Credits for slots that it does not own, while the good one holds some.
    for slot in range(-3, 20):
        for generation in range(3):
            enemy.send(wire.pack(wire.Credit(generation, slot)))
            enemy.send(wire.pack(wire.Credit(generation, slot, kept=True)))
            stranger.send(wire.pack(wire.Credit(generation, slot)))
    for message in (
        b"",
        b"\xc1garbage",
        b"\x92" * 1000,
        os.urandom(5000),
        hello("nobody"),
        hello("bad", window=1) + b"more",
        wire.pack(wire.End(1)),
        msgpack.packb([wire.Kind.HELLO, {"v": 99, "c": "good", "i": 9}]),
    ):
        enemy.send(message)
        stranger.send(message)
    enemy.send_multipart([b"one", b"two", b"three"])
    over = threading.Event()
    server = threading.Thread(target=serve, args=(out, over))
    server.start()
    for seq in range(500):
        publish(out, seq)
        if seq % 50 == 0:
            stranger.send(os.urandom(200))
            enemy.send(wire.pack(wire.Credit(1, seq % 7)))
    out.finish()
    assert reader.saw() == {"seqs": list(range(500)), "torn": 0}
    over.set()
    server.join()
    assert settled(out, lambda: good.drained and out.protocol_errors >= 23 * 3)
    # It is cut off by ZeroMQ itself if it sends a message of a size that no consumer needs.
    stranger.send(bytes(wire.MAX_CONTROL * 4))
    assert all(holders >= 0 for g in out._pool.generations for holders in g.holders)
    assert sum(sum(g.holders) for g in out._pool.generations) == len(bad.mailbox) - 1 + len(
        bad.outstanding
    )
    out.consumer_gone("bad")
    assert out.drained
    enemy.close()
    stranger.close()


def test_a_flood_of_messages_does_not_hold_up_the_producer(context: zmq.Context[Any]) -> None:
    sink = consumer("sink")
    out = outlet(context, "inproc://flooded", sink)
    flood = context.socket(zmq.DEALER)
    flood.setsockopt(zmq.SNDHWM, 0)
    flood.connect("inproc://flooded")
    for _ in range(5000):
        flood.send(b"x")
    publish(out, 0)  # returns, though it has not looked at all of them
    assert out.behind
    assert out.protocol_errors < 5000
    assert settled(out, lambda: out.protocol_errors == 5000 and not out.behind)
    flood.close(0)


def test_a_slot_can_be_used_again_and_again(context: zmq.Context[Any], endpoint: str) -> None:
    # Sizes alternate; the slab is made for the larger one and then stays.
    sink = consumer("sink", "wait", depth=2)
    out, source = outlet(context, endpoint, sink), inlet(context, endpoint, window=2)
    publish(out, 0, scale=2)
    for seq in range(1, 200):
        arrival = next_of(source, out)
        with arrival.frame as frame:
            assert frame.seq == seq - 1
            assert (frame.numpy() == frame.seq).all()
        publish(out, seq, scale=1 + seq % 2)
    assert len(out._pool.generations) == 1
    assert out._pool.generations[0].slab.slot_bytes == 4 * SIZE
