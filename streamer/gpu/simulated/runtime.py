"""The simulated device itself: the calls, and the books that they are checked against."""

from __future__ import annotations

import ctypes
import os
import struct
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import Any, Final

import numpy as np

from streamer.errors import DeviceError
from streamer.gpu import meter
from streamer.gpu.device import HANDLE_BYTES, Copy
from streamer.gpu.simulated.arrays import SimulatedArray
from streamer.gpu.simulated.memory import LANES, Memory, forget_lane
from streamer.gpu.simulated.streams import EVENTS, Events, Stream
from streamer.gpu.simulated.world import Settings, alive, is_broken, settings_of, world

_NAMESPACE: Final = uuid.UUID("6ba7b811-9dad-11d1-80b4-00c04fd430c8")
_HANDLE: Final = struct.Struct("<4sQQQ")


class SimulatedDevice:
    """See `streamer.gpu.device.Device`, and the package for what it watches.

    Args:
        folder: that the devices lie in, from `make`.
        ordinal: of the device.

    Raises:
        DeviceError: there is no such device.
    """

    def __init__(self, folder: str | Path, ordinal: int) -> None:
        self._folder = Path(folder)
        if not (self._folder / "settings.json").is_file():
            raise DeviceError(f"{self._folder} holds no simulated GPUs")
        if ordinal >= (devices := self._settings.devices):
            raise DeviceError(f"there is no gpu {ordinal}: {devices} are simulated, from 0")
        self.ordinal = ordinal
        self.name = "Simulated GPU"
        self.uuid = f"GPU-{uuid.uuid5(_NAMESPACE, f'{self._folder.resolve()}/{ordinal}')}"
        self.calls: Counter[str] = Counter()
        self.copied: Counter[Copy] = Counter()
        self._world = world(self._folder)
        self._events = Events(self._folder)
        self._memories: dict[int, Memory] = {}
        self._pinned: dict[int, int] = {}
        self._streams: dict[int, Stream] = {}
        self._threads = threading.local()
        self._opened_events: dict[int, int] = {}
        self._numbers = count(1 << 20)  # of opened events: no index of `Events`

    @property
    def _settings(self) -> Settings:
        return settings_of(self._folder)

    def _called(self, name: str) -> None:
        self.calls[name] += 1
        if is_broken(self._folder):
            raise DeviceError(
                f"gpu {self.ordinal}: {name}: cudaErrorIllegalAddress: an illegal memory access "
                "was encountered",
                lost=True,
            )

    def ipc_refusal(self) -> str:
        """See `Device`."""
        return "" if self._settings.ipc else "the driver has no events between processes"

    def memory(self) -> tuple[int, int]:
        """See `Device`."""
        self._called("memGetInfo")
        total = self._settings.memory
        with self._world.ledger() as ledger:
            return total - self._taken(ledger), total

    def malloc(self, nbytes: int) -> int:
        """See `Device`."""
        self._called("malloc")
        settings = self._settings
        with self._world.ledger() as ledger:
            if self._taken(ledger) + nbytes > settings.memory:
                raise DeviceError(
                    f"gpu {self.ordinal}: malloc: cudaErrorMemoryAllocation: out of memory",
                    out_of_memory=True,
                )
            key, ledger["next"] = str(ledger["next"]), ledger["next"] + 1
            mine = [e["place"] for e in ledger["memory"].values() if e["pid"] == os.getpid()]
            place = next(n for n in count() if n not in mine) if settings.same_handles else int(key)
            ledger["memory"][key] = {
                "pid": os.getpid(),
                "bytes": nbytes,
                "device": self.ordinal,
                "place": place,
            }
            made = Memory(self._folder, key, nbytes, own=True)
        self._memories[made.pointer] = made
        return made.pointer

    def free(self, pointer: int) -> None:
        """See `Device`."""
        self._called("free")
        memory = self._memories.pop(pointer, None)
        if memory is None or not memory.own:
            raise DeviceError(f"gpu {self.ordinal}: free: cudaErrorInvalidValue")
        with self._world.ledger() as ledger:
            if any(entry["key"] == memory.key for entry in ledger["opened"]):
                self._world.violation("memory is freed while another process has it open")
            del ledger["memory"][memory.key]
            for name in (f"memory-{memory.key}", f"pages-{memory.key}"):
                (self._folder / name).unlink()

    def ipc_get_mem_handle(self, pointer: int) -> bytes:
        """See `Device`."""
        self._called("ipcGetMemHandle")
        if not self._settings.ipc:
            raise DeviceError(
                f"gpu {self.ordinal}: ipcGetMemHandle: cudaErrorNotSupported: "
                "operation not supported"
            )
        memory = self._memories[pointer]
        with self._world.ledger() as ledger:
            place = ledger["memory"][memory.key]["place"]
        return _HANDLE.pack(b"MEM ", os.getpid(), place, memory.nbytes).ljust(HANDLE_BYTES, b"\0")

    def ipc_open_mem_handle(self, handle: bytes) -> int:
        """See `Device`."""
        self._called("ipcOpenMemHandle")
        refused = f"gpu {self.ordinal}: ipcOpenMemHandle:"
        if reason := self._settings.opening:
            raise DeviceError(f"{refused} {reason}", out_of_memory="out of memory" in reason)
        kind, pid, place, nbytes = _HANDLE.unpack(handle[: _HANDLE.size].ljust(_HANDLE.size, b"\0"))
        if pid == os.getpid():
            self._world.violation("a handle is opened in the process that exported it")
            raise DeviceError(f"{refused} cudaErrorDeviceUninitialized: invalid device context")
        with self._world.ledger() as ledger:
            found = [
                key
                for key, e in ledger["memory"].items()
                if (e["pid"], e["place"], e["bytes"]) == (pid, place, nbytes)
                and e["device"] == self.ordinal
            ]
            if kind != b"MEM " or not found:
                raise DeviceError(f"{refused} cudaErrorInvalidValue: invalid argument")
            for entry in ledger["opened"]:
                if entry["pid"] == os.getpid() and entry["handle"] == handle.hex():
                    self._world.violation("a handle is opened a second time")
            opened = Memory(self._folder, found[0], nbytes, own=False)
            ledger["opened"].append({"pid": os.getpid(), "key": found[0], "handle": handle.hex()})
        self._memories[opened.pointer] = opened
        return opened.pointer

    def ipc_close_mem_handle(self, pointer: int) -> None:
        """See `Device`."""
        self._called("ipcCloseMemHandle")
        memory = self._memories.pop(pointer, None)
        if memory is None or memory.own:
            raise DeviceError(f"gpu {self.ordinal}: ipcCloseMemHandle: cudaErrorInvalidValue")
        with self._world.ledger() as ledger:
            for entry in ledger["opened"]:
                if (entry["pid"], entry["key"]) == (os.getpid(), memory.key):
                    ledger["opened"].remove(entry)
                    return

    def stream(self) -> int:
        """See `Device`."""
        mine: int | None = getattr(self._threads, "stream", None)
        if mine is None:
            mine = self._threads.stream = self.stream_create()
        return mine

    def stream_create(self) -> int:
        """See `Device`."""
        self._called("streamCreate")
        with self._world.ledger() as ledger:
            number: int = ledger["next"]
            ledger["next"] += 1
            lane = next((n for n in range(LANES) if str(n) not in ledger["lanes"]), None)
            if lane is None:
                raise DeviceError(f"gpu {self.ordinal}: {LANES} streams are as many as there are")
            ledger["lanes"][str(lane)] = os.getpid()
            forget_lane(self._folder, ledger["memory"], lane)
        self._streams[number] = Stream(number, lane, lambda: self._settings.delay)
        return number

    def stream_destroy(self, stream: int) -> None:
        """See `Device`."""
        self._called("streamDestroy")
        ended = self._streams.pop(stream)
        ended.synchronize()
        ended.end()
        with self._world.ledger() as ledger:
            ledger["lanes"].pop(str(ended.lane), None)

    def stream_wait_event(self, stream: int, event: int) -> None:
        """See `Device`."""
        self._called("streamWaitEvent")
        with self._world.locked():
            self._events.wait(self._index(event), self._streams[stream])

    def stream_synchronize(self, stream: int) -> None:
        """See `Device`."""
        self._called("streamSynchronize")
        self._streams[stream].synchronize()

    def event_create(self, *, interprocess: bool = False) -> int:
        """See `Device`."""
        self._called("eventCreate")
        with self._world.ledger() as ledger:
            serial: int = ledger["next"]
            ledger["next"] += 1
            # The place of an event that died with its process is not used again soon.
            places = ((serial + n) % EVENTS for n in range(EVENTS))
            index = next((n for n in places if str(n) not in ledger["events"]), None)
            if index is None:
                raise DeviceError(f"gpu {self.ordinal}: eventCreate: out of events")
            ledger["events"][str(index)] = {
                "pid": os.getpid(), "serial": serial, "shared": interprocess,
            }  # fmt: skip
            self._events.clear(index)
        return index

    def event_destroy(self, event: int) -> None:
        """See `Device`."""
        self._called("eventDestroy")
        if self._opened_events.pop(event, None) is None:
            with self._world.ledger() as ledger:
                del ledger["events"][str(event)]

    def event_record(self, event: int, stream: int) -> None:
        """See `Device`."""
        self._called("eventRecord")
        with self._world.locked():
            self._events.record(self._index(event), self._streams[stream])

    def event_query(self, event: int) -> bool:
        """See `Device`."""
        self._called("eventQuery")
        return self._events.passed(self._index(event))

    def event_synchronize(self, event: int) -> None:
        """See `Device`."""
        self._called("eventSynchronize")
        nap = threading.Event()
        while not self._events.passed(self._index(event)):
            nap.wait(0.0002)

    def ipc_get_event_handle(self, event: int) -> bytes:
        """See `Device`."""
        self._called("ipcGetEventHandle")
        with self._world.ledger() as ledger:
            entry = ledger["events"][str(event)]
        if not (entry["shared"] and self._settings.ipc):
            raise DeviceError(f"gpu {self.ordinal}: ipcGetEventHandle: cudaErrorInvalidValue")
        packed = _HANDLE.pack(b"EVT ", os.getpid(), event, entry["serial"])
        return packed.ljust(HANDLE_BYTES, b"\0")

    def ipc_open_event_handle(self, handle: bytes) -> int:
        """See `Device`."""
        self._called("ipcOpenEventHandle")
        kind, pid, index, serial = _HANDLE.unpack(handle[: _HANDLE.size].ljust(_HANDLE.size, b"\0"))
        with self._world.ledger() as ledger:
            entry = ledger["events"].get(str(index))
        if kind != b"EVT " or entry is None or (entry["pid"], entry["serial"]) != (pid, serial):
            raise DeviceError(f"gpu {self.ordinal}: ipcOpenEventHandle: cudaErrorInvalidValue")
        number = next(self._numbers)
        self._opened_events[number] = index
        return number

    def memcpy_async(self, to: int, source: int, nbytes: int, kind: Copy, stream: int) -> None:
        """See `Device`."""
        self._called("memcpyAsync")
        self.copied[kind] += nbytes
        meter.count(kind, nbytes)
        reads = [] if kind is Copy.TO_DEVICE else [(source, nbytes)]
        writes = [] if kind is Copy.TO_HOST else [(to, nbytes)]
        # Pageable memory of the host is read before the call returns, pinned memory when the
        # stream comes to it.
        late = kind is not Copy.TO_DEVICE or self._is_pinned(source, nbytes)
        staged = None if late else ctypes.string_at(source, nbytes)

        def copy() -> None:
            if staged is None:
                ctypes.memmove(to, source, nbytes)
            else:
                ctypes.memmove(to, staged, nbytes)

        self._put(stream, copy, reads, writes)

    def memset_async(self, pointer: int, value: int, nbytes: int, stream: int) -> None:
        """See `Device`."""
        self._called("memsetAsync")
        self._put(stream, lambda: ctypes.memset(pointer, value, nbytes), [], [(pointer, nbytes)])

    def host_register(self, pointer: int, nbytes: int) -> None:
        """See `Device`."""
        self._called("hostRegister")
        self._pinned[pointer] = nbytes

    def host_unregister(self, pointer: int) -> None:
        """See `Device`."""
        self._called("hostUnregister")
        del self._pinned[pointer]

    def array(self, pointer: int, shape: tuple[int, ...], *, owner: object) -> SimulatedArray:
        """See `Device`."""
        self._called("array")
        return SimulatedArray(self, pointer, shape, owner)

    def tensor(self, array: SimulatedArray) -> SimulatedArray:
        """See `Device`; there is no torch on simulated devices."""
        return SimulatedArray(self, array.pointer, array.shape, array)

    def empty(self, shape: tuple[int, ...]) -> SimulatedArray:
        """See `Device`; its memory goes when the last view of it does."""
        size = 1
        for side in shape:
            size *= side
        return self.array(pointer := self.malloc(size), shape, owner=_Freeing(self, pointer))

    def pointer_of(self, array: Any, shape: tuple[int, ...]) -> int | None:
        """See `Device`."""
        if not isinstance(array, SimulatedArray):
            return None
        if array.shape != shape:
            raise ValueError(f"an array of shape {array.shape}")
        return array.pointer

    def launch(
        self,
        function: Callable[..., Any],
        *,
        to: SimulatedArray,
        sources: Sequence[SimulatedArray],
    ) -> None:
        """Puts a computation into this thread's stream; see `SimulatedArray.compute`."""
        self._called("launchKernel")
        out = self._memory(to.pointer).view(to.pointer, to.nbytes).reshape(to.shape)
        views = []
        for source in sources:
            view = self._memory(source.pointer).view(source.pointer, source.nbytes).view()
            view.flags.writeable = False
            views.append(view.reshape(source.shape))
        self._put(
            self.stream(),
            lambda: np.copyto(out, function(*views)),
            [(source.pointer, source.nbytes) for source in sources],
            [(to.pointer, to.nbytes)],
        )

    def _put(
        self,
        stream: int,
        work: Callable[[], Any],
        reads: Sequence[tuple[int, int]],
        writes: Sequence[tuple[int, int]],
    ) -> None:
        """Puts work into a stream, checking whether it may touch the memory that it touches."""
        on = self._streams[stream]
        held = [(self._memory(pointer), pointer, nbytes) for pointer, nbytes in reads]
        with self._world.locked():
            on.number += 1
            changed = [self._memory(pointer) for pointer, _ in writes]
            for memory, pointer, nbytes in held:
                self._check_read(on, memory, pointer, nbytes)
                memory.reading(pointer, nbytes, on.lane, 1)
            for memory, (pointer, nbytes) in zip(changed, writes, strict=True):
                self._check_write(on, memory, pointer, nbytes)
                memory.written(pointer, nbytes, on.identity, on.number)

        def do() -> None:
            on.slow()
            work()
            changed.clear()  # held until here: memory that is freed meanwhile stays mapped
            with self._world.locked():
                for memory, pointer, nbytes in held:
                    memory.reading(pointer, nbytes, on.lane, -1)

        on.put(do)

    def _check_read(self, on: Stream, memory: Memory, pointer: int, nbytes: int) -> None:
        for writer, number in memory.writers(pointer, nbytes).items():
            if writer != on.identity and on.knows.get(writer, 0) < number:
                self._world.violation(
                    f"stream {on.identity} reads what stream {writer} writes, and has not waited "
                    "for an event recorded after that"
                )

    def _check_write(self, on: Stream, memory: Memory, pointer: int, nbytes: int) -> None:
        others = [lane for lane in memory.readers(pointer, nbytes) if lane != on.lane]
        if not others:
            return
        with self._world.ledger() as ledger:
            for lane in others:
                pid = ledger["lanes"].get(str(lane))
                if pid is not None and alive(pid):
                    self._world.violation(
                        f"stream {on.identity} writes what process {pid} has not done reading"
                    )

    def _is_pinned(self, pointer: int, nbytes: int) -> bool:
        pinned = tuple(self._pinned.items())
        return any(start <= pointer and pointer + nbytes <= start + size for start, size in pinned)

    def _memory(self, pointer: int) -> Memory:
        for memory in self._memories.values():
            if memory.pointer <= pointer < memory.pointer + memory.nbytes:
                return memory
        raise DeviceError(f"gpu {self.ordinal}: cudaErrorIllegalAddress: {pointer:#x}")

    def _index(self, event: int) -> int:
        return self._opened_events.get(event, event)

    def _taken(self, ledger: dict[str, Any]) -> int:
        entries = ledger["memory"].values()
        return sum(e["bytes"] for e in entries if e["device"] == self.ordinal)

    def __repr__(self) -> str:
        return f"<SimulatedDevice {self.ordinal} in {self._folder}>"


class _Freeing:
    """Memory that is freed with the last view of it, when the stream has done with it."""

    def __init__(self, device: SimulatedDevice, pointer: int) -> None:
        self._device = device
        self._pointer = pointer
        self._stream = device.stream()

    def __del__(self) -> None:
        self._device.stream_synchronize(self._stream)
        self._device.free(self._pointer)
