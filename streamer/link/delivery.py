"""How what waits in mailboxes goes out: in which memory, after which copy, within which window.

A picture in memory of the host goes to every consumer as it is. One on a GPU goes as it is to
consumers that say they reach that GPU, have opened its memory and confirmed it; for the others it
is copied to the host once. A consumer that cannot open the memory says so, and is one of the
others from then on.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection
from typing import Any

import zmq

from streamer.drops import Drop
from streamer.errors import DeviceError
from streamer.formats import picture_bytes
from streamer.gpu import meter
from streamer.gpu.device import Device
from streamer.link import slab as slabs
from streamer.link import wire
from streamer.link.consumer import Consumer, Entry, Mark, Picture, message_of
from streamer.link.cuda import CudaSlab
from streamer.link.pool import Generation, Mirrored, SlotPool

_log = logging.getLogger("streamer.link")


class Delivery:
    """Used under the outlet's lock, but for `close`.

    Args:
        socket: ROUTER that consumers are connected to.
        incarnation: of the producing worker.
        pool: of the outlet's slots.
        consumers: of the outlet.
        copied: called when a picture was copied to the host, or failed to be: without the lock.
    """

    def __init__(
        self,
        socket: zmq.Socket[bytes],
        incarnation: int,
        pool: SlotPool,
        consumers: Collection[Consumer],
        copied: Callable[[Generation, int, bool], None],
    ) -> None:
        self._socket = socket
        self._incarnation = incarnation
        self._pool = pool
        self._consumers = consumers
        self._copied = copied
        self._device: Device | None = None
        self._refusal = ""
        self._courier: Any = None
        self._meters: meter.Meters = {}

    def use_device(self, device: Device, refusal: str) -> None:
        """Has pictures made on a GPU; `refusal` says why other processes cannot reach it."""
        self._device, self._refusal = device, refusal
        self._meters = meter.in_use()  # the node's, in whose thread this is
        for consumer in self._consumers:
            if consumer.hello is not None:
                self.meet(consumer, consumer.hello)

    def make(self, slots: int, nbytes: int) -> slabs.Slab:
        """A slab where the node makes its pictures; as `streamer.link.slab.create`."""
        slab = slabs.create(slots, nbytes, self._device)
        if self._device is not None and not self._refusal:
            assert isinstance(slab, CudaSlab)
            try:
                slab.export()
            except DeviceError as error:
                self.use_device(self._device, str(error))
        return slab

    def close(self) -> None:
        """Ends the copying; without the lock."""
        if self._courier is not None:
            self._courier.close()

    def meet(self, consumer: Consumer, hello: wire.Hello) -> None:
        """Chooses the memory in which a consumer that has come gets its pictures."""
        consumer.hello = hello
        consumer.memory = "memfd"
        device = self._device
        if device is None or f"cuda:{device.uuid}" not in hello.reach:
            return  # a node that works on the host, or on another GPU: nothing is amiss
        why = ""
        if hello.host != slabs.host_id():
            why = "it runs on another host, as another user or in another PID namespace"
        elif hello.pid != os.getpid():
            why = self._refusal
        if why:
            self._fall_back(consumer, why)
        else:
            consumer.memory = "cuda"

    def attached(self, consumer: Consumer, message: wire.Attached) -> bool:
        """A consumer has opened memory on a GPU, or could not; whether it was asked to."""
        if not consumer.attaching or message.generation != consumer.attaching:
            return False
        consumer.attaching = 0
        if message.error:
            self._pool.closed(message.generation, consumer.name)
            consumer.memory, consumer.knows_slab = "memfd", 0
            self._fall_back(consumer, message.error)
        self.flush(consumer)
        return True

    def mirror(self, generation: Generation, picture: Picture) -> None:
        """Begins the copy of a picture on a GPU to the host, unless that was done."""
        assert self._device is not None
        if generation.mirrored[picture.slot] is not Mirrored.NO:
            return
        if self._courier is None:
            from streamer.link.courier import Courier  # which imports numpy

            self._courier = Courier(self._device, self._copied, self._meters)
        generation.mirrored[picture.slot] = Mirrored.UNDER_WAY
        self._pool.hold(generation, picture.slot)
        header = picture.header
        nbytes = picture_bytes(header.format, header.width, header.height)
        self._courier.copy(generation, picture.slot, nbytes)

    def mirrored(self, generation: Generation, slot: int, done: bool) -> None:
        """A picture has been copied to the host, or could not be: it goes out, or is dropped."""
        generation.mirrored[slot] = Mirrored.YES if done else Mirrored.FAILED
        for consumer in self._consumers:
            self.flush(consumer)
        self._pool.release(generation.number, slot)

    def offer(self, consumer: Consumer, picture: Picture) -> None:
        """Puts a picture into a consumer's mailbox and sends what can be sent."""
        self._pool.hold(picture.generation, picture.slot)
        consumer.mailbox.append(picture)
        if self._through_host(consumer, picture.generation) and consumer.identity is not None:
            self.mirror(picture.generation, picture)
        self.trim(consumer)
        self.flush(consumer)

    def let_go(self, entry: Entry) -> None:
        """What waited will not be sent."""
        if isinstance(entry, Picture):
            self._pool.release(entry.generation.number, entry.slot)

    def trim(self, consumer: Consumer) -> None:
        """Keeps a `latest` mailbox at its depth: the oldest goes, to the consumer if it can.

        What is being copied for a consumer that has room waits for no consumer, and stays.
        """
        if consumer.queue != "latest":
            return
        while len(consumer.mailbox) - (leaving := self._leaving(consumer)) > consumer.depth:
            before = len(consumer.mailbox)
            self.flush(consumer)
            if len(consumer.mailbox) == before:
                self.let_go(consumer.mailbox[leaving])
                del consumer.mailbox[leaving]
                consumer.board.dropped[Drop.REPLACED].add()

    def flush(self, consumer: Consumer) -> None:
        """Sends what waits, as far as the consumer's window allows."""
        while consumer.mailbox and consumer.ready:
            entry = consumer.mailbox[0]
            if isinstance(entry, Picture):
                if self._through_host(consumer, entry.generation):
                    self.mirror(entry.generation, entry)
                    state = entry.generation.mirrored[entry.slot]
                    if state is Mirrored.FAILED:
                        self.let_go(consumer.mailbox.popleft())
                        consumer.board.dropped[Drop.NO_SLOT].add()
                        if consumer.queue == "wait":  # it may wait for this very picture
                            consumer.mailbox.appendleft(Mark.of(entry.header))
                        continue
                    if state is not Mirrored.YES:
                        return
                if not self._introduce(consumer, entry.generation):
                    return
            message, held = message_of(entry, self._incarnation)
            if not self.send(consumer, message):
                return
            if isinstance(entry, Picture):
                consumer.last = Mark.of(entry.header)
            consumer.mailbox.popleft()
            consumer.outstanding.append(held)

    def send(self, consumer: Consumer, message: wire.Message) -> bool:
        """Sends a message; whether the consumer's connection is still there."""
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

    def _leaving(self, consumer: Consumer) -> int:
        """How many of a mailbox's entries go out as soon as they are copied: none or one."""
        entry = consumer.mailbox[0] if consumer.mailbox and consumer.ready else None
        if not isinstance(entry, Picture) or not self._through_host(consumer, entry.generation):
            return 0
        return int(entry.generation.mirrored[entry.slot] is Mirrored.UNDER_WAY)

    def _through_host(self, consumer: Consumer, generation: Generation) -> bool:
        return generation.slab.kind == "cuda" and consumer.memory != "cuda"

    def _introduce(self, consumer: Consumer, generation: Generation) -> bool:
        """Sends the ticket of a slab, unless the consumer knows it; whether pictures may follow."""
        if consumer.knows_slab == generation.number:
            return True
        slab = generation.slab
        if self._through_host(consumer, generation):
            assert generation.mirror is not None
            slab = generation.mirror
        ticket = wire.SlabTicket(self._incarnation, generation.number, slab.kind, slab.ticket())
        if not self.send(consumer, ticket):
            return False
        consumer.knows_slab = generation.number
        consumer.board.on_gpu.set(int(slab.kind == "cuda"))
        if slab.opened_by_handle:
            generation.openers.add(consumer.name)
            consumer.attaching = generation.number
            return False
        return True

    def _fall_back(self, consumer: Consumer, why: str) -> None:
        device = self._device
        assert device is not None
        _log.warning(
            "frames for %s leave gpu %d through host memory: %s",
            consumer.name,
            device.ordinal,
            why,
        )
