"""The producing end of a node's links: slots, mailboxes and credits.

One outlet serves all consumers of one output. A picture is written once, into a slot; each
consumer that takes it holds the slot until its CREDIT, and a slot is used again only when nobody
holds it. What a consumer cannot take yet waits in a mailbox of its own, so a slow one never holds
up another:

- `latest`: the mailbox keeps the newest `depth` pictures; an older one is replaced and counted.
- `wait`: `allocate` waits until every such consumer has room, so nothing is lost.

The node's thread publishes; another thread calls `service` when the socket has news. ZeroMQ's own
queues are never relied on: at most `window` pictures are under way to a consumer.

A `wait` consumer is also told by a mark which pictures it need not wait for any more, so that a
node that joins two branches does not wait for what one of them has dropped.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

import zmq

from streamer.audio import Packet
from streamer.drops import Drop
from streamer.errors import LinkError, ProtocolError, SlabError
from streamer.gpu.device import Device
from streamer.header import Header
from streamer.link import wire
from streamer.link.consumer import MOST_KEPT, Consumer, Mark, Picture
from streamer.link.delivery import Delivery
from streamer.link.pool import Generation, Slot, SlotPool

__all__ = ["Consumer", "Outlet", "Slot"]


_MOST_MESSAGES: Final = 1000
"""messages taken in one go, so that a peer that floods the socket holds nobody up for long"""
_CLOSING_S: Final = 0.5
"""seconds that consumers have to close memory before it is left to the end of the process"""
_STARVED_S: Final = 10.0
"""seconds without a free slot, though no consumer is behind, after which waiting is an error"""


class Outlet:
    """See the module.

    Args:
        context: ZeroMQ context of the process.
        endpoints: addresses to bind, `ipc://...` or `inproc://...`.
        incarnation: of the producing worker, from 1.
        consumers: all consumers of this output.
        extra_slots: slots beyond what the consumers can hold and the one being written, which
            the producing node may keep.
        on_copy: called when a picture on a GPU was copied to the host for consumers.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        *,
        endpoints: Sequence[str],
        incarnation: int,
        consumers: Sequence[Consumer],
        extra_slots: int = MOST_KEPT,
        on_copy: Callable[[], None] | None = None,
    ) -> None:
        self._incarnation = incarnation
        self._consumers = {consumer.name: consumer for consumer in consumers}
        self._by_identity: dict[bytes, Consumer] = {}
        self._slots = 1 + extra_slots + sum(consumer.slots for consumer in consumers)
        self._pool = SlotPool(lambda slots, nbytes: self._delivery.make(slots, nbytes))
        self._on_copy = on_copy
        self._announcement: Packet | None = None
        self._waiting = 0
        self._news = threading.Condition()
        self._closed = False
        self._finished = False
        self.protocol_errors = 0
        """messages that were refused"""
        self.behind = False
        """whether `service` should be called again although nothing new has come"""
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

        self._delivery = Delivery(
            self._socket, incarnation, self._pool, self._consumers.values(), self._copied
        )

    def use_device(self, device: Device, refusal: str = "") -> None:
        """Has pictures made in a GPU's memory; before the first `allocate`.

        Args:
            device: GPU of the producing node.
            refusal: why other processes cannot open its memory; empty if they can.
        """
        with self._news:
            self._delivery.use_device(device, refusal)

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
            SlabError: memory for a larger picture cannot be had, or the node itself keeps all
                slots.
        """
        starved: float | None = None
        with self._news:
            while True:
                if self._closed or (cancelled is not None and cancelled()):
                    return None
                self._pool.settle()
                waits = [c for c in self._consumers.values() if c.queue == "wait" and not c.gone]
                if any(consumer.full for consumer in waits):
                    starved = None
                else:
                    slot = self._pool.lease(nbytes, self._slots)
                    if slot is not None:
                        return slot
                    if not waits:
                        return self._pool.scratch()
                    # Consumers cannot use up all slots: the node holds more than its share.
                    starved = starved or time.monotonic()
                    if time.monotonic() - starved > _STARVED_S:
                        raise SlabError(
                            f"all {self._slots} slots are in use: a frame from context.allocate "
                            "is returned, yielded or released, and few can be kept with hold()"
                        )
                self._wait()

    def discard(self, slot: Slot) -> None:
        """Gives back a slot that will not be published, or that was published with `keep`.

        Safe in any thread, also where garbage is collected.
        """
        self._pool.forget_later(slot)
        with self._news:
            self._news.notify_all()

    def publish(self, slot: Slot, header: Header, *, keep: bool = False) -> bool:
        """Offers a picture to every consumer.

        Args:
            slot: from `allocate`; no longer the node's, unless `keep`.
            header: of the picture.
            keep: the node goes on reading the slot until it calls `discard`.

        Returns:
            Whether it was in a slot; False means that there was none free and it is dropped.
        """
        now = time.monotonic_ns()
        slot.seal()
        with self._news:
            self._pool.settle()
            generation = self._pool.find(slot.generation)
            for consumer in self._consumers.values():
                consumer.board.offered.add()
                if generation is None:
                    consumer.board.dropped[Drop.NO_SLOT].add()
                elif consumer.gone or self._finished:
                    reason = Drop.CONSUMER_GONE if consumer.gone else Drop.ABORTED
                    consumer.board.dropped[reason].add()
                else:
                    self._delivery.offer(consumer, Picture(header, generation, slot.index, now))
            if not keep:
                self._pool.release(slot.generation, slot.index)
            self._drain()
        return generation is not None

    def pass_by(self, mark: Mark) -> None:
        """Tells `wait` consumers that no picture up to this one will come any more."""
        with self._news:
            for consumer in self._consumers.values():
                if consumer.queue == "wait" and not (consumer.gone or self._finished):
                    consumer.mark(mark)
                    self._delivery.flush(consumer)
            self._drain()

    def send_packet(self, packet: Packet, *, cancelled: Callable[[], bool] | None = None) -> None:
        """Offers an audio packet to every consumer; waits where the policy is `wait`.

        A packet without data announces the format: a consumer that comes later, or comes back,
        gets it before all others.
        """
        with self._news:
            while any(consumer.full for consumer in self._consumers.values()):
                if self._closed or (cancelled is not None and cancelled()):
                    return
                self._wait()
            if not packet.data:
                self._announcement = packet
            for consumer in self._consumers.values():
                if not packet.data and consumer.identity is None:
                    continue
                consumer.board.offered.add()
                if consumer.gone or self._finished:
                    reason = Drop.CONSUMER_GONE if consumer.gone else Drop.ABORTED
                    consumer.board.dropped[reason].add()
                    continue
                consumer.mailbox.append(packet)
                self._delivery.trim(consumer)
                self._delivery.flush(consumer)
            self._drain()

    def finish(self) -> None:
        """Ends the stream: what waits is still delivered, then END; later pictures are dropped."""
        with self._news:
            if not self._finished:
                self._finished = True
                for consumer in self._consumers.values():
                    consumer.mailbox.append(None)
                    self._delivery.flush(consumer)
                self._drain()
            self._news.notify_all()

    def flush_stale(self) -> None:
        """Drops what waits in `latest` mailboxes: it was made with parameters that have changed."""
        with self._news:
            for consumer in self._consumers.values():
                if consumer.queue == "latest":
                    stale = [e for e in consumer.mailbox if isinstance(e, Picture)]
                    for picture in stale:
                        consumer.mailbox.remove(picture)
                        consumer.board.dropped[Drop.FLUSHED].add()
                        self._delivery.let_go(picture)

    def wake(self) -> None:
        """Makes waiting calls ask `cancelled` again."""
        with self._news:
            self._news.notify_all()

    # ---- the thread that serves the socket -------------------------------------------------

    def service(self) -> None:
        """Takes what consumers have sent and sends them what waits for them."""
        with self._news:
            self._pool.settle()
            if not self._closed:
                self._drain()

    @property
    def drained(self) -> bool:
        """Whether the stream has ended and every consumer has taken and given back all of it."""
        with self._news:
            return self._finished and all(c.drained for c in self._consumers.values())

    @property
    def finished(self) -> bool:
        """Whether the stream has ended: pictures that are published now are dropped."""
        return self._finished

    @property
    def waiting(self) -> bool:
        """Whether the producing node is waiting for a consumer to make room."""
        return self._waiting > 0

    def consumer_down(self, name: str, incarnation: int) -> None:
        """A consumer's process has died: what it held is taken back, what waits for it stays."""
        with self._news:
            consumer = self._consumers[name]
            if consumer.incarnation <= incarnation:
                self._forget(consumer)
                self._pool.died(name)
                self._news.notify_all()

    def consumer_gone(self, name: str) -> None:
        """A consumer will not come back: what waits for it is dropped and counted."""
        with self._news:
            consumer = self._consumers[name]
            self._forget(consumer)
            consumer.gone = True
            for entry in consumer.mailbox:
                if isinstance(entry, (Picture, Packet)):
                    consumer.board.dropped[Drop.CONSUMER_GONE].add()
                    self._delivery.let_go(entry)
            consumer.mailbox.clear()
            self._news.notify_all()

    def close(self) -> None:
        """Closes the socket and lets go of the memory."""
        with self._news:
            if self._closed:
                return
            # Consumers that have taken the end close memory of a GPU in this moment.
            until = time.monotonic() + _CLOSING_S
            while self._pool.open_elsewhere and time.monotonic() < until:
                self._drain()
                self._news.wait(0.005)
            self._closed = True
            self._socket.close()
            self._news.notify_all()
        self._delivery.close()
        with self._news:
            self._pool.close()

    def __repr__(self) -> str:
        return f"<Outlet to {', '.join(self._consumers) or 'nobody'}>"

    # ---- with the lock held ------------------------------------------------------------------

    def _wait(self) -> None:
        """Sleeps until somebody has made room, unless that has come already."""
        if self._drain():
            return
        self._waiting += 1
        try:
            self._news.wait(0.5)
        finally:
            self._waiting -= 1

    def _drain(self) -> bool:
        """Takes what consumers have sent; whether that changed anything."""
        # The socket's descriptor is edge-triggered and a send may swallow the edge, so whoever
        # has used the socket takes all that has come in before letting go of the lock.
        notify = False
        self.behind = True
        for _ in range(_MOST_MESSAGES):
            try:
                identity, data = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                self.behind = False
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
            elif isinstance(message, wire.Attached):
                consumer = self._by_identity.get(identity)
                if consumer is None or not self._delivery.attached(consumer, message):
                    self.protocol_errors += 1
            else:
                self.protocol_errors += 1
        if notify:
            self._news.notify_all()
        return notify

    def _welcome(self, identity: bytes, hello: wire.Hello) -> None:
        consumer = self._consumers.get(hello.consumer)
        if consumer is None or consumer.gone or hello.incarnation < consumer.incarnation:
            self.protocol_errors += 1
            return
        # A consumer is started again only when its former process is known to be dead, and a
        # live one says hello again only after it has let go of everything.
        self._forget(consumer)
        if hello.incarnation > consumer.incarnation:
            self._pool.died(consumer.name)
            if consumer.queue == "wait" and consumer.last:
                # Whatever its former process was sent is done or lost: nobody waits for it.
                consumer.mailbox.appendleft(consumer.last)
        self._delivery.meet(consumer, hello)
        consumer.identity = identity
        consumer.incarnation = hello.incarnation
        consumer.window = min(hello.window, consumer.widest)
        self._by_identity[identity] = consumer
        if consumer.ended:
            consumer.ended = False
            consumer.mailbox.append(None)
        if self._announcement is not None:
            consumer.board.offered.add()
            consumer.mailbox.appendleft(self._announcement)
        self._delivery.flush(consumer)

    def _credit(self, identity: bytes, credit: wire.Credit) -> None:
        consumer = self._by_identity.get(identity)
        held = (credit.generation, credit.slot)
        if consumer is not None and credit.slot == wire.SLAB_SLOT:
            self._pool.closed(credit.generation, consumer.name)
            return
        if consumer is None or held not in (*consumer.outstanding, *consumer.kept):
            self.protocol_errors += 1
            return
        if credit.kept:
            # Room for another picture, though the slot stays in use; within limits.
            room = credit.slot >= 0 and len(consumer.kept) < MOST_KEPT
            if room and held in consumer.outstanding:
                consumer.outstanding.remove(held)
                consumer.kept.append(held)
                self._delivery.flush(consumer)
            return
        (consumer.outstanding if held in consumer.outstanding else consumer.kept).remove(held)
        if credit.slot == wire.END_SLOT:
            consumer.ended = True
        elif credit.slot >= 0:
            self._pool.release(*held)
        self._delivery.flush(consumer)

    def _forget(self, consumer: Consumer) -> None:
        """Ends the connection with a consumer's former process and takes back its leases."""
        for generation, slot in (*consumer.outstanding, *consumer.kept):
            if slot >= 0:
                self._pool.release(generation, slot)
            elif slot == wire.END_SLOT:
                consumer.mailbox.append(None)
        consumer.outstanding.clear()
        consumer.kept.clear()
        if consumer.identity is not None:
            self._by_identity.pop(consumer.identity, None)
        consumer.identity = None
        consumer.knows_slab = consumer.attaching = 0

    def _copied(self, generation: Generation, slot: int, done: bool) -> None:
        """A picture was copied to the host, or could not be; called in the courier's thread."""
        with self._news:
            if self._closed:
                return
            if done and self._on_copy is not None:
                self._on_copy()
            self._delivery.mirrored(generation, slot, done)
            self._drain()
            self._news.notify_all()
