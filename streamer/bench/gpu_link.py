"""One hop of a picture on a GPU between two processes, and whether memory stays flat over many.

The producer fills a slot on the GPU and publishes it; the hop ends when the consumer has a view
of it on its own GPU stream, which means that the GPU has finished it.
"""

from __future__ import annotations

import multiprocessing
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import numpy as np
import zmq

from streamer import gpu
from streamer.errors import DeviceError
from streamer.gpu import probe
from streamer.gpu.pixels import DevicePixels
from streamer.header import Header, new_header
from streamer.link.inlet import END, Inlet, Received
from streamer.link.outlet import Consumer, Outlet
from streamer.telemetry.board import Board
from streamer.telemetry.histogram import CELLS, Histogram

_KEY: Final = "sender->receiver"
_WARM_UP: Final = 50


@dataclass(frozen=True, slots=True)
class GpuHop:
    """What was measured.

    Attributes:
        device: name of the GPU.
        frames: pictures sent.
        p50: microseconds from the publish call to the consumer's view.
        p99: likewise.
        copied: bytes that crossed between host and GPU in both processes.
        grown_device: bytes of GPU memory taken at the end more than after the first tenth.
        grown_host: the same of this process's resident memory.
    """

    device: str
    frames: int
    p50: float
    p99: float
    copied: int
    grown_device: int
    grown_host: int

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON types."""
        return asdict(self)


def measure(
    *, width: int = 1920, height: int = 1080, frames: int = 30_000, pace: float | None = None
) -> GpuHop:
    """Sends pictures to a second process.

    Args:
        width: pixels of an rgb24 picture.
        height: likewise.
        frames: how many are sent.
        pace: pictures a second; as fast as they are taken by default.

    Raises:
        DeviceError: there is no GPU, or a second process cannot open its memory.
    """
    device = gpu.device(0)
    if why := probe.ask(device):
        raise DeviceError(f"processes cannot share the memory of gpu 0: {why}")
    with tempfile.TemporaryDirectory(prefix="streamer-bench-") as folder:
        histogram_path, endpoint = Path(folder) / "hops", f"ipc://{folder}/link"
        np.zeros(CELLS, np.int64).tofile(histogram_path)
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        board = Board(["sender", "receiver"], [_KEY])
        consumer = Consumer(name="receiver", queue="wait", depth=1, board=board.links[_KEY])
        outlet = Outlet(context, endpoints=[endpoint], incarnation=1, consumers=[consumer])
        outlet.use_device(device)
        pipe, theirs = multiprocessing.Pipe()
        process = multiprocessing.get_context("spawn").Process(
            target=_receive, args=(endpoint, str(histogram_path), theirs), daemon=True
        )
        process.start()
        server = threading.Thread(target=_serve, args=(outlet,), daemon=True)
        server.start()
        early: tuple[int, int] = (0, 0)
        begin = time.monotonic()
        for number in range(frames):
            if pace is not None:
                time.sleep(max(0.0, begin + number / pace - time.monotonic()))
            slot = outlet.allocate(width * height * 3)
            assert slot is not None
            pixels = slot.pixels
            assert isinstance(pixels, DevicePixels)
            device.memset_async(pixels.pointer, number % 256, len(pixels), pixels.use())
            outlet.publish(slot, _header(number, width, height))
            if number == frames // 10:
                early = device.memory()[0], _resident()
        late = device.memory()[0], _resident()
        outlet.finish()
        theirs_copied, on_gpu = pipe.recv()
        server.join()
        process.join()
        outlet.close()
        context.term()
        p50, p99 = Histogram(np.fromfile(histogram_path, np.int64)).percentiles_us(50, 99)
    if on_gpu != frames:
        raise DeviceError(f"{frames - on_gpu} of {frames} pictures went through host memory")
    return GpuHop(
        device=device.name,
        frames=frames,
        p50=p50 or 0.0,
        p99=p99 or 0.0,
        copied=sum(device.copied.values()) + theirs_copied,
        grown_device=early[0] - late[0],
        grown_host=late[1] - early[1],
    )


def _serve(outlet: Outlet) -> None:
    poller = zmq.Poller()
    poller.register(outlet.fd, zmq.POLLIN)
    while not outlet.drained:
        poller.poll(50)
        outlet.service()


def _receive(endpoint: str, path: str, pipe: Any) -> None:
    histogram = Histogram(np.memmap(path, dtype=np.int64, mode="r+"))
    device = gpu.device(0)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    board = Board(["sender", "receiver"], [_KEY])
    inlet = Inlet(
        context, consumer="receiver", incarnation=1, window=1, board=board.links[_KEY],
        device=device,
    )  # fmt: skip
    inlet.connect(endpoint, 1)
    seen = on_gpu = 0
    while (arrival := inlet.receive()) is not END:
        if arrival is None:
            assert inlet.socket is not None
            inlet.socket.poll(1)  # credits of work that the GPU has done are sent in between
        elif isinstance(arrival, Received):
            with arrival.frame as frame:
                on_gpu += frame.memory == "cuda"
                view = frame.cupy()
                now = time.monotonic_ns()
                if seen >= _WARM_UP:
                    histogram.add_ns(now - frame.header.capture_ns)
                del view
            seen += 1
    inlet.close()
    context.term()
    pipe.send((sum(device.copied.values()), on_gpu))


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def _header(number: int, width: int, height: int) -> Header:
    # `capture_ns` is now, just before publishing: the hop is counted from here.
    return new_header(
        "sender", number, width, height, "rgb24",
        like=None, pts=number, time_base=Fraction(1, 30), capture_ns=None,
    )  # fmt: skip
