"""The consuming end of a link: takes pictures, attaches their memory, gives slots back.

An inlet belongs to one thread, which receives and credits. A frame may be released in another
thread all the same: its credit then waits until the owner comes by (`on_release` tells it).

The slot of a frame that a GPU has been given work on goes back when the GPU has done it. So that
the node can meanwhile be given the next picture, it says at once that it keeps the slot for now;
one picture ahead, no more, for whatever waits on a GPU grows old there.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import zmq

from streamer.audio import Packet
from streamer.errors import ProtocolError, SlabError
from streamer.formats import picture_bytes
from streamer.frame import Frame
from streamer.gpu.device import Device
from streamer.gpu.pixels import releases
from streamer.header import Header
from streamer.lease import Lease
from streamer.link import slab as slabs
from streamer.link import wire
from streamer.link.wire import Watermark
from streamer.telemetry.board import LinkBoard

_GPU_GRACE: Final = 2.0
"""seconds that a GPU has to end its work on pictures when the inlet is closed"""


@dataclass(slots=True, eq=False)
class _Mapping:
    """A producer's slab as it is attached here, and how many leases of its slots there are."""

    slab: slabs.AttachedSlab
    connection: int
    generation: int
    leases: int = 0
    retired: bool = False


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
        device: GPU of the node, whose memory it can read; None if it has none or takes no frames
            there.
        on_copy: called for each copy of a picture between the host and the GPU.
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
        device: Device | None = None,
        on_copy: Callable[[], None] | None = None,
    ) -> None:
        self._context = context
        reach = () if device is None else (f"cuda:{device.uuid}",)
        host, pid = slabs.host_id(), os.getpid()
        self._hello = wire.Hello(consumer, incarnation, window, host, pid, reach)
        self._device = device
        self._on_copy = on_copy
        self._board = board
        self._on_release = on_release
        self._owner = threading.get_ident()
        self._connection = 0
        self._producer = 0
        self._slab: _Mapping | None = None
        self._generation = 0
        self._ahead = 0
        self._with_gpu = 0
        self._gpu_news = threading.Condition()
        self._lost = 0
        self._producer_gone = False
        self._late: deque[tuple[_Mapping, wire.Credit]] = deque()
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
        self._retire()
        self._generation = self._lost = self._ahead = 0
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
                    self._tell(wire.Credit(0, wire.MARK_SLOT))
                    return message
                case wire.PacketReady():
                    self._board.received.add()
                    self._tell(wire.Credit(0, wire.PACKET_SLOT))
                    return message.packet
                case wire.SlabTicket():
                    self._attach(message)
                case wire.End():
                    self._tell(wire.Credit(0, wire.END_SLOT))
                    self.ended = True
                    return END
        return None

    def close(self) -> None:
        """Closes the connection; frames still held stay readable until they are released."""
        if self.socket is not None:
            with self._gpu_news:
                self._gpu_news.wait_for(lambda: not self._with_gpu, _GPU_GRACE)
            self._send_late()
            self._retire()
            self.socket.close()
            self.socket = None
            self._connection += 1

    def __repr__(self) -> str:
        return f"<Inlet of {self._hello.consumer} generation {self._generation}>"

    def _attach(self, message: wire.SlabTicket) -> None:
        self._retire()
        self._generation = message.generation
        try:
            slab = slabs.attach(message.kind, message.ticket, self._device)
        except SlabError as error:
            if not slabs.owner_lives(message.ticket):
                # It died before its memory was reached: its pictures are lost, and another is
                # started.
                self._lost = message.generation
            elif message.kind == "cuda":
                text = str(error).encode()[: wire.MAX_REASON].decode(errors="ignore")
                self._tell(wire.Attached(message.generation, text))
            else:
                raise
            return
        self._slab = _Mapping(slab, self._connection, message.generation)
        if slab.opened_by_handle:
            self._tell(wire.Attached(message.generation))

    def _retire(self) -> None:
        """Turns away from the present slab, which is closed with its last lease."""
        mapping, self._slab = self._slab, None
        if mapping is not None:
            mapping.retired = True
            self._close_if_idle(mapping)

    def _close_if_idle(self, mapping: _Mapping) -> None:
        if mapping.retired and not mapping.leases:
            mapping.slab.close()
            if mapping.slab.opened_by_handle and mapping.connection == self._connection:
                self._tell(wire.Credit(mapping.generation, wire.SLAB_SLOT))

    def _frame(self, message: wire.FrameReady, now: int) -> Received:
        header = message.header
        mapping = self._slab
        if mapping is None or message.generation != self._generation:
            raise ProtocolError(f"a picture in generation {message.generation} of an unknown slab")
        pixels = mapping.slab.slot(message.slot)
        needed = _bytes_of(header)
        if needed > len(pixels):
            raise ProtocolError(
                f"a {header.width}x{header.height} {header.format} picture of {needed} bytes "
                f"in a slot of {len(pixels)}"
            )
        self._board.received.add()
        self._board.hop.add_ns(now - message.published_ns)
        mapping.leases += 1
        back = wire.Credit(message.generation, message.slot)
        kept = wire.Credit(message.generation, message.slot, kept=True)
        lease = Lease(
            pixels,
            lambda: self._give_back(mapping, back),
            keep=lambda: self._give_back(mapping, kept),
            after=lambda device, streams: self._give_back_after(device, streams, mapping, back),
            device=self._device,
            copied=self._on_copy,
        )
        return Received(Frame(header, lease), now)

    def _give_back_after(
        self, device: Device, streams: list[int], mapping: _Mapping, credit: wire.Credit
    ) -> None:
        """Gives a slot back when a GPU has done what it was given to do with it."""
        with self._gpu_news:
            self._with_gpu += 1
            ahead = not self._ahead
            self._ahead += ahead

        def done() -> None:
            with self._gpu_news:
                self._with_gpu -= 1
                self._ahead -= ahead and mapping.connection == self._connection
                self._give_back(mapping, credit)
                self._gpu_news.notify_all()

        if ahead:
            self._give_back(mapping, wire.Credit(credit.generation, credit.slot, kept=True))
        releases.after(device, streams, done)

    def _give_back(self, mapping: _Mapping, credit: wire.Credit) -> None:
        if threading.get_ident() == self._owner and self.socket is not None:
            self._send_late()  # a picture is kept before it is given back
            self._settle(mapping, credit)
        elif self.socket is not None:
            self._late.append((mapping, credit))
            if self._on_release is not None:
                self._on_release()
        else:
            self._settle(mapping, credit)

    def _send_late(self) -> None:
        while self._late:
            self._settle(*self._late.popleft())

    def _settle(self, mapping: _Mapping, credit: wire.Credit) -> None:
        if mapping.connection == self._connection:
            self._tell(credit)
        if not credit.kept:
            mapping.leases -= 1
            self._close_if_idle(mapping)

    def _credit(self, credit: wire.Credit) -> None:
        self._tell(credit)

    def _tell(self, message: wire.Message) -> None:
        socket: Any = self.socket
        if socket is not None and not socket.closed:
            # One that cannot take it is gone: nothing is due to it any more.
            with contextlib.suppress(zmq.Again):
                socket.send(wire.pack(message), zmq.NOBLOCK)


def _bytes_of(header: Header) -> int:
    try:
        return picture_bytes(header.format, header.width, header.height)
    except ValueError as error:
        raise ProtocolError(str(error)) from None
