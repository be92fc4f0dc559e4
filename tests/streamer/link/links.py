"""Links of one producer, made by hand for tests; as a program, a consumer in its own process.

`links.py ENDPOINT NAME INCARNATION PACE` takes pictures until the end and then prints what it has
seen as JSON; pictures are held for up to PACE seconds, and looked at again before they go back.
"""

from __future__ import annotations

import json
import os
import random
import sys
import threading
import time
from collections.abc import Callable
from fractions import Fraction
from typing import Any, Literal

import zmq

from streamer import gpu
from streamer.audio import Packet
from streamer.gpu.device import Device
from streamer.gpu.pixels import DevicePixels
from streamer.header import Header
from streamer.link.inlet import EndOfStream, Inlet, Received
from streamer.link.outlet import Consumer, Outlet, Slot
from streamer.telemetry.board import Board, LinkBoard

DEADLINE = float(os.environ.get("LINKS_DEADLINE", 60))
WIDTH, HEIGHT = 64, 48
SIZE = WIDTH * HEIGHT * 3

memory = os.environ.get("LINKS_MEMORY") or ("cuda" if os.environ.get(gpu.SIMULATED) else "memfd")
"""where frames of the links lie"""
opened: list[Outlet | Inlet] = []
"""what `close_all` closes after a test"""


def close_all() -> None:
    while opened:
        opened.pop().close()


def board() -> LinkBoard:
    return Board((), ["link"]).links["link"]


def device_here() -> Device | None:
    return gpu.device(0) if memory == "cuda" else None


def consumer(name: str, queue: Literal["latest", "wait"] = "latest", depth: int = 1) -> Consumer:
    return Consumer(name=name, queue=queue, depth=depth, board=board())


def outlet(
    context: zmq.Context[Any], endpoint: str, *consumers: Consumer, incarnation: int = 1
) -> Outlet:
    made = Outlet(context, endpoints=(endpoint,), incarnation=incarnation, consumers=consumers)
    if (device := device_here()) is not None:
        made.use_device(device)
    opened.append(made)
    return made


def inlet(
    context: zmq.Context[Any],
    endpoint: str,
    name: str = "sink",
    *,
    incarnation: int = 1,
    producer: int = 1,
    window: int = 1,
) -> Inlet:
    made = Inlet(
        context,
        consumer=name,
        incarnation=incarnation,
        window=window,
        board=board(),
        device=device_here(),
    )
    made.connect(endpoint, producer)
    opened.append(made)
    return made


def header(seq: int, *, width: int = WIDTH, height: int = HEIGHT) -> Header:
    return Header(
        stream="camera",
        seq=seq,
        pts=seq,
        time_base=Fraction(1, 30),
        width=width,
        height=height,
        format="rgb24",
        capture_ns=time.monotonic_ns(),
        wall_ns=time.time_ns(),
    )


def fill(slot: Slot, value: int) -> None:
    """Writes to all bytes of a slot, as the producing node does."""
    if isinstance(slot.pixels, DevicePixels):
        pixels = slot.pixels
        pixels.device.memset_async(pixels.pointer, value, len(pixels), pixels.use())
    else:
        slot.pixels[:] = bytes([value]) * len(slot.pixels)


def publish(out: Outlet, seq: int, *, scale: int = 1) -> bool:
    """Publishes a picture whose bytes all hold the low byte of its number."""
    until = time.monotonic() + DEADLINE

    def too_late() -> bool:
        # The outlet may wait for a consumer in this very thread, whose GPU is not done yet.
        send_late()
        return time.monotonic() > until

    slot = out.allocate(SIZE * scale * scale, cancelled=too_late)
    assert slot is not None, "no room was made"
    fill(slot, seq % 256)
    return out.publish(slot, header(seq, width=WIDTH * scale, height=HEIGHT * scale))


def next_of(source: Inlet, out: Outlet | None = None) -> Received | Packet | EndOfStream | Any:
    """What comes next; waits for it, and serves the outlet meanwhile."""
    until = time.monotonic() + DEADLINE
    while (arrival := source.receive()) is None:
        assert time.monotonic() < until, "nothing came"
        if out is not None:
            out.service()
        time.sleep(0.0005)
    return arrival


def send_late() -> None:
    """Gives back frames that a GPU has done with, for the inlets of this thread."""
    for source in opened:
        if isinstance(source, Inlet) and source._owner == threading.get_ident():
            source._send_late()


def settled(out: Outlet, holds: Callable[[], bool]) -> bool:
    """Serves an outlet until something holds."""
    until = time.monotonic() + DEADLINE
    while not holds() and time.monotonic() < until:
        send_late()
        out.service()
        time.sleep(0.0005)
    return holds()


def next_of_published(out: Outlet, source: Inlet, seq: int) -> Received:
    publish(out, seq)
    arrival = next_of(source, out)
    assert isinstance(arrival, Received)
    return arrival


def said_hello(out: Outlet, *consumers: Consumer) -> None:
    assert settled(out, lambda: all(c.identity is not None for c in consumers))


def seq_of(arrival: Any) -> int:
    """The number of a picture, which is given back."""
    assert isinstance(arrival, Received)
    with arrival.frame as frame:
        pixels = frame.numpy()
        assert (pixels == frame.seq % 256).all()
        del pixels
        return frame.seq


def main(endpoint: str, name: str, incarnation: str, pace: str) -> None:
    dice = random.Random(name)
    context: zmq.Context[Any] = zmq.Context()
    source = inlet(context, endpoint, name, incarnation=int(incarnation), window=4)
    print("ready", flush=True)
    seqs: list[int] = []
    torn = 0
    while not isinstance(arrival := next_of(source), EndOfStream):
        if not isinstance(arrival, Received):
            continue  # a mark
        with arrival.frame as frame:
            assert frame.memory == ("cuda" if memory == "cuda" else "host")
            expected = frame.seq % 256
            pixels = frame.numpy()
            torn += bool((pixels != expected).any())
            time.sleep(dice.random() * float(pace))
            torn += bool((pixels != expected).any())
            seqs.append(frame.seq)
            del pixels
    print(json.dumps({"seqs": seqs, "torn": torn}), flush=True)
    close_all()
    context.term()


if __name__ == "__main__":
    main(*sys.argv[1:])
