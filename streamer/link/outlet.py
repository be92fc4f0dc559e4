"""The producing end of a node's links: slots, mailboxes and credits.

One outlet serves all consumers of one output. A picture is written once, into a slot; each
consumer that takes it holds the slot until its CREDIT, and a slot is used again only when nobody
holds it. What a consumer cannot take yet waits in a mailbox of its own, so a slow one never holds
up another:

- `latest`: the mailbox keeps the newest `depth` pictures; an older one is replaced and counted.
- `wait`: `allocate` waits until every such consumer has room, so nothing is lost.

The node's thread publishes; another thread calls `service` when the socket has news. ZeroMQ's own
queues are never relied on: at most `window` pictures are under way to a consumer.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import zmq

from streamer.drops import Drop
from streamer.errors import LinkError, ProtocolError
from streamer.frame import Header, Packet
from streamer.link import slab as slabs
from streamer.link import wire
from streamer.telemetry.board import LinkBoard


@dataclass(slots=True, kw_only=True)
class Consumer:
    """One consumer of an outlet, as planned, and what is known of it now.

    Attributes:
        name: node name of the consumer.
        queue: policy of the link.
        depth: pictures in the mailbox (`latest`), or under way and waiting (`wait`).
        board: counters of the link.
    """

    name: str
    queue: Literal["latest", "wait"]
    depth: int
    board: LinkBoard
    identity: bytes | None = None
    incarnation: int = 0
    window: int = 0
    gone: bool = False
    ended: bool = False
    knows_slab: int = 0
    mailbox: deque[_Entry] = field(default_factory=deque)
    outstanding: list[tuple[int, int]] = field(default_factory=list)

    @property
    def full(self) -> bool:
        """Whether a `wait` consumer has no room for another picture."""
        waiting = len(self.mailbox) + len(self.outstanding)
        return self.queue == "wait" and not self.gone and waiting >= self.depth


@dataclass(slots=True)
class _Generation:
    """A slab and who uses its slots: the number of holders of each."""

    number: int
    slab: slabs.Slab
    holders: list[int]


@dataclass(slots=True)
class _Picture:
    header: Header
    generation: _Generation
    slot: int
    published_ns: int


_Entry = _Picture | Packet | None
"""what waits in a mailbox; None is the end of the stream"""


@dataclass(slots=True)
class Slot:
    """A slot leased to the producing node for writing.

    `generation` is 0 for scratch memory, which a live outlet gives when all slots are in use.
    """

    generation: int
    index: int
    pixels: memoryview


class Outlet:
    """See the module.

    Args:
        context: ZeroMQ context of the process.
        endpoints: addresses to bind, `ipc://...` or `inproc://...`.
        incarnation: of the producing worker, from 1.
        consumers: all consumers of this output.
        extra_slots: slots beyond what the consumers can hold and the one being written.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        *,
        endpoints: Sequence[str],
        incarnation: int,
        consumers: Sequence[Consumer],
        extra_slots: int = 1,
    ) -> None:
        self._incarnation = incarnation
        self._consumers = {consumer.name: consumer for consumer in consumers}
        self._by_identity: dict[bytes, Consumer] = {}
        self._extra_slots = extra_slots
        self._generation: _Generation | None = None
        self._retired: list[_Generation] = []
        self._generations = 0
        self._news = threading.Condition()
        self._closed = False
        self._finished = False
        self.protocol_errors = 0
        self._socket = context.socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.LINGER, 200)
        self._socket.setsockopt(zmq.SNDHWM, 0)
        self._socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self._socket.setsockopt(zmq.MAXMSGSIZE, wire.MAX_CONTROL)
        for endpoint in endpoints:
            try:
                self._socket.bind(endpoint)
            except zmq.ZMQError as error:
                self._socket.close(0)
                raise LinkError(f"no link can be offered at {endpoint}: {error}") from error

    @property
    def fd(self) -> int:
        """Descriptor that becomes readable when `service` should be called."""
        return int(self._socket.getsockopt(zmq.FD))

    # ---- the producing node's thread -------------------------------------------------------

    def allocate(self, nbytes: int, *, cancelled: Callable[[], bool] | None = None) -> Slot | None:
        """Leases a slot for a picture of `nbytes`.

        Waits for room where a consumer's policy is `wait`, else never: without a free slot the
        pixels go to scratch memory, which `publish` drops.

        Returns:
            The slot, or None if `cancelled` answered True while waiting (it is asked again when
            `wake` is called, and every half second).

        Raises:
            SlabError: memory for a larger picture cannot be had.
        """
        with self._news:
            while True:
                if self._closed or (cancelled is not None and cancelled()):
                    return None
                waits = [c for c in self._consumers.values() if c.queue == "wait" and not c.gone]
                if not any(consumer.full for consumer in waits):
                    generation = self._generation_for(nbytes)
                    index = self._free_slot(generation)
                    if index is not None:
                        generation.holders[index] = 1
                        pixels = generation.slab.slot(index)
                        return Slot(generation.number, index, pixels)
                    if not waits:
                        return Slot(0, -1, memoryview(bytearray(nbytes)))
                self._news.wait(0.5)

    def discard(self, slot: Slot) -> None:
        """Gives back a slot that will not be published."""
        with self._news:
            self._unhold(slot.generation, slot.index)
            self._news.notify_all()

    def publish(self, slot: Slot, header: Header) -> bool:
        """Offers a picture to every consumer; the slot is no longer the node's.

        Returns:
            Whether it was in a slot; False means that there was none free and it is dropped.
        """
        now = time.monotonic_ns()
        with self._news:
            generation = self._find(slot.generation)
            for consumer in self._consumers.values():
                consumer.board.offered.add()
                if generation is None:
                    consumer.board.dropped[Drop.NO_SLOT].add()
                elif consumer.gone or self._finished:
                    reason = Drop.CONSUMER_GONE if consumer.gone else Drop.ABORTED
                    consumer.board.dropped[reason].add()
                else:
                    generation.holders[slot.index] += 1
                    consumer.mailbox.append(_Picture(header, generation, slot.index, now))
                    self._trim(consumer)
                    self._flush(consumer)
            self._unhold(slot.generation, slot.index)
            self._drain()
        return generation is not None

    def send_packet(self, packet: Packet, *, cancelled: Callable[[], bool] | None = None) -> None:
        """Offers an audio packet to every consumer; waits where the policy is `wait`."""
        with self._news:
            while any(consumer.full for consumer in self._consumers.values()):
                if self._closed or (cancelled is not None and cancelled()):
                    return
                self._news.wait(0.5)
            for consumer in self._consumers.values():
                consumer.board.offered.add()
                if consumer.gone or self._finished:
                    consumer.board.dropped[Drop.CONSUMER_GONE].add()
                    continue
                consumer.mailbox.append(packet)
                self._trim(consumer)
                self._flush(consumer)
            self._drain()

    def finish(self) -> None:
        """Ends the stream: what waits is still delivered, then END; later pictures are dropped."""
        with self._news:
            if not self._finished:
                self._finished = True
                for consumer in self._consumers.values():
                    consumer.mailbox.append(None)
                    self._flush(consumer)
                self._drain()
            self._news.notify_all()

    def wake(self) -> None:
        """Makes waiting calls ask `cancelled` again."""
        with self._news:
            self._news.notify_all()

    # ---- the thread that serves the socket -------------------------------------------------

    def service(self) -> None:
        """Takes what consumers have sent and sends them what waits for them."""
        with self._news:
            if not self._closed:
                self._drain()

    @property
    def drained(self) -> bool:
        """Whether the stream has ended and every consumer has taken and given back all of it."""
        with self._news:
            return self._finished and all(
                consumer.gone
                or (consumer.ended and not consumer.mailbox and not consumer.outstanding)
                for consumer in self._consumers.values()
            )

    def consumer_down(self, name: str, incarnation: int) -> None:
        """A consumer's process has died: what it held is taken back, what waits for it stays."""
        with self._news:
            consumer = self._consumers[name]
            if consumer.incarnation <= incarnation:
                self._forget(consumer)
                self._news.notify_all()

    def consumer_gone(self, name: str) -> None:
        """A consumer will not come back: what waits for it is dropped and counted."""
        with self._news:
            consumer = self._consumers[name]
            self._forget(consumer)
            consumer.gone = True
            for entry in consumer.mailbox:
                if entry is not None:
                    consumer.board.dropped[Drop.CONSUMER_GONE].add()
                    self._let_go(entry)
            consumer.mailbox.clear()
            self._news.notify_all()

    def close(self) -> None:
        """Closes the socket and lets go of the memory."""
        with self._news:
            if self._closed:
                return
            self._closed = True
            self._socket.close()
            generations = [*self._retired, *([self._generation] if self._generation else [])]
            for generation in generations:
                generation.slab.close()
            self._news.notify_all()

    def __repr__(self) -> str:
        return f"<Outlet to {', '.join(self._consumers) or 'nobody'}>"

    # ---- with the lock held ------------------------------------------------------------------

    def _generation_for(self, nbytes: int) -> _Generation:
        current = self._generation
        if current is not None and nbytes <= current.slab.slot_bytes:
            return current
        slots = 1 + self._extra_slots
        for consumer in self._consumers.values():
            slots += consumer.depth + (max(consumer.window, 2) if consumer.queue == "latest" else 0)
        made = slabs.create(min(slots, wire.MAX_SLOTS), nbytes)
        self._generations += 1
        if current is not None:
            self._retired.append(current)
        self._generation = _Generation(self._generations, made, [0] * made.slots)
        self._retire()
        return self._generation

    def _free_slot(self, generation: _Generation) -> int | None:
        try:
            return generation.holders.index(0)
        except ValueError:
            return None

    def _find(self, number: int) -> _Generation | None:
        if self._generation is not None and self._generation.number == number:
            return self._generation
        return next((g for g in self._retired if g.number == number), None)

    def _unhold(self, number: int, slot: int) -> None:
        generation = self._find(number)
        if generation is not None:
            generation.holders[slot] -= 1
            self._retire()

    def _retire(self) -> None:
        """Closes the slabs of former sizes whose last lease has ended."""
        for generation in [g for g in self._retired if not any(g.holders)]:
            generation.slab.close()
            self._retired.remove(generation)

    def _let_go(self, entry: _Entry) -> None:
        if isinstance(entry, _Picture):
            self._unhold(entry.generation.number, entry.slot)

    def _trim(self, consumer: Consumer) -> None:
        while consumer.queue == "latest" and len(consumer.mailbox) > consumer.depth:
            if consumer.identity is not None and len(consumer.outstanding) < consumer.window:
                self._flush(consumer)
                continue
            self._let_go(consumer.mailbox.popleft())
            consumer.board.dropped[Drop.REPLACED].add()

    def _flush(self, consumer: Consumer) -> None:
        while (
            consumer.mailbox
            and consumer.identity is not None
            and len(consumer.outstanding) < consumer.window
        ):
            entry = consumer.mailbox[0]
            held: tuple[int, int]
            if entry is None:
                message: wire.Message = wire.End(self._incarnation)
                held = (0, wire.END_SLOT)
            elif isinstance(entry, Packet):
                message = wire.PacketReady(self._incarnation, entry)
                held = (0, wire.PACKET_SLOT)
            else:
                generation = entry.generation
                if consumer.knows_slab != generation.number:
                    slab = generation.slab
                    ticket = wire.SlabTicket(
                        self._incarnation, generation.number, slab.kind, slab.ticket()
                    )
                    if not self._send(consumer, ticket):
                        return
                    consumer.knows_slab = generation.number
                message = wire.FrameReady(
                    self._incarnation,
                    generation.number,
                    entry.slot,
                    entry.published_ns,
                    entry.header,
                )
                held = (generation.number, entry.slot)
            if not self._send(consumer, message):
                return
            consumer.mailbox.popleft()
            consumer.outstanding.append(held)

    def _send(self, consumer: Consumer, message: wire.Message) -> bool:
        assert consumer.identity is not None
        try:
            self._socket.send_multipart((consumer.identity, wire.pack(message)), zmq.NOBLOCK)
        except zmq.ZMQError as error:
            if error.errno not in (zmq.EHOSTUNREACH, zmq.EAGAIN):
                raise
            # The connection is gone. The supervisor will say whether the process is, too; until
            # then its leases stand, for a live process never loses one.
            consumer.identity = None
            return False
        return True

    def _drain(self) -> None:
        # The socket's descriptor is edge-triggered and a send may swallow the edge, so whoever
        # has used the socket takes all that has come in before letting go of the lock.
        notify = False
        while True:
            try:
                identity, data = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                break
            except ValueError:
                self.protocol_errors += 1
                continue
            try:
                message = wire.unpack(data)
            except ProtocolError:
                self.protocol_errors += 1
                continue
            if isinstance(message, wire.Credit):
                self._credit(identity, message)
                notify = True
            elif isinstance(message, wire.Hello):
                self._welcome(identity, message)
                notify = True
            else:
                self.protocol_errors += 1
        if notify:
            self._news.notify_all()

    def _welcome(self, identity: bytes, hello: wire.Hello) -> None:
        consumer = self._consumers.get(hello.consumer)
        if consumer is None or consumer.gone or hello.incarnation < consumer.incarnation:
            self.protocol_errors += 1
            return
        # A consumer is started again only when its former process is known to be dead, and a
        # live one says hello again only after it has let go of everything.
        self._forget(consumer)
        consumer.identity = identity
        consumer.incarnation = hello.incarnation
        consumer.window = hello.window
        self._by_identity[identity] = consumer
        if consumer.ended:
            consumer.ended = False
            consumer.mailbox.append(None)
        self._flush(consumer)

    def _credit(self, identity: bytes, credit: wire.Credit) -> None:
        consumer = self._by_identity.get(identity)
        held = (credit.generation, credit.slot)
        if consumer is None or held not in consumer.outstanding:
            self.protocol_errors += 1
            return
        consumer.outstanding.remove(held)
        if credit.slot == wire.END_SLOT:
            consumer.ended = True
        elif credit.slot >= 0:
            self._unhold(*held)
        self._flush(consumer)

    def _forget(self, consumer: Consumer) -> None:
        """Ends the connection with a consumer's former process and takes back its leases."""
        for generation, slot in consumer.outstanding:
            if slot >= 0:
                self._unhold(generation, slot)
            elif slot == wire.END_SLOT:
                consumer.mailbox.append(None)
        consumer.outstanding.clear()
        if consumer.identity is not None:
            self._by_identity.pop(consumer.identity, None)
        consumer.identity = None
        consumer.knows_slab = 0
