"""Both ends of a link on a GPU, as programs that tests start, stop and kill.

`cuda_peers.py consume ENDPOINT NAME INCARNATION MODE` takes pictures until the end, then prints
what it has seen as JSON. MODE is `device` (work on the GPU), `host` (copies there), or `hold`
(keeps what it gets, with work under way).

`cuda_peers.py produce ENDPOINT INCARNATION COUNT [SCALE]` sends so many pictures, one every
millisecond.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import links
import numpy as np
import zmq

from streamer import gpu
from streamer.errors import FrameError
from streamer.gpu.simulated import SimulatedArray
from streamer.link.inlet import EndOfStream, Inlet, Received


class Looker:
    """Work on the GPU that looks whether all bytes of a picture are what they should be."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, bool]] = []
        self._out: SimulatedArray = gpu.device(0).empty((1,))

    def look(self, array: SimulatedArray, seq: int) -> None:
        if not hasattr(array, "compute"):  # a real GPU's
            self.seen.append((seq, bool((array.get() == seq % 256).all())))
            return

        def kernel(pixels: Any) -> Any:
            self.seen.append((seq, bool((pixels == seq % 256).all())))
            return np.zeros(1, np.uint8)

        self._out.compute(kernel, array)


def consume(endpoint: str, name: str, incarnation: str, mode: str) -> None:
    context: zmq.Context[Any] = zmq.Context()
    copies = []
    source = Inlet(
        context,
        consumer=name,
        incarnation=int(incarnation),
        window=4,
        board=links.board(),
        device=None if mode == "host" else gpu.device(0),
        on_copy=lambda: copies.append(1),
    )
    source.connect(endpoint, 1)
    looker = Looker()
    host: list[tuple[int, bool]] = []
    memories = set()
    held = []
    refused = 0
    print("ready", flush=True)
    while not isinstance(arrival := links.next_of(source), EndOfStream):
        if not isinstance(arrival, Received):
            continue
        with arrival.frame as frame:
            memories.add(frame.memory)
            if mode == "hold":
                looker.look(frame.cupy(), frame.seq)
                held.append(frame.hold())
                print("holds", flush=True)
                continue
            try:
                if frame.memory == "host":
                    host.append((frame.seq, bool((frame.numpy() == frame.seq % 256).all())))
                else:
                    looker.look(frame.cupy(), frame.seq)
            except FrameError:
                refused += 1
    source.close()
    seen = [*looker.seen, *host]
    device = gpu.device(0)
    print(
        json.dumps(
            {
                "seqs": [seq for seq, _ in seen],
                "torn": sum(not right for _, right in seen),
                "memories": sorted(memories),
                "copies": len(copies),
                "refused": refused,
                "calls": device.calls,
                "copied": {kind.name: n for kind, n in device.copied.items()},
            }
        ),
        flush=True,
    )
    context.term()


def produce(endpoint: str, incarnation: str, count: str, scale: str = "1") -> None:
    context: zmq.Context[Any] = zmq.Context()
    sink = links.consumer("sink")
    out = links.outlet(context, endpoint, sink, incarnation=int(incarnation))
    links.settled(out, lambda: sink.identity is not None)
    for seq in range(int(count)):
        links.publish(out, seq, scale=int(scale))
        print("sent", flush=True)
        time.sleep(0.001)
    out.finish()
    links.settled(out, lambda: out.drained)
    links.close_all()
    context.term()


if __name__ == "__main__":
    {"consume": consume, "produce": produce}[sys.argv[1]](*sys.argv[2:])
