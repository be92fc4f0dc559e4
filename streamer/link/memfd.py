"""Shared memory of one host: a sealed memfd, reached by other processes through /proc.

A memfd has no name to leak, lives as long as someone maps it (so a killed producer takes no
frame away from under a reader), and its sealed size cannot be cut short by a peer.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import weakref

from streamer.errors import SlabError
from streamer.link.slab import MAX_SLAB, SLOT_ALIGNMENT, AttachedSlab, Ticket

_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL

# Slabs of this process by inode: a consumer in the same process reads the same mapping.
_own: weakref.WeakValueDictionary[int, MemfdSlab] = weakref.WeakValueDictionary()


class MemfdSlab:
    """A slab in a sealed memfd; see `streamer.link.slab.Slab`."""

    kind = "memfd"
    opened_by_handle = False

    def __init__(self, slots: int, slot_bytes: int) -> None:
        self.slots = slots
        self.slot_bytes = slot_bytes
        self._stride = -(-slot_bytes // SLOT_ALIGNMENT) * SLOT_ALIGNMENT
        size = self._stride * slots
        if slots < 1 or slot_bytes < 1 or size > MAX_SLAB:
            raise SlabError(f"a slab of {slots} slots of {slot_bytes} bytes cannot be made")
        # Memory is taken page by page as pictures are written, and none being left then kills.
        if size > (free := _available()):
            raise SlabError(
                f"{slots} frames of {slot_bytes} bytes need {size >> 20} MiB of shared memory, "
                f"and {free >> 20} MiB are available: make the pictures smaller"
            )
        try:
            self._fd = os.memfd_create("streamer-slab", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        except OSError as error:
            raise SlabError(f"no shared memory for frames: {error.strerror}") from error
        try:
            os.ftruncate(self._fd, size)
            fcntl.fcntl(self._fd, fcntl.F_ADD_SEALS, _SEALS)
            self._map: mmap.mmap | None = mmap.mmap(self._fd, size)
            self._inode = os.fstat(self._fd).st_ino
        except (OSError, ValueError, OverflowError) as error:
            os.close(self._fd)
            raise SlabError(
                f"no shared memory for {slots} frames of {slot_bytes} bytes: {error}"
            ) from error
        _own[self._inode] = self

    def slot(self, index: int) -> memoryview:
        """Writable bytes of a slot."""
        if self._map is None or not 0 <= index < self.slots:
            raise SlabError(f"no slot {index} in a slab of {self.slots}")
        start = index * self._stride
        return memoryview(self._map)[start : start + self.slot_bytes]

    def scratch(self) -> memoryview:
        """Memory for a picture that is dropped."""
        return memoryview(bytearray(self.slot_bytes))

    def ticket(self) -> dict[str, int | str | bytes]:
        """Process, descriptor and inode of the memfd, and its layout."""
        return {
            "pid": os.getpid(),
            "fd": self._fd,
            "inode": self._inode,
            "slots": self.slots,
            "slot_bytes": self.slot_bytes,
            "stride": self._stride,
        }

    def close(self) -> None:
        """Closes the descriptor; the mapping goes with the last view of it."""
        if self._map is not None:
            self._map = None
            _own.pop(self._inode, None)
            os.close(self._fd)

    def __del__(self) -> None:
        if getattr(self, "_map", None) is not None:
            self.close()

    def __repr__(self) -> str:
        return f"<MemfdSlab {self.slots} x {self.slot_bytes} B>"


class _ReadOnlyMap:
    """A slab of another process, mapped read-only."""

    opened_by_handle = False

    def __init__(self, view: memoryview, slots: int, slot_bytes: int, stride: int) -> None:
        self._view: memoryview | None = view
        self._slots = slots
        self._slot_bytes = slot_bytes
        self._stride = stride

    def slot(self, index: int) -> memoryview:
        if self._view is None or not 0 <= index < self._slots:
            raise SlabError(f"no slot {index} in a slab of {self._slots}")
        start = index * self._stride
        return self._view[start : start + self._slot_bytes]

    def close(self) -> None:
        self._view = None


class _SameProcess:
    """A slab of this process: the same array."""

    opened_by_handle = False

    def __init__(self, slab: MemfdSlab) -> None:
        self._slab: MemfdSlab | None = slab

    def slot(self, index: int) -> memoryview:
        if self._slab is None:
            raise SlabError("the slab was closed")
        return self._slab.slot(index).toreadonly()

    def close(self) -> None:
        self._slab = None


def attach(ticket: Ticket) -> AttachedSlab:
    """The consumer's end of a memfd slab; see `streamer.link.slab.attach`."""
    try:
        pid, fd, inode, slots, slot_bytes, stride = (
            _positive(ticket, key)
            for key in ("pid", "fd", "inode", "slots", "slot_bytes", "stride")
        )
    except KeyError as error:
        raise SlabError(f"the slab's ticket has no {error}") from None
    size = slots * stride
    if slot_bytes > stride or size > MAX_SLAB:
        raise SlabError(
            f"a slab of {slots} slots of {slot_bytes} bytes each {stride} is impossible"
        )
    if pid == os.getpid():
        own = _own.get(inode)
        if own is None:
            raise SlabError("the slab of this process is closed")
        return _SameProcess(own)
    try:
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY  # it may be anything
        here = os.open(f"/proc/{pid}/fd/{fd}", flags)
    except OSError as error:
        raise SlabError(
            f"the frames of process {pid} cannot be reached: {error.strerror}"
        ) from error
    try:
        # The descriptor's number may have been reused since the ticket was written.
        status = os.fstat(here)
        sealed = fcntl.fcntl(here, fcntl.F_GET_SEALS) & _SEALS == _SEALS
        if status.st_ino != inode or status.st_size != size or not sealed:
            raise SlabError(f"the memory of process {pid} is not the slab of its ticket")
        mapped = mmap.mmap(here, size, prot=mmap.PROT_READ)
    except (OSError, ValueError) as error:
        raise SlabError(f"the frames of process {pid} cannot be mapped: {error}") from error
    finally:
        os.close(here)
    return _ReadOnlyMap(memoryview(mapped), slots, slot_bytes, stride)


def _available() -> int:
    """Bytes that can be taken without driving out others; no limit where the kernel is silent."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            for line in file:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return MAX_SLAB


def _positive(ticket: Ticket, key: str) -> int:
    value = ticket[key]
    if type(value) is not int or value < 0 or (value == 0 and key != "fd"):
        raise SlabError(f"the slab's ticket says {key}={value!r:.40}")
    return value
