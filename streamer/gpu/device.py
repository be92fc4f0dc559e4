"""The calls of a GPU's runtime that links need, by the names that CUDA gives them."""

from __future__ import annotations

from collections import Counter
from enum import IntEnum
from typing import Any, Final, Protocol

HANDLE_BYTES: Final = 64
"""bytes of an exported handle of memory or of an event"""
GRANULE: Final = 2 << 20
"""exported memory is a multiple of this: the driver shares whole granules with the importer"""


class Copy(IntEnum):
    """Which way a copy goes; the numbers are CUDA's."""

    TO_DEVICE = 1
    TO_HOST = 2
    ON_DEVICE = 3


class Device(Protocol):
    """One GPU, seen from one process. Pointers, streams and events are integers, as in CUDA.

    No call waits for the device but `stream_synchronize` and `event_synchronize`; there is none
    that waits for all of it. All raise `DeviceError` where the runtime refuses.

    Attributes:
        ordinal: of the device in this process.
        uuid: names the device in every process: `GPU-...` or `MIG-...`.
        name: as its maker calls it.
        calls: how often each call was made, by name.
        copied: bytes copied each way, by `Copy`; `streamer.gpu.meter` counts them by thread.
    """

    ordinal: int
    uuid: str
    name: str
    calls: Counter[str]
    copied: Counter[Copy]

    def ipc_refusal(self) -> str:
        """Why its memory cannot be shared with other processes; empty if nothing speaks against."""
        ...

    def memory(self) -> tuple[int, int]:
        """Free bytes, and bytes in all."""
        ...

    def malloc(self, nbytes: int) -> int:
        """Memory of its own, from no pool; contents are whatever was there."""
        ...

    def free(self, pointer: int) -> None:
        """Gives memory of `malloc` back; no other process may have it open."""
        ...

    def ipc_get_mem_handle(self, pointer: int) -> bytes:
        """Exports memory of `malloc`: `HANDLE_BYTES` bytes for other processes."""
        ...

    def ipc_open_mem_handle(self, handle: bytes) -> int:
        """Maps another process's memory; once for each handle, never in the exporting process."""
        ...

    def ipc_close_mem_handle(self, pointer: int) -> None:
        """Unmaps memory of `ipc_open_mem_handle`; nothing may be using it."""
        ...

    def stream(self) -> int:
        """This thread's stream, made when first asked for, and current for CuPy and torch here."""
        ...

    def stream_create(self) -> int:
        """A stream that does not wait for the default stream."""
        ...

    def stream_destroy(self, stream: int) -> None:
        """Gives a stream of `stream_create` back; its work is still done."""
        ...

    def stream_wait_event(self, stream: int, event: int) -> None:
        """What is put into a stream from now on waits, on the device, for an event as recorded."""
        ...

    def stream_synchronize(self, stream: int) -> None:
        """Waits, on the host, until a stream has done all its work."""
        ...

    def event_create(self, *, interprocess: bool = False) -> int:
        """An event without timing, on which a waiting thread sleeps."""
        ...

    def event_destroy(self, event: int) -> None:
        """Gives an event back, of this process or opened."""
        ...

    def event_record(self, event: int, stream: int) -> None:
        """The event stands for all that was put into a stream until now."""
        ...

    def event_query(self, event: int) -> bool:
        """Whether all that an event stands for is done; does not wait."""
        ...

    def event_synchronize(self, event: int) -> None:
        """Waits, on the host, until all that an event stands for is done."""
        ...

    def ipc_get_event_handle(self, event: int) -> bytes:
        """Exports an interprocess event: `HANDLE_BYTES` bytes for other processes."""
        ...

    def ipc_open_event_handle(self, handle: bytes) -> int:
        """Another process's event."""
        ...

    def memcpy_async(self, to: int, source: int, nbytes: int, kind: Copy, stream: int) -> None:
        """Puts a copy into a stream."""
        ...

    def memset_async(self, pointer: int, value: int, nbytes: int, stream: int) -> None:
        """Puts the filling of memory with one byte into a stream."""
        ...

    def host_register(self, pointer: int, nbytes: int) -> None:
        """Pins host memory, so that copies need no detour."""
        ...

    def host_unregister(self, pointer: int) -> None:
        """Ends `host_register`."""
        ...

    def array(self, pointer: int, shape: tuple[int, ...], *, owner: object) -> Any:
        """Device memory as a contiguous uint8 array of CuPy, without copying.

        Args:
            pointer: first byte.
            shape: of the array.
            owner: kept alive by the array and by all views of it.
        """
        ...

    def tensor(self, array: Any) -> Any:
        """What `array` returned as a tensor of torch, without copying, on this thread's stream."""
        ...

    def empty(self, shape: tuple[int, ...]) -> Any:
        """A uint8 array of CuPy in memory of its own, for work on this thread's stream."""
        ...

    def pointer_of(self, array: Any, shape: tuple[int, ...]) -> int | None:
        """First byte of a contiguous uint8 array in this device's memory; None for other arrays.

        Raises:
            ValueError: it is on this device, but not contiguous, not uint8, or of another shape.
        """
        ...
