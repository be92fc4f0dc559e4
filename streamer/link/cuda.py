"""Memory of a GPU, shared by CUDA IPC: one raw allocation, slots by offset, an event for each.

The allocation is no pool's and a multiple of 2 MiB, since the driver shares whole allocations. It
is exported once and opened once by each consumer; within one process the pointer itself is used,
for a process cannot open what it has exported. It must not be freed while a consumer has it open:
its owner keeps it until every consumer has closed it, or is known to be dead.
"""

from __future__ import annotations

import os
import secrets
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from streamer.errors import DeviceError, SlabError
from streamer.gpu.device import GRANULE, HANDLE_BYTES, Device
from streamer.gpu.pixels import DevicePixels
from streamer.link.slab import MAX_SLAB, SLOT_ALIGNMENT, AttachedSlab, Ticket, owner_lives

MOST_SLOTS: Final = 900
"""so that the handles of all events fit into one message"""

# Slabs of this process by identity: a consumer in the same process uses the same pointers.
_own: weakref.WeakValueDictionary[bytes, CudaSlab] = weakref.WeakValueDictionary()


@contextmanager
def left_to_the_driver() -> Iterator[None]:
    """Gives back what can be; where the GPU is lost, the end of the process does."""
    try:
        yield
    except DeviceError as error:
        if not error.lost:
            raise


class CudaSlab:
    """A slab in a GPU's memory; see `streamer.link.slab.Slab`.

    A slot more than asked for is made, as scratch memory: pictures without a free slot go there,
    and nobody ever reads it.

    Args:
        device: GPU.
        slots: number of slots.
        slot_bytes: bytes of one picture.
    """

    kind = "cuda"
    opened_by_handle = True

    def __init__(self, device: Device, slots: int, slot_bytes: int) -> None:
        self.slots = slots
        self.slot_bytes = slot_bytes
        self.device = device
        self._stride = -(-slot_bytes // SLOT_ALIGNMENT) * SLOT_ALIGNMENT
        self._bytes = -(-self._stride * (slots + 1) // GRANULE) * GRANULE
        if not 1 <= slots <= MOST_SLOTS or slot_bytes < 1 or self._bytes > MAX_SLAB:
            raise SlabError(f"a slab of {slots} slots of {slot_bytes} bytes cannot be made")
        self._identity = secrets.token_bytes(16)
        self._pointer = self._allocate()
        self._events: list[int] = []
        self._handles: tuple[bytes, bytes] | None = None
        self._closing = threading.Lock()
        try:
            for _ in range(slots + 1):
                self._events.append(device.event_create(interprocess=not device.ipc_refusal()))
        except DeviceError:
            self.close()
            raise
        _own[self._identity] = self

    def _allocate(self) -> int:
        try:
            return self.device.malloc(self._bytes)
        except DeviceError as error:
            if not error.out_of_memory:
                raise
            free, total = self.device.memory()
            raise DeviceError(
                f"gpu {self.device.ordinal} has no {self._bytes >> 20} MiB for {self.slots} frames "
                f"of {self.slot_bytes} bytes: {free >> 20} of {total >> 20} MiB are free; make the "
                "pictures smaller, end other programs on it, or give the node another gpu",
                out_of_memory=True,
            ) from error

    def slot(self, index: int) -> DevicePixels:
        """The slot for the node that writes it; the slot after the last one is scratch memory."""
        return self._slot(index, self.slots + 1, wait=False)

    def reader(self, index: int) -> DevicePixels:
        """The slot for another stream of this process."""
        return self._slot(index, self.slots, wait=True)

    def scratch(self) -> DevicePixels:
        """Memory for a picture that is dropped."""
        return self.slot(self.slots)

    def export(self) -> None:
        """Makes the handles that the ticket needs for other processes.

        Raises:
            DeviceError: the driver refuses that.
        """
        if self._handles is None:
            memory = self.device.ipc_get_mem_handle(self._pointer)
            events = self._events[: self.slots]
            self._handles = memory, b"".join(map(self.device.ipc_get_event_handle, events))

    def ticket(self) -> dict[str, int | str | bytes]:
        """Process and identity, the layout, and the handles where they have been made."""
        memory, events = self._handles or (b"", b"")
        return {
            "pid": os.getpid(),
            "identity": self._identity,
            "uuid": self.device.uuid,
            "memory": memory,
            "events": events,
            "slots": self.slots,
            "slot_bytes": self.slot_bytes,
            "stride": self._stride,
        }

    def close(self) -> None:
        """Frees the memory; no other process may have it open."""
        with self._closing:
            pointer, self._pointer = self._pointer, 0
        if pointer:
            _own.pop(self._identity, None)
            with left_to_the_driver():
                for event in self._events:
                    self.device.event_destroy(event)
                self.device.free(pointer)

    def _slot(self, index: int, slots: int, *, wait: bool) -> DevicePixels:
        if not self._pointer or not 0 <= index < slots:
            raise SlabError(f"no slot {index} in a slab of {self.slots}")
        at = self._pointer + index * self._stride
        return DevicePixels(self.device, at, self.slot_bytes, self._events[index], wait=wait)

    def __repr__(self) -> str:
        return f"<CudaSlab {self.slots} x {self.slot_bytes} B on gpu {self.device.ordinal}>"


class _SameProcess:
    """A slab of this process: the same memory."""

    opened_by_handle = True

    def __init__(self, slab: CudaSlab) -> None:
        self._slab: CudaSlab | None = slab

    def slot(self, index: int) -> DevicePixels:
        if self._slab is None:
            raise SlabError("the slab was closed")
        return self._slab.reader(index)

    def close(self) -> None:
        self._slab = None


class _Opened:
    """A slab of another process, opened by its handles."""

    opened_by_handle = True

    def __init__(self, device: Device, ticket: Ticket, slots: int, sizes: tuple[int, int]) -> None:
        self._device = device
        self._ticket = {"pid": ticket["pid"]}
        self._slots = slots
        self._slot_bytes, self._stride = sizes
        memory, events = ticket["memory"], ticket["events"]
        assert isinstance(memory, bytes)
        assert isinstance(events, bytes)
        self._events: list[int] = []
        self._pointer = device.ipc_open_mem_handle(memory)
        try:
            for start in range(0, len(events), HANDLE_BYTES):
                handle = events[start : start + HANDLE_BYTES]
                self._events.append(device.ipc_open_event_handle(handle))
        except DeviceError:
            self.close()
            raise

    def slot(self, index: int) -> DevicePixels:
        if not self._pointer or not 0 <= index < self._slots:
            raise SlabError(f"no slot {index} in a slab of {self._slots}")
        return DevicePixels(
            self._device,
            self._pointer + index * self._stride,
            self._slot_bytes,
            self._events[index],
            wait=True,
            alive=self._owner_lives,
        )

    def close(self) -> None:
        pointer, self._pointer = self._pointer, 0
        if pointer:
            with left_to_the_driver():
                for event in self._events:
                    self._device.event_destroy(event)
                self._device.ipc_close_mem_handle(pointer)

    def _owner_lives(self) -> bool:
        return owner_lives(self._ticket)


def attach(ticket: Ticket, device: Device | None) -> AttachedSlab:
    """The consumer's end of a slab on a GPU; see `streamer.link.slab.attach`."""
    try:
        slots, slot_bytes, stride = (_size(ticket, k) for k in ("slots", "slot_bytes", "stride"))
        identity, memory, events = (_bytes(ticket, k) for k in ("identity", "memory", "events"))
        uuid, pid = ticket["uuid"], _size(ticket, "pid")
    except KeyError as error:
        raise SlabError(f"the slab's ticket has no {error}") from None
    if slots > MOST_SLOTS or slot_bytes > stride or stride * slots > MAX_SLAB:
        raise SlabError(
            f"a slab of {slots} slots of {slot_bytes} bytes each {stride} is impossible"
        )
    if pid == os.getpid():
        own = _own.get(identity)
        if own is None:
            raise SlabError("the slab of this process is closed")
        return _SameProcess(own)
    if device is None or uuid != device.uuid:
        raise SlabError(f"frames lie on {uuid!r:.60}, which this node does not use")
    if len(memory) != HANDLE_BYTES or len(events) != HANDLE_BYTES * slots:
        raise SlabError("the slab's ticket holds no handles for other processes")
    return _Opened(device, ticket, slots, (slot_bytes, stride))


def _size(ticket: Ticket, key: str) -> int:
    value = ticket[key]
    if type(value) is not int or value < 1:
        raise SlabError(f"the slab's ticket says {key}={value!r:.40}")
    return value


def _bytes(ticket: Ticket, key: str) -> bytes:
    value = ticket[key]
    if type(value) is not bytes:
        raise SlabError(f"the slab's ticket says {key}={value!r:.40}")
    return value
