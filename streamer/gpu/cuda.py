"""NVIDIA GPUs, by CuPy's bindings of the CUDA runtime."""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from streamer.errors import DeviceError
from streamer.gpu import meter
from streamer.gpu.device import Copy

# Numbers of driver_types.h that CuPy does not name.
_OUT_OF_MEMORY: Final = 2
_NOT_READY: Final = 600
_IPC_EVENTS: Final = 125  # cudaDevAttrIpcEventSupport
_INTEGRATED: Final = 18  # cudaDevAttrIntegrated
_PORTABLE: Final = 1  # cudaHostRegisterPortable
# Errors after which every call of the process fails: illegal addresses, failed launches, faults of
# the hardware. Another process is not concerned.
_LOST: Final = frozenset({214, 700, 702, 709, *range(710, 720), 999})

# Streams of threads, which are never destroyed: torch's allocator, and whoever has painted on one,
# name it long after its thread has ended, and drivers crash on one that is gone. Torch keeps its
# own for ever, too.
_streams: Final[list[Any]] = []


class CudaDevice:
    """See `streamer.gpu.device.Device`.

    Args:
        ordinal: of the device among those that this process sees.

    Raises:
        DeviceError: CuPy is missing or does not work, or there is no such device.
    """

    def __init__(self, ordinal: int) -> None:
        try:
            import cupy
        except ImportError as error:
            raise DeviceError(
                f"gpu {ordinal} cannot be used for frames: {_why_not(error)}; "
                "pip install 'sdxs-streamer[cuda13]' (or [cuda12])"
            ) from error
        self._cupy = cupy
        self._runtime = cupy.cuda.runtime
        self._threads = threading.local()
        self.ordinal = ordinal
        self.calls: Counter[str] = Counter()
        self.copied: Counter[Copy] = Counter()
        count = self._call("getDeviceCount")
        if ordinal >= count:
            raise DeviceError(f"there is no gpu {ordinal}: CUDA sees {count}, numbered from 0")
        properties = self._call("getDeviceProperties", ordinal)
        self.name = properties["name"].decode(errors="replace")
        self.uuid = _uuid(properties["uuid"])

    def ipc_refusal(self) -> str:
        """See `Device`."""
        if not sys.platform.startswith("linux"):
            return "CUDA shares memory between processes on Linux only"
        if self._call("deviceGetAttribute", _INTEGRATED, self.ordinal):
            return f"{self.name} shares its memory with the CPU, and CUDA does not export that"
        if not self._call("deviceGetAttribute", _IPC_EVENTS, self.ordinal):
            return f"the driver of {self.name} has no events between processes"
        return ""

    def memory(self) -> tuple[int, int]:
        """See `Device`."""
        self._here()
        free, total = self._call("memGetInfo")
        return free, total

    def malloc(self, nbytes: int) -> int:
        """See `Device`."""
        self._here()
        return int(self._call("malloc", nbytes))

    def free(self, pointer: int) -> None:
        """See `Device`."""
        self._here()
        self._call("free", pointer)

    def ipc_get_mem_handle(self, pointer: int) -> bytes:
        """See `Device`."""
        self._here()
        return bytes(self._call("ipcGetMemHandle", pointer))

    def ipc_open_mem_handle(self, handle: bytes) -> int:
        """See `Device`."""
        self._here()
        return int(self._call("ipcOpenMemHandle", handle))

    def ipc_close_mem_handle(self, pointer: int) -> None:
        """See `Device`."""
        self._here()
        self._call("ipcCloseMemHandle", pointer)

    def stream(self) -> int:
        """See `Device`."""
        self._here()  # CuPy refuses to make a stream of another device current
        mine = getattr(self._threads, "stream", None)
        if mine is None:
            self.calls["streamCreate"] += 1
            mine = self._cupy.cuda.Stream(non_blocking=True)
            self._threads.stream = mine
            _streams.append(mine)
        # Whoever made another one current has ended that by now, or is told the right one.
        mine.use()
        torch = _torch()
        if torch is not None and torch.cuda.is_available():
            external = getattr(self._threads, "torch_stream", None)
            if external is None:
                external = torch.cuda.ExternalStream(mine.ptr, device=self.ordinal)
                # Where torch was imported after this thread had its stream, it has worked on its
                # own: weights that were brought to the device, say.
                external.wait_stream(torch.cuda.default_stream(self.ordinal))
                self._threads.torch_stream = external
            torch.cuda.set_stream(external)
        return int(mine.ptr)

    def stream_create(self) -> int:
        """See `Device`."""
        self._here()
        return int(self._call("streamCreateWithFlags", self._runtime.streamNonBlocking))

    def stream_destroy(self, stream: int) -> None:
        """See `Device`."""
        self._here()
        self._call("streamDestroy", stream)

    def stream_wait_event(self, stream: int, event: int) -> None:
        """See `Device`."""
        self._here()
        self._call("streamWaitEvent", stream, event)

    def stream_synchronize(self, stream: int) -> None:
        """See `Device`."""
        self._here()
        self._call("streamSynchronize", stream)

    def event_create(self, *, interprocess: bool = False) -> int:
        """See `Device`."""
        self._here()
        flags = self._runtime.eventDisableTiming | self._runtime.eventBlockingSync
        if interprocess:
            flags |= self._runtime.eventInterprocess
        return int(self._call("eventCreateWithFlags", flags))

    def event_destroy(self, event: int) -> None:
        """See `Device`."""
        self._here()
        self._call("eventDestroy", event)

    def event_record(self, event: int, stream: int) -> None:
        """See `Device`."""
        self._here()
        self._call("eventRecord", event, stream)

    def event_query(self, event: int) -> bool:
        """See `Device`."""
        self._here()
        # The one call that CuPy does not check: it returns the status, of any error as well.
        status: int = self._call("eventQuery", event)
        if status not in (0, _NOT_READY):
            raise self._refused("eventQuery", self._runtime.CUDARuntimeError(status))
        return status == 0

    def event_synchronize(self, event: int) -> None:
        """See `Device`."""
        self._here()
        self._call("eventSynchronize", event)

    def ipc_get_event_handle(self, event: int) -> bytes:
        """See `Device`."""
        self._here()
        return bytes(self._call("ipcGetEventHandle", event))

    def ipc_open_event_handle(self, handle: bytes) -> int:
        """See `Device`."""
        self._here()
        return int(self._call("ipcOpenEventHandle", handle))

    def memcpy_async(self, to: int, source: int, nbytes: int, kind: Copy, stream: int) -> None:
        """See `Device`."""
        self._here()
        self._call("memcpyAsync", to, source, nbytes, int(kind), stream)
        self.copied[kind] += nbytes
        meter.count(kind, nbytes)

    def memset_async(self, pointer: int, value: int, nbytes: int, stream: int) -> None:
        """See `Device`."""
        self._here()
        self._call("memsetAsync", pointer, value, nbytes, stream)

    def host_register(self, pointer: int, nbytes: int) -> None:
        """See `Device`."""
        self._here()
        self._call("hostRegister", pointer, nbytes, _PORTABLE)

    def host_unregister(self, pointer: int) -> None:
        """See `Device`."""
        self._here()
        self._call("hostUnregister", pointer)

    def array(self, pointer: int, shape: tuple[int, ...], *, owner: object) -> Any:
        """See `Device`."""
        cuda = self._cupy.cuda
        nbytes = 1
        for side in shape:
            nbytes *= side
        memory = cuda.UnownedMemory(pointer, nbytes, owner, self.ordinal)
        return self._cupy.ndarray(
            shape, dtype=self._cupy.uint8, memptr=cuda.MemoryPointer(memory, 0)
        )

    def tensor(self, array: Any) -> Any:
        """See `Device`."""
        import torch

        if not torch.cuda.is_available():
            raise DeviceError(
                "a frame on a GPU cannot become a tensor: this torch is built for the CPU; "
                "install torch for CUDA, see pytorch.org/get-started"
            )
        self.stream()
        convert: Any = torch.from_dlpack  # type: ignore[attr-defined]
        return convert(array)

    def empty(self, shape: tuple[int, ...]) -> Any:
        """See `Device`."""
        # CuPy's pool keeps memory by the stream that is current when it is taken. Of a stream that
        # threads share, the default one, it would be given to another thread while this one's
        # kernels still use it.
        self.stream()
        try:
            return self._cupy.empty(shape, dtype=self._cupy.uint8)
        except self._cupy.cuda.memory.OutOfMemoryError as error:
            raise DeviceError(f"gpu {self.ordinal}: {error}", out_of_memory=True) from error
        except self._runtime.CUDARuntimeError as error:
            raise self._refused("malloc", error) from error

    def pointer_of(self, array: Any, shape: tuple[int, ...]) -> int | None:
        """See `Device`."""
        about = getattr(array, "__cuda_array_interface__", None)
        if about is None:
            return None
        if about["typestr"] != "|u1" or tuple(about["shape"]) != shape:
            raise ValueError(f"an array of {about['typestr']} and shape {about['shape']}")
        if about.get("strides") is not None and not _contiguous(about["strides"], shape):
            raise ValueError("the array is not contiguous")
        pointer: int = about["data"][0]
        return pointer

    def _here(self) -> None:
        """Makes the device current in this thread, as calls that name no device need it."""
        self._call("setDevice", self.ordinal)

    def _call(self, name: str, *args: Any) -> Any:
        self.calls[name] += 1
        function: Callable[..., Any] = getattr(self._runtime, name)
        try:
            return function(*args)
        except self._runtime.CUDARuntimeError as error:
            raise self._refused(name, error) from error

    def _refused(self, name: str, error: Any) -> DeviceError:
        return DeviceError(
            f"gpu {self.ordinal}: {name}: {str(error).splitlines()[0]}",
            out_of_memory=error.status == _OUT_OF_MEMORY,
            lost=error.status in _LOST,
        )

    def __repr__(self) -> str:
        return f"<CudaDevice {self.ordinal} {self.name} {self.uuid}>"


def _torch() -> Any:
    """torch, if it has been imported; None also while another thread is about it: half is there."""
    torch = sys.modules.get("torch")
    about = getattr(torch, "__spec__", None)
    return None if getattr(about, "_initializing", False) else torch


def _why_not(error: ImportError) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name == "cupy":
        return "CuPy is not installed"
    # CuPy's own message is a page of advice; the reason is the error behind it.
    reason = str(error.__cause__ or error).strip().splitlines() or [type(error).__name__]
    return f"CuPy is installed and cannot be imported ({reason[-1]})"


def _uuid(data: bytes) -> str:
    # CuPy hands out the bytes up to the first zero among them, and what follows them if there is
    # none. What is lost is lost in every process alike, so that it names the device all the same.
    text = bytes(data)[:16].ljust(16, b"\0").hex()
    parts = (text[:8], text[8:12], text[12:16], text[16:20], text[20:])
    return "GPU-" + "-".join(parts)


def _contiguous(strides: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    expected = 1
    for stride, side in zip(reversed(strides), reversed(shape), strict=True):
        if side != 1 and stride != expected:
            return False
        expected *= side
    return True
