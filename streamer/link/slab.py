"""Memory that frames lie in: a slab of equal slots, exported once and attached once.

A producer makes a slab for each output and format; consumers attach it by its ticket. Each kind
of memory is one pair of classes behind the two protocols here.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final, Protocol

from streamer.errors import SlabError
from streamer.gpu.device import Device
from streamer.gpu.pixels import DevicePixels

Pixels = memoryview | DevicePixels
"""bytes of a slot, in host memory or on a GPU"""
Ticket = Mapping[str, int | str | bytes]

SLOT_ALIGNMENT: Final = 4096
"""slots start on a page, so that each can be registered for DMA by itself"""
MAX_SLAB: Final = 1 << 37
"""largest slab in bytes"""

_EXITING: Final = 0x4
"""PF_EXITING among the flags in /proc/PID/stat: the kernel is taking the process down"""


class Slab(Protocol):
    """The producer's end of a slab.

    Attributes:
        kind: name of the memory kind.
        slots: number of slots.
        slot_bytes: bytes of a picture that a slot can hold.
        opened_by_handle: whether consumers open it by a handle, and it must outlive their having
            it open; else whoever maps it keeps it alive.
    """

    kind: str
    slots: int
    slot_bytes: int
    opened_by_handle: bool

    def slot(self, index: int) -> Pixels:
        """Writable bytes of a slot."""
        ...

    def scratch(self) -> Pixels:
        """Writable bytes for a picture that is dropped."""
        ...

    def ticket(self) -> dict[str, int | str | bytes]:
        """What a consumer needs to attach."""
        ...

    def close(self) -> None:
        """Lets go of the memory; views that are still held keep it mapped."""
        ...


class AttachedSlab(Protocol):
    """The consumer's end of a slab; `opened_by_handle` as at the producer's."""

    opened_by_handle: bool

    def slot(self, index: int) -> Pixels:
        """Read-only bytes of a slot.

        Raises:
            SlabError: the slab has no such slot.
        """
        ...

    def close(self) -> None:
        """Lets go of the memory; views that are still held keep it mapped."""
        ...


def host_id() -> str:
    """Names this host, user and PID namespace: equal at both ends of a shared-memory link."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            boot = file.read().strip()
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        boot, namespace = os.uname().nodename, "?"
    return f"{boot}/{namespace}/{os.getuid()}"


def owner_lives(ticket: Ticket) -> bool:
    """Whether the process that a ticket names is there and has not ended."""
    pid = ticket.get("pid")
    if not isinstance(pid, int):
        return True  # no death explains such a ticket
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            said = file.read().rpartition(")")[2].split()
        state, flags = said[0], int(said[6])
    except FileNotFoundError:
        return not os.path.exists("/proc/self/stat")  # without /proc nobody can tell
    except (OSError, IndexError):
        return False  # it ended in this very moment
    # Exiting: its descriptors are gone before it is a zombie, by as long as its memory takes to
    # be freed.
    return state not in "ZX" and not flags & _EXITING


def create(slots: int, slot_bytes: int, device: Device | None = None) -> Slab:
    """A slab where a node makes its pictures.

    Args:
        slots: number of slots, at least 1.
        slot_bytes: bytes of one picture.
        device: GPU in whose memory it shall be; in shared memory of the host by default.

    Raises:
        SlabError: the memory cannot be had.
    """
    if device is not None:
        from streamer.link.cuda import CudaSlab

        return CudaSlab(device, slots, slot_bytes)
    from streamer.link.memfd import MemfdSlab

    return MemfdSlab(slots, slot_bytes)


def attach(kind: str, ticket: Ticket, device: Device | None = None) -> AttachedSlab:
    """The consumer's end of the slab that a ticket describes.

    Args:
        kind: of the memory.
        ticket: from the producer.
        device: GPU of the consuming node.

    Raises:
        SlabError: the kind is unknown here, or the memory cannot be reached or is not what the
            ticket says.
    """
    if kind == "memfd":
        from streamer.link.memfd import attach as attach_memfd

        return attach_memfd(ticket)
    if kind == "cuda":
        from streamer.link.cuda import attach as attach_cuda

        return attach_cuda(ticket, device)
    raise SlabError(f"frames lie in {kind!r} memory, which cannot be reached from here")
