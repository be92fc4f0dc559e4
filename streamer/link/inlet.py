"""The consuming end of a link: takes pictures, attaches their memory, gives slots back.

An inlet belongs to one thread, which receives and credits. A frame may be released in another
thread all the same: its credit then waits until the owner comes by (`on_release` tells it).
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import zmq

from streamer.audio import Packet
from streamer.errors import ProtocolError, SlabError
from streamer.formats import picture_bytes
from streamer.frame import Frame
from streamer.header import Header
from streamer.lease import Lease
from streamer.link import slab as slabs
from streamer.link import wire
from streamer.link.wire import Watermark
from streamer.telemetry.board import LinkBoard


@dataclass(frozen=True, slots=True)
class Received:
    """A picture that has come in, and when (CLOCK_MONOTONIC, nanoseconds)."""

    frame: Frame
    received_ns: int


class EndOfStream:
    """The producer's stream has ended."""

    def __repr__(self) -> str:
        return "END"


END = EndOfStream()


class Inlet:
    """See the module.

    Args:
        context: ZeroMQ context of the process.
        consumer: name of the consuming node.
        incarnation: of the consuming worker, from 1.
        window: pictures that may be held or under way at once.
        board: counters of the link.
        on_release: called when a frame was released in another thread than the inlet's.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        *,
        consumer: str,
        incarnation: int,
        window: int,
        board: LinkBoard,
        on_release: Callable[[], None] | None = None,
    ) -> None:
        self._context = context
        self._hello = wire.Hello(consumer, incarnation, window, slabs.host_id(), os.getpid())
        self._board = board
        self._on_release = on_release
        self._owner = threading.get_ident()
        self._connection = 0
        self._producer = 0
        self._slab: slabs.AttachedSlab | None = None
        self._generation = 0
        self._lost = 0
        self._producer_gone = False
        self._late: deque[tuple[int, wire.Credit]] = deque()
        self.socket: zmq.Socket[bytes] | None = None
        self.ended = False

    def connect(self, endpoint: str, producer_incarnation: int) -> None:
        """Turns to a producer, leaving the former one; what that one had sent is refused.

        Args:
            endpoint: address that the producer's outlet binds, now or soon.
            producer_incarnation: of the producing worker; others' messages are not taken.
        """
        self._owner = threading.get_ident()
        if self.socket is not None:
            self.socket.close(0)
        self._connection += 1
        self._producer = producer_incarnation
        self._slab, self._generation, self._lost = None, 0, 0
        self._producer_gone = False
        self.ended = False
        socket = self._context.socket(zmq.DEALER)
        socket.setsockopt(zmq.LINGER, 200)
        socket.setsockopt(zmq.RECONNECT_IVL, 10)
        socket.setsockopt(zmq.MAXMSGSIZE, wire.MAX_PACKET + wire.MAX_CONTROL)
        socket.setsockopt(zmq.RCVHWM, 0)
        socket.connect(endpoint)
        self.socket = socket
        socket.send(wire.pack(self._hello))

    @property
    def producer(self) -> int:
        """Incarnation of the producer that it is turned to."""
        return self._producer

    def producer_gone(self) -> None:
        """The producer will not come back: what it has sent is still taken, then comes the end."""
        self._producer_gone = True

    def receive(self) -> Received | Packet | Watermark | EndOfStream | None:
        """The next picture, packet, mark or end; None if nothing has come. Does not wait.

        Raises:
            ProtocolError: the producer sent something that is not of the protocol, or a picture
                that does not fit its slot.
            SlabError: the producer's memory cannot be reached.
        """
        self._send_late()
        while self.socket is not None:
            try:
                data = self.socket.recv(zmq.NOBLOCK)
            except zmq.Again:
                if self._producer_gone:
                    self.ended = True
                    return END
                return None
            now = time.monotonic_ns()
            message = wire.unpack(data)
            if isinstance(message, (wire.Hello, wire.Credit, wire.Attached)):
                raise ProtocolError(f"a producer does not send {type(message).__name__}")
            if message.incarnation != self._producer:
                continue
            match message:
                case wire.FrameReady():
                    if message.generation != self._lost:
                        return self._frame(message, now)
                case wire.Watermark():
                    self._credit(wire.Credit(0, wire.MARK_SLOT))
                    return message
                case wire.PacketReady():
                    self._board.received.add()
                    self._credit(wire.Credit(0, wire.PACKET_SLOT))
                    return message.packet
                case wire.SlabTicket():
                    self._attach(message)
                case wire.End():
                    self._credit(wire.Credit(0, wire.END_SLOT))
                    self.ended = True
                    return END
        return None

    def close(self) -> None:
        """Closes the connection; frames still held stay readable until they are released."""
        if self.socket is not None:
            self._send_late()
            self.socket.close()
            self.socket = None
            self._connection += 1
            self._slab = None

    def __repr__(self) -> str:
        return f"<Inlet of {self._hello.consumer} generation {self._generation}>"

    def _attach(self, message: wire.SlabTicket) -> None:
        try:
            self._slab = slabs.attach(message.kind, message.ticket)
        except SlabError:
            if slabs.owner_lives(message.ticket):
                raise
            # It died before its memory was reached: its pictures are lost, and another is started.
            self._slab, self._lost = None, message.generation
        self._generation = message.generation

    def _frame(self, message: wire.FrameReady, now: int) -> Received:
        header = message.header
        if self._slab is None or message.generation != self._generation:
            raise ProtocolError(f"a picture in generation {message.generation} of an unknown slab")
        pixels = self._slab.slot(message.slot)
        needed = _bytes_of(header)
        if needed > len(pixels):
            raise ProtocolError(
                f"a {header.width}x{header.height} {header.format} picture of {needed} bytes "
                f"in a slot of {len(pixels)}"
            )
        self._board.received.add()
        self._board.hop.add_ns(now - message.published_ns)
        back = wire.Credit(message.generation, message.slot)
        kept = wire.Credit(message.generation, message.slot, kept=True)
        connection = self._connection
        lease = Lease(
            pixels,
            lambda: self._give_back(connection, back),
            keep=lambda: self._give_back(connection, kept),
        )
        return Received(Frame(header, lease), now)

    def _give_back(self, connection: int, credit: wire.Credit) -> None:
        if threading.get_ident() == self._owner:
            self._send_late()  # a picture is kept before it is given back
            if connection == self._connection:
                self._credit(credit)
        else:
            self._late.append((connection, credit))
            if self._on_release is not None:
                self._on_release()

    def _send_late(self) -> None:
        while self._late:
            connection, credit = self._late.popleft()
            if connection == self._connection:
                self._credit(credit)

    def _credit(self, credit: wire.Credit) -> None:
        socket: Any = self.socket
        if socket is not None and not socket.closed:
            socket.send(wire.pack(credit))


def _bytes_of(header: Header) -> int:
    try:
        return picture_bytes(header.format, header.width, header.height)
    except ValueError as error:
        raise ProtocolError(str(error)) from None
