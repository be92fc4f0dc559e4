"""The link against ZeroMQ itself: the same pictures between two processes, in the same run.

Each case sends pictures from this process to a second one. `pass` moves pictures that are ready
in the sender's memory and looks at one byte; `write and read` writes every pixel before sending
and reads every pixel after. `ZeroMQ` is PUSH/PULL over ipc with copy=False and the same number of
pictures under way. A hop is from just before a picture is sent to the moment when the receiver
has a view of it, at 30 pictures a second.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any, Final

import numpy as np
import zmq

from streamer.header import Header, new_header
from streamer.link.inlet import END, Inlet, Received
from streamer.link.outlet import Consumer, Outlet
from streamer.telemetry.board import Board
from streamer.telemetry.histogram import CELLS, Histogram

WINDOW: Final = 4
PACE: Final = 30.0
_KEY: Final = "sender->receiver"


@dataclass(frozen=True, slots=True)
class Hops:
    """Percentiles of the hop in microseconds."""

    p50: float
    p95: float
    p99: float


@dataclass(frozen=True, slots=True)
class Result:
    """Frames a second for both ways, and the hop of each.

    Attributes:
        width: pixels.
        height: pixels.
        pass_fps: frames a second, pictures ready: `link` and `zeromq`.
        write_read_fps: frames a second when every pixel is written and read.
        hop_us: hop at 30 frames a second.
        copies_per_frame: copies of a picture that the link made.
        ratio_to_zeromq: `pass_fps` of the link over that of ZeroMQ.
        write_read_ratio: likewise when every pixel is written and read.
        hop_ratio: p50 of the link's hop over ZeroMQ's.
    """

    width: int
    height: int
    pass_fps: dict[str, float]
    write_read_fps: dict[str, float]
    hop_us: dict[str, Hops]
    copies_per_frame: float
    ratio_to_zeromq: float
    write_read_ratio: float
    hop_ratio: float

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON types."""
        return asdict(self)


def measure(
    *,
    width: int = 1920,
    height: int = 1080,
    seconds: float = 2.0,
    progress: Callable[[str], None] = lambda text: None,
) -> Result:
    """Measures both ways for about `seconds` in each of six cases.

    Args:
        width: pixels of an rgb24 picture.
        height: likewise.
        seconds: length of each case.
        progress: told which case begins.
    """
    fps: dict[str, dict[str, float]] = {"pass": {}, "touch": {}}
    hops: dict[str, Hops] = {}
    for way, case in (("zeromq", _zeromq), ("link", _link)):
        for touch in ("pass", "touch"):
            progress(f"{way}, {'pictures ready' if touch == 'pass' else 'written and read'}")
            frames, taken, _ = case(width, height, seconds, touch == "touch", None)
            fps[touch][way] = round(frames / taken, 1)
        progress(f"{way}, hop at {PACE:.0f} fps")
        _, _, histogram = case(width, height, seconds, False, PACE)
        p50, p95, p99 = histogram.percentiles_us(50, 95, 99)
        hops[way] = Hops(p50 or 0.0, p95 or 0.0, p99 or 0.0)
    return Result(
        width=width,
        height=height,
        pass_fps=fps["pass"],
        write_read_fps=fps["touch"],
        hop_us=hops,
        copies_per_frame=_copies(width, height),
        ratio_to_zeromq=round(fps["pass"]["link"] / fps["pass"]["zeromq"], 2),
        write_read_ratio=round(fps["touch"]["link"] / fps["touch"]["zeromq"], 2),
        hop_ratio=round(hops["link"].p50 / hops["zeromq"].p50, 3),
    )


def _paced(seconds: float, pace: float | None) -> Any:
    """Numbers of pictures for so many seconds, at a pace or as fast as they are taken."""
    begin = time.monotonic()
    number = 0
    while time.monotonic() - begin < seconds:
        if pace is not None:
            time.sleep(max(0.0, begin + number / pace - time.monotonic()))
        yield number
        number += 1


def _receiver(target: Callable[..., None], *args: Any) -> Any:
    # A fresh interpreter: a fork would inherit this process's ZeroMQ threads in a broken state.
    process = multiprocessing.get_context("spawn").Process(target=target, args=args, daemon=True)
    process.start()
    return process


def _shared_histogram() -> tuple[str, Histogram]:
    path = f"{_folder()}/hops{time.monotonic_ns()}"
    np.zeros(CELLS, np.int64).tofile(path)
    return path, Histogram(np.memmap(path, dtype=np.int64, mode="r+"))


_folders: list[tempfile.TemporaryDirectory[str]] = []


def _folder() -> str:
    if not _folders:
        _folders.append(tempfile.TemporaryDirectory(prefix="streamer-bench-"))
    return _folders[0].name


def _touch(pixels: Any) -> int:
    levels = np.frombuffer(pixels, dtype=np.uint8)
    words = len(levels) // 8 * 8  # eight levels at a time, as fast as memory gives them
    return int(levels[:words].view(np.uint64).sum()) + int(levels[words:].sum())


def _copies(width: int, height: int) -> float:
    """Copies between the sender's memory and the receiver's view.

    0 if the receiver sees what the sender writes after sending.
    """
    pipe, theirs = multiprocessing.Pipe()
    endpoint = f"ipc://{_folder()}/copies"
    board = Board(["sender", "receiver"], [_KEY])
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    outlet = _outlet(context, endpoint, board)
    process = _receiver(_receive_one, endpoint, theirs)
    slot = outlet.allocate(width * height * 3)
    assert slot is not None
    pixels = slot.pixels
    assert isinstance(pixels, memoryview)
    pixels[0] = 1
    outlet.publish(slot, _header(0, width, height))
    while not pipe.poll(0.01):
        outlet.service()
    before = pipe.recv()
    pixels[0] = 2
    pipe.send(None)
    after = pipe.recv()
    process.join()
    outlet.close()
    context.term()
    return 0.0 if (before, after) == (1, 2) else 1.0


def _receive_one(endpoint: str, pipe: Any) -> None:
    board = Board(["sender", "receiver"], [_KEY])
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    inlet = Inlet(context, consumer="receiver", incarnation=1, window=1, board=board.links[_KEY])
    inlet.connect(endpoint, 1)
    while not isinstance(arrival := inlet.receive(), Received):
        pass
    with arrival.frame as frame:
        pipe.send(int(frame.numpy()[0, 0, 0]))
        pipe.recv()
        pipe.send(int(frame.numpy()[0, 0, 0]))
    inlet.close()
    context.term()


# ---- the link --------------------------------------------------------------------------------


def _link(
    width: int, height: int, seconds: float, touch: bool, pace: float | None
) -> tuple[int, float, Histogram]:
    endpoint = f"ipc://{_folder()}/link{time.monotonic_ns()}"
    path, histogram = _shared_histogram()
    board = Board(["sender", "receiver"], [_KEY])
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    outlet = _outlet(context, endpoint, board)
    process = _receiver(_receive_link, endpoint, path, touch)
    size = width * height * 3
    poller = zmq.Poller()
    poller.register(outlet.fd, zmq.POLLIN)

    def serve() -> None:
        while not outlet.drained:
            poller.poll(50)
            outlet.service()

    server = threading.Thread(target=serve, daemon=True)
    server.start()

    def send(number: int) -> None:
        slot = outlet.allocate(size)
        assert slot is not None
        if touch:
            assert isinstance(slot.pixels, memoryview)
            np.frombuffer(slot.pixels, dtype=np.uint8)[:] = number % 256
        outlet.publish(slot, _header(number, width, height))

    for number in range(WINDOW + 1):  # until the receiver is there and the memory is touched
        send(number)
    room = outlet.allocate(size)  # waits until the receiver has taken some
    assert room is not None
    outlet.discard(room)
    begin = time.monotonic()
    count = 0
    for number in _paced(seconds, pace):
        send(number)
        count += 1
    outlet.finish()
    server.join()
    taken = time.monotonic() - begin
    process.join()
    outlet.close()
    context.term()
    return count, taken, histogram


def _receive_link(endpoint: str, path: str, touch: bool) -> None:
    histogram = Histogram(np.memmap(path, dtype=np.int64, mode="r+"))
    board = Board(["sender", "receiver"], [_KEY])
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    inlet = Inlet(
        context, consumer="receiver", incarnation=1, window=WINDOW, board=board.links[_KEY]
    )
    inlet.connect(endpoint, 1)
    seen = 0
    while (arrival := inlet.receive()) is not END:
        if arrival is None:
            assert inlet.socket is not None
            inlet.socket.poll(1000)
        elif isinstance(arrival, Received):
            with arrival.frame as frame:
                pixels = frame.numpy()
                now = time.monotonic_ns()
                if seen > WINDOW:
                    histogram.add_ns(now - frame.header.capture_ns)
                _ = _touch(pixels) if touch else pixels[0, 0, 0]
                del pixels
            seen += 1
    inlet.close()
    context.term()


def _outlet(context: zmq.Context[zmq.Socket[bytes]], endpoint: str, board: Board) -> Outlet:
    consumer = Consumer(name="receiver", queue="wait", depth=WINDOW, board=board.links[_KEY])
    return Outlet(context, endpoints=[endpoint], incarnation=1, consumers=[consumer])


def _header(number: int, width: int, height: int) -> Header:
    return new_header(
        "sender",
        number,
        width,
        height,
        "rgb24",
        like=None,
        pts=number,
        time_base=Fraction(1, 30),
        capture_ns=None,
    )


# ---- ZeroMQ ----------------------------------------------------------------------------------


def _zeromq(
    width: int, height: int, seconds: float, touch: bool, pace: float | None
) -> tuple[int, float, Histogram]:
    endpoint = f"ipc://{_folder()}/zmq{time.monotonic_ns()}"
    path, histogram = _shared_histogram()
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    frames = context.socket(zmq.PUSH)
    frames.setsockopt(zmq.SNDHWM, WINDOW)
    frames.bind(endpoint)
    credits = context.socket(zmq.PULL)
    credits.bind(endpoint + "c")
    process = _receiver(_receive_zeromq, endpoint, path, touch)
    buffers = [np.zeros(width * height * 3, np.uint8) for _ in range(WINDOW)]
    under_way = 0

    def settle(most: int) -> None:
        nonlocal under_way
        while under_way > most:
            credits.recv()
            under_way -= 1

    def send(number: int) -> None:
        nonlocal under_way
        settle(WINDOW - 1)
        buffer = buffers[number % WINDOW]
        if touch:
            buffer[:] = number % 256
        frames.send(time.monotonic_ns().to_bytes(8, sys.byteorder), zmq.SNDMORE)
        frames.send(buffer.data, copy=False)
        under_way += 1

    for number in range(WINDOW + 1):
        send(number)
    settle(0)
    begin = time.monotonic()
    count = 0
    for number in _paced(seconds, pace):
        send(number)
        count += 1
    settle(0)
    taken = time.monotonic() - begin
    frames.send(b"")
    process.join()
    frames.close()
    credits.close()
    context.term()
    return count, taken, histogram


def _receive_zeromq(endpoint: str, path: str, touch: bool) -> None:
    histogram = Histogram(np.memmap(path, dtype=np.int64, mode="r+"))
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    frames = context.socket(zmq.PULL)
    frames.setsockopt(zmq.RCVHWM, WINDOW)
    frames.connect(endpoint)
    credits = context.socket(zmq.PUSH)
    credits.connect(endpoint + "c")
    seen = 0
    while True:
        parts = frames.recv_multipart(copy=False)
        if len(parts) == 1:
            break
        now = time.monotonic_ns()
        if seen > WINDOW:
            histogram.add_ns(now - int.from_bytes(parts[0].bytes, sys.byteorder))
        _ = _touch(parts[1].buffer) if touch else parts[1].buffer[0]
        credits.send(b"")
        seen += 1
    frames.close()
    credits.close()
    context.term()


def cores() -> int:
    """Cores that this process may use, for the report."""
    return len(os.sched_getaffinity(0))
