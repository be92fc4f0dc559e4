"""Frames on a GPU: what a link asks of the device, who gets copies, and what is refused."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import links
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
    opened,
    outlet,
    publish,
    settled,
)

from streamer import gpu
from streamer.drops import Drop
from streamer.errors import DeviceError, LeaseError, SlabError
from streamer.gpu import meter, probe, simulated
from streamer.gpu.device import Copy
from streamer.gpu.pixels import Releases
from streamer.link import courier, pool, wire
from streamer.link import slab as slabs
from streamer.link.courier import Courier
from streamer.link.cuda import CudaSlab
from streamer.link.inlet import Inlet, Received
from streamer.link.outlet import Outlet

PEERS = Path(__file__).with_name("cuda_peers.py")


@pytest.fixture(autouse=True)
def on_gpu(simulated_gpu: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(links, "memory", "cuda")
    return simulated_gpu


@pytest.fixture
def endpoint(tmp_path: Path) -> str:
    return f"ipc://{tmp_path}/link"


def consume(
    endpoint: str, name: str = "sink", *, mode: str = "device", incarnation: int = 1
) -> Any:
    words = [sys.executable, str(PEERS), "consume", endpoint, name, str(incarnation), mode]
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True)


def saw(process: Any, out: Outlet) -> dict[str, Any]:
    """What a consumer has seen by the end of the stream."""
    assert settled(out, lambda: process.poll() is not None)
    text, _ = process.communicate()
    assert process.returncode == 0
    return json.loads(text.splitlines()[-1])  # type: ignore[no-any-return]


def send(out: Outlet, count: int) -> None:
    """Publishes so many pictures and ends the stream; `wait` links make it wait."""
    over = threading.Event()

    def serve() -> None:
        while not over.is_set():
            out.service()
            time.sleep(0.0005)

    server = threading.Thread(target=serve)
    server.start()
    for seq in range(count):
        publish(out, seq)
    out.finish()
    over.set()
    server.join()


def test_a_thousand_frames_cost_events_and_nothing_else(
    context: zmq.Context[Any], endpoint: str
) -> None:
    # Two processes. Per picture: one write, one event recorded behind it, one wait for it on the
    # consumer's stream, one event behind its work. No copy, nothing made, opened or freed.
    sink = consumer("sink", "wait", depth=4)
    out = outlet(context, endpoint, sink)
    process = consume(endpoint)
    assert settled(out, lambda: sink.identity is not None)
    device = gpu.device(0)
    send(out, 1000)
    found = saw(process, out)
    assert found["seqs"] == list(range(1000))
    assert found["torn"] == found["copies"] == 0
    assert found["memories"] == ["cuda"]
    ours = Counter(device.calls)
    assert ours.pop("memsetAsync") == 1000  # the node's own work
    assert ours.pop("eventRecord") == 1000
    assert ours.pop("ipcGetMemHandle") == ours.pop("malloc") == ours.pop("streamCreate") == 1
    made = out._slots + 1
    assert ours.pop("eventCreate") == made
    assert ours.pop("ipcGetEventHandle") == made - 1
    assert not ours, "calls that no frame needs"
    theirs = Counter(found["calls"])
    asked = theirs.pop("eventQuery")
    assert asked >= 1000  # by the host, before each wait
    assert theirs.pop("launchKernel") == theirs.pop("array") - 1 == 1000  # the node's own work
    assert theirs.pop("streamWaitEvent") == 1000
    assert theirs.pop("eventRecord") == theirs.pop("eventSynchronize") == 1000
    assert theirs.pop("eventCreate") <= 8
    assert theirs.pop("ipcOpenMemHandle") == theirs.pop("ipcCloseMemHandle") == 1
    assert theirs.pop("ipcOpenEventHandle") == theirs.pop("eventDestroy") == made - 1
    assert theirs.pop("malloc") == theirs.pop("streamCreate") == 1
    assert not theirs, "calls that no frame needs"
    assert not device.copied
    assert not found["copied"]


def test_a_consumer_without_the_gpu_gets_copies_and_costs_the_other_nothing(
    context: zmq.Context[Any], endpoint: str
) -> None:
    near, far, farther = (consumer(name, "wait", depth=4) for name in ("near", "far", "farther"))
    copies: list[int] = []
    out = outlet(context, endpoint, near, far, farther)
    out._on_copy = lambda: copies.append(1)
    processes = [
        consume(endpoint, "near"),
        consume(endpoint, "far", mode="host"),
        consume(endpoint, "farther", mode="host"),
    ]
    assert settled(out, lambda: all(c.identity for c in (near, far, farther)))
    send(out, 100)
    found = [saw(process, out) for process in processes]
    assert [one["seqs"] for one in found] == [list(range(100))] * 3
    assert [one["torn"] for one in found] == [0, 0, 0]
    assert [one["memories"] for one in found] == [["cuda"], ["host"], ["host"]]
    assert len(copies) == 100  # one for both
    assert gpu.device(0).copied == {Copy.TO_HOST: 100 * SIZE}


def test_a_picture_whose_copy_is_under_way_is_not_replaced(
    context: zmq.Context[Any], endpoint: str, on_gpu: Path
) -> None:
    # The consumer is idle and has room: nothing but the copy keeps the picture from it.
    sink = consumer("sink")
    out = outlet(context, endpoint, sink)
    process = consume(endpoint, mode="host")
    assert settled(out, lambda: sink.ready)
    simulated.change(on_gpu, delay=0.2)
    send(out, 2)
    assert saw(process, out)["seqs"] == [0, 1]
    assert sink.board.dropped[Drop.REPLACED].value == 0


def test_a_copy_that_fails_is_marked_for_who_waits_for_it(
    context: zmq.Context[Any], endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A join that waits for this very picture would wait for ever.
    def short(*_: Any) -> None:
        raise SlabError("no memory for pictures on the host")

    monkeypatch.setattr(courier, "PinnedSlab", short)
    sink = consumer("sink", "wait", depth=4)
    out = outlet(context, endpoint, sink)
    monkeypatch.setattr(links, "memory", "memfd")
    source = inlet(context, endpoint, window=4)
    assert settled(out, lambda: sink.ready)
    publish(out, 0)
    mark = next_of(source, out)
    assert isinstance(mark, wire.Watermark)
    assert (mark.stream, mark.seq) == (header(0).stream, 0)
    assert sink.board.dropped[Drop.NO_SLOT].value == 1


def test_a_driver_without_ipc_is_said_once_and_frames_go_through_the_host(
    context: zmq.Context[Any], endpoint: str, on_gpu: Path, caplog: pytest.LogCaptureFixture
) -> None:
    simulated.change(on_gpu, ipc=False)
    sink = consumer("sink", "wait", depth=4)
    out = outlet(context, endpoint, sink)
    device = gpu.device(0)
    with caplog.at_level(logging.WARNING, "streamer.link"):
        out.use_device(device, probe.ask(device))
        process = consume(endpoint)
        assert settled(out, lambda: sink.identity is not None)
        send(out, 20)
        found = saw(process, out)
    assert (found["seqs"], found["torn"], found["memories"]) == (list(range(20)), 0, ["host"])
    assert [record.getMessage() for record in caplog.records] == [
        "frames for sink leave gpu 0 through host memory: "
        "the driver has no events between processes"
    ]


def test_a_consumer_that_cannot_open_the_memory_says_so_and_gets_copies(
    context: zmq.Context[Any], endpoint: str, on_gpu: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # As in a PID namespace that nobody noticed: all is well until memory is opened.
    simulated.change(on_gpu, opening="cudaErrorDeviceUninitialized: invalid device context")
    sink = consumer("sink", "wait", depth=4)
    out = outlet(context, endpoint, sink)
    process = consume(endpoint)
    with caplog.at_level(logging.WARNING, "streamer.link"):
        assert settled(out, lambda: sink.identity is not None)
        send(out, 20)
        found = saw(process, out)
    assert (found["seqs"], found["torn"], found["memories"]) == (list(range(20)), 0, ["host"])
    (said,) = (record.getMessage() for record in caplog.records)
    assert said.endswith("invalid device context")
    assert sink.memory == "memfd"


def test_consumers_of_other_hosts_and_gpus_get_copies(context: zmq.Context[Any]) -> None:
    sink = consumer("sink")
    out = outlet(context, "inproc://others", sink)
    here, uuid = slabs.host_id(), gpu.device(0).uuid
    for host, pid, reach, memory in (
        (here, 1, (f"cuda:{uuid}",), "cuda"),
        (here, 1, (), "memfd"),
        (here, 1, ("cuda:GPU-another",), "memfd"),
        ("boot/pid:[1]/0", 1, (f"cuda:{uuid}",), "memfd"),
    ):
        out._delivery.meet(sink, wire.Hello("sink", 1, 1, host, pid, reach))
        assert sink.memory == memory


def test_the_probe_opens_memory_in_a_second_process(
    on_gpu: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = gpu.device(0)
    monkeypatch.setattr(probe, "_answers", {})
    assert probe.ask(device) == ""
    assert simulated.used(on_gpu) == 0
    for change, said in (
        ({"opening": "invalid device context"}, "invalid device context"),
        ({"ipc": False}, "the driver has no events between processes"),
    ):
        monkeypatch.setattr(probe, "_answers", {})
        simulated.change(on_gpu, **change)
        assert said in probe.Probe(device).answer()
        assert simulated.used(on_gpu) == 0


def test_memory_that_is_short_says_nothing_of_sharing(
    on_gpu: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = gpu.device(0)
    monkeypatch.setattr(probe, "_answers", {})
    simulated.change(on_gpu, opening="cudaErrorMemoryAllocation: out of memory")
    assert probe.Probe(device).answer() == ""
    # It is not remembered: what is asked later is tried again.
    simulated.change(on_gpu, opening="invalid device context")
    assert "invalid device context" in probe.ask(device)
    simulated.change(on_gpu, opening="")
    assert "invalid device context" in probe.ask(device)
    assert simulated.used(on_gpu) == 0


def test_both_views_are_on_the_nodes_stream_and_numpy_is_a_counted_copy(
    context: zmq.Context[Any],
) -> None:
    sink = consumer("sink")
    out = outlet(context, "inproc://views", sink)
    copies: list[int] = []
    source = Inlet(
        context, consumer="sink", incarnation=1, window=1, board=board(),
        device=gpu.device(0), on_copy=lambda: copies.append(1),
    )  # fmt: skip
    source.connect("inproc://views", 1)
    opened.append(source)
    assert settled(out, lambda: sink.identity is not None)
    publish(out, 9)
    arrival = next_of(source, out)
    assert isinstance(arrival, Received)
    frame = arrival.frame
    assert frame.memory == "cuda"
    one, other = frame.cupy(), frame.torch()
    assert one.stream == other.stream == gpu.device(0).stream()
    assert one.pointer == other.pointer
    assert one.shape == other.shape == (48, 64, 3)
    assert not copies
    host = frame.numpy()
    assert (host == 9).all()
    assert copies == [1]
    with pytest.raises(ValueError, match="read-only"):
        host[0] = 1
    with pytest.raises(LeaseError, match="still in use"):
        frame.release()
    del one, other
    frame.release()
    assert (host == 9).all()  # it is nobody else's
    with pytest.raises(LeaseError):
        frame.cupy()


def test_a_frame_on_the_host_is_brought_to_the_gpu_once_and_counted(
    context: zmq.Context[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    simulated.change(gpu.device(0)._folder, delay=0.05)  # type: ignore[attr-defined]
    sink = consumer("sink", "wait", depth=1)
    monkeypatch.setattr(links, "memory", "memfd")
    out = outlet(context, "inproc://up", sink)
    monkeypatch.setattr(links, "memory", "cuda")
    source = inlet(context, "inproc://up")
    copies: list[int] = []
    source._on_copy = lambda: copies.append(1)
    publish(out, 5)
    arrival = next_of(source, out)
    with arrival.frame as frame:
        array = frame.cupy()
        assert frame.cupy() is array
        assert copies == [1]
        del frame
    assert sink.outstanding or sink.kept  # the copy may still be reading the slot
    assert (array.get() == 5).all()
    assert settled(out, lambda: not (sink.outstanding or sink.kept))


def test_frames_are_written_from_arrays_of_the_host_and_of_the_gpu(
    context: zmq.Context[Any],
) -> None:
    from streamer.frame import Frame
    from streamer.lease import Lease

    out = outlet(context, "inproc://write", consumer("sink"))
    slot = out.allocate(SIZE)
    assert slot is not None
    frame = Frame(header(0), Lease(slot.pixels))
    picture = np.arange(SIZE, dtype=np.uint8).reshape(48, 64, 3)
    frame.write(picture)
    assert (frame.numpy() == picture).all()
    array = gpu.device(0).empty((48, 64, 3))
    array.fill(77)
    frame.write(array)
    assert (frame.numpy() == 77).all()
    for wrong in (picture[:-1], gpu.device(0).empty((1,))):
        with pytest.raises(ValueError, match="shape"):
            frame.write(wrong)
    frame.release()
    out.discard(slot)
    with pytest.raises(DeviceError, match="its node has no GPU"):
        Frame.of(picture).cupy()


def test_a_wrong_ticket_is_refused() -> None:
    device = gpu.device(0)
    slab = CudaSlab(device, 3, 5000)
    slab.export()
    ticket = {**slab.ticket(), "pid": 1}
    calls = Counter(device.calls)
    for changes in (
        {"slots": 4}, {"slots": 0}, {"slots": 2**40}, {"slot_bytes": 9000}, {"stride": 2**50},
        {"memory": b"x"}, {"events": b""}, {"events": 3}, {"uuid": "GPU-another"},
        {"identity": "x"}, {"pid": -1},
    ):  # fmt: skip
        with pytest.raises(SlabError):
            slabs.attach("cuda", {**ticket, **changes}, device)
    for key in ticket:
        with pytest.raises(SlabError, match=f"has no '{key}'"):
            slabs.attach("cuda", {k: v for k, v in ticket.items() if k != key}, device)
    with pytest.raises(SlabError, match="which this node does not use"):
        slabs.attach("cuda", ticket, None)
    assert device.calls == calls  # refused before the driver was asked
    slab.close()
    with pytest.raises(SlabError, match="closed"):
        slabs.attach("cuda", {**ticket, "pid": __import__("os").getpid()}, device)


def test_memory_that_is_short_is_said_clearly_and_may_come_back(
    context: zmq.Context[Any], on_gpu: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "_AGAIN", 0.0)
    simulated.change(on_gpu, memory=2 << 20)
    out = outlet(context, "inproc://short", consumer("sink"))
    said = (
        r"gpu 0 has no 54 MiB for 8 frames of 6220800 bytes: 2 of 2 MiB are free; "
        "make the pictures smaller"
    )
    with pytest.raises(DeviceError, match=said) as caught:
        out.allocate(1920 * 1080 * 3)
    assert caught.value.out_of_memory
    assert publish(out, 0)  # smaller ones can be had,
    with pytest.raises(DeviceError, match=r"0 of 2 MiB are free"):
        out.allocate(1 << 20)
    assert publish(out, 1)  # and go on when larger ones cannot
    simulated.change(on_gpu, memory=64 << 20)
    slot = out.allocate(1 << 20)
    assert slot is not None
    fill(slot, 1)
    out.discard(slot)


def test_a_courier_that_the_gpu_once_had_no_stream_for_copies_the_next_picture(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    device = gpu.device(0)
    make, refused = type(device).stream_create, []

    def short(self: Any) -> int:
        if threading.current_thread().name == "courier" and not refused:
            refused.append(True)
            raise DeviceError("gpu 0: streamCreate: out of memory", out_of_memory=True)
        return make(self)

    monkeypatch.setattr(type(device), "stream_create", short)
    copied: list[bool] = []
    news = threading.Semaphore(0)

    def done(_: pool.Generation, slot: int, worked: bool) -> None:
        copied.append(worked)
        news.release()

    slab = CudaSlab(device, 1, 4096)
    pixels = slab.slot(0)
    device.memset_async(pixels.pointer, 7, 4096, pixels.use())
    pixels.seal()
    generation = pool.Generation(1, slab, [1])
    courier = Courier(device, done, meter.in_use())
    for _ in range(2):
        courier.copy(generation, 0, 4096)
        assert news.acquire(timeout=30)
    courier.close()
    assert copied == [False, True]
    assert generation.mirror is not None
    view = generation.mirror.slot(0)
    assert isinstance(view, memoryview)
    assert bytes(view) == bytes([7]) * 4096
    view.release()
    generation.mirror.close()
    slab.close()


def test_one_error_of_a_gpu_does_not_end_the_giving_back(monkeypatch: pytest.MonkeyPatch) -> None:
    device = gpu.device(0)
    wait, failed = type(device).event_synchronize, []

    def failing(self: Any, event: int) -> None:
        if not failed:
            failed.append(True)
            raise DeviceError("gpu 0: eventSynchronize: cudaErrorUnknown")
        wait(self, event)

    monkeypatch.setattr(type(device), "event_synchronize", failing)
    releases, back = Releases(), threading.Semaphore(0)
    for _ in range(2):
        releases.after(device, [device.stream()], lambda: back.release())
        assert back.acquire(timeout=30)
