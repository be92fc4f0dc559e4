"""What CuPy tells as a status or as an error of its own, told as a `DeviceError`.

CuPy's runtime answers from a script here, since it needs a driver; the calls themselves are held to
a real one by the tests of links (`-m gpu`).
"""

from __future__ import annotations

import gc
import importlib
import sys
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from streamer.errors import DeviceError
from streamer.gpu.cuda import CudaDevice

UUID = bytes(range(1, 17))


class RefusalError(RuntimeError):
    """As `cupy.cuda.runtime.CUDARuntimeError`, which is made of a status."""

    def __init__(self, status: int) -> None:
        self.status = status
        super().__init__(f"cudaErrorNumber{status}: it went wrong\nand more of it")


class PoolIsEmptyError(MemoryError):
    """As `cupy.cuda.memory.OutOfMemoryError`."""


class Cupy(ModuleType):
    """As much of CuPy as a device calls before it has any memory."""

    def __init__(self) -> None:
        super().__init__("cupy")
        self.uuid, self.current, self.status = UUID, -1, 0
        self.made_on: list[Any] = []
        self.uint8 = "uint8"
        self.raises: Exception | None = None
        self.cuda = SimpleNamespace(
            runtime=SimpleNamespace(
                CUDARuntimeError=RefusalError,
                getDeviceCount=lambda: 2,
                getDeviceProperties=lambda ordinal: {"name": b"H200", "uuid": self.uuid},
                setDevice=lambda ordinal: setattr(self, "current", ordinal),
                eventQuery=lambda event: self.status,
                eventSynchronize=lambda event: self.seen_on("eventSynchronize"),
                eventRecord=lambda event, stream: self.seen_on("eventRecord"),
            ),
            memory=SimpleNamespace(OutOfMemoryError=PoolIsEmptyError),
            Stream=lambda **_: SimpleNamespace(ptr=77, use=lambda: self.seen_on("use")),
        )

    def seen_on(self, call: str) -> None:
        self.made_on.append((call, self.current))

    def empty(self, shape: tuple[int, ...], dtype: str) -> str:
        if self.raises is not None:
            raise self.raises
        self.seen_on("empty")
        return f"{dtype} {shape}"


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> Cupy:
    made = Cupy()
    monkeypatch.setitem(sys.modules, "cupy", made)
    return made


def test_an_event_is_done_or_not_and_a_broken_device_is_an_error(cupy: Cupy) -> None:
    device = CudaDevice(0)
    assert device.event_query(5)
    cupy.status = 600  # cudaErrorNotReady
    assert not device.event_query(5)
    cupy.status = 700  # cudaErrorIllegalAddress, which would else be waited for
    with pytest.raises(DeviceError) as caught:
        device.event_query(5)
    assert str(caught.value) == "gpu 0: eventQuery: cudaErrorNumber700: it went wrong"
    assert not caught.value.out_of_memory


def test_arrays_are_of_the_stream_that_their_work_is_on(cupy: Cupy) -> None:
    """CuPy's pool gives memory again in the order of the stream that was current."""
    assert CudaDevice(1).empty((2, 3)) == "uint8 (2, 3)"
    assert cupy.made_on == [("use", 1), ("empty", 1)]


@pytest.mark.parametrize(
    "raised", [PoolIsEmptyError("Out of memory allocating 6 bytes"), RefusalError(2)], ids=repr
)
def test_a_pool_without_memory_is_one_error_with_the_others(cupy: Cupy, raised: Any) -> None:
    cupy.raises = raised
    with pytest.raises(DeviceError, match=r"^gpu 0: ") as caught:
        CudaDevice(0).empty((2, 3))
    assert caught.value.out_of_memory
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "call",
    [lambda device: device.event_synchronize(5), lambda device: device.event_record(5, 6)],
    ids=["wait", "record"],
)
def test_a_new_thread_makes_the_device_its_own(cupy: Cupy, call: Callable[[Any], None]) -> None:
    """Else its first call would make a context on the first GPU, of some hundred megabytes."""
    device = CudaDevice(1)
    cupy.current = 0
    call(device)
    assert [ordinal for _, ordinal in cupy.made_on] == [1]


def test_a_stream_is_current_again_after_work_on_another_device(cupy: Cupy) -> None:
    device = CudaDevice(1)
    device.stream()
    cupy.current = 0
    assert device.stream() == 77
    assert cupy.made_on == [("use", 1), ("use", 1)]


def test_a_torch_that_another_thread_is_importing_is_left_alone(
    cupy: Cupy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A model is loaded beside pictures that pass: what torch has by then is a part of it."""
    begun, goes_on, asked = threading.Event(), threading.Event(), list[int]()
    monkeypatch.setattr(sys, "_seen_by_test", (begun, goes_on, asked), raising=False)
    lines = ["import sys", "begun, goes_on, asked = sys._seen_by_test"]
    lines += ["begun.set()", "goes_on.wait(60)"]
    lines += ["class cuda:", "    is_available = lambda: asked.append(1)"]
    (tmp_path / "torch.py").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(sys.modules, "torch", None)  # whatever is there is there again afterwards
    del sys.modules["torch"]
    device = CudaDevice(0)
    loading = threading.Thread(target=lambda: importlib.import_module("torch"))
    loading.start()
    try:
        assert begun.wait(60)
        assert "torch" in sys.modules
        assert device.stream() == 77
        assert not asked
    finally:
        goes_on.set()
        loading.join()
    device.stream()
    assert asked


def test_a_stream_outlives_its_thread_and_its_device(cupy: Cupy) -> None:
    """Others know it by its number, torch's allocator for one, and use it when they let go."""

    class Stream:
        ptr = 77

        def use(self) -> None:
            pass

    made: list[weakref.ref[Stream]] = []

    def make(**_: Any) -> Stream:
        stream = Stream()
        made.append(weakref.ref(stream))
        return stream

    cupy.cuda.Stream = make
    thread = threading.Thread(target=CudaDevice(0).stream)
    thread.start()
    thread.join()
    gc.collect()
    assert [stream() is not None for stream in made] == [True]


@pytest.mark.parametrize("short", [UUID, UUID[:5], b"", UUID + b"luid"], ids=len)
def test_a_uuid_with_a_zero_in_it_is_a_uuid(cupy: Cupy, short: bytes) -> None:
    cupy.uuid = short
    device = CudaDevice(0)
    assert [len(part) for part in device.uuid.split("-")] == [3, 8, 4, 4, 4, 12]
    if len(short) >= 16:
        assert device.uuid == "GPU-01020304-0506-0708-090a-0b0c0d0e0f10"


def test_a_cupy_that_is_missing_is_told_from_one_that_does_not_work(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    with pytest.raises(DeviceError) as caught:
        CudaDevice(0)
    assert str(caught.value) == (
        "gpu 0 cannot be used for frames: CuPy is not installed; "
        "pip install 'sdxs-streamer[cuda13]' (or [cuda12])"
    )
    (tmp_path / "cupy.py").write_text("import cuda_that_is_not_there")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(DeviceError) as caught:
        CudaDevice(0)
    assert str(caught.value) == (
        "gpu 0 cannot be used for frames: CuPy is installed and cannot be imported "
        "(No module named 'cuda_that_is_not_there'); "
        "pip install 'sdxs-streamer[cuda13]' (or [cuda12])"
    )
