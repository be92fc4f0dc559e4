"""How a node's thread waits for what comes in on several links at once."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable

import zmq

from streamer.audio import Packet
from streamer.errors import NodeError
from streamer.graph.plan import LinkPlan
from streamer.link.inlet import END, EndOfStream, Inlet, Received
from streamer.link.wire import Watermark

Arrival = Received | Packet | Watermark | EndOfStream


class Feed:
    """The inlets of one node, and a bell that other threads can ring.

    Args:
        accepts: pixel formats that the node takes.
        beat: called before and after every wait.
    """

    def __init__(self, accepts: tuple[str, ...], *, beat: Callable[[], None]) -> None:
        self._accepts = accepts
        self._beat = beat
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._closing = threading.Lock()
        self._closed = False
        self._calls: deque[Callable[[], None]] = deque()
        self.links: dict[str, tuple[LinkPlan, Inlet]] = {}

    def add(self, link: LinkPlan, inlet: Inlet) -> None:
        """Adds the inlet of a link, by its key."""
        self.links[link.key] = (link, inlet)

    def call(self, function: Callable[[], None]) -> None:
        """Has the node's thread call a function between two frames; from any thread."""
        self._calls.append(function)
        self.ring()

    def ring(self) -> None:
        """Wakes the node's thread if it is waiting; from any thread."""
        with self._closing:  # once closed, the number may belong to another file
            if not self._closed:
                os.eventfd_write(self._bell, 1)

    def receive(self, key: str) -> Arrival | None:
        """What has come in on one link, or None; the end is given again every time."""
        self.answer()
        link, inlet = self.links[key]
        if inlet.ended:
            return END
        arrival = inlet.receive()
        if isinstance(arrival, Received) and arrival.frame.format not in self._accepts:
            got = arrival.frame.format
            arrival.frame.release()
            raise NodeError(
                f"takes {' or '.join(self._accepts)}, but {link.source} sends {got}; "
                f"set {link.source}'s format, or put a preprocess node between"
            )
        return arrival

    def wait(self, *keys: str, seconds: float = 1.0) -> None:
        """Sleeps until something may have come in, or the bell rings.

        Args:
            keys: links that are looked at; those that are left out do not wake, so that what the
                node does not want yet may lie there.
            seconds: longest sleep.
        """
        poller = zmq.Poller()
        poller.register(self._bell, zmq.POLLIN)
        for key in keys:
            inlet = self.links[key][1]
            if inlet.socket is not None and not inlet.ended:
                poller.register(inlet.socket, zmq.POLLIN)
        self._beat()
        for source, _ in poller.poll(int(seconds * 1000)):
            if source == self._bell:
                os.eventfd_read(self._bell)
        self._beat()
        self.answer()

    def close(self) -> None:
        """Closes all inlets and the bell."""
        for _, inlet in self.links.values():
            inlet.close()
        with self._closing:
            self._closed = True
            os.close(self._bell)

    def answer(self) -> None:
        """Makes the calls that other threads have asked for; in the node's thread."""
        while self._calls:
            self._calls.popleft()()
