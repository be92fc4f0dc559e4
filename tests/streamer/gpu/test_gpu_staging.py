"""Pinned buffers in turn, and whose copies are counted."""

from __future__ import annotations

import gc
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from streamer import gpu
from streamer.errors import DeviceError
from streamer.gpu import meter, simulated
from streamer.gpu.device import Copy, Device
from streamer.gpu.staging import Staging


@pytest.fixture(params=["simulated", pytest.param("real", marks=pytest.mark.gpu)])
def device(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Device]:
    monkeypatch.setattr(gpu, "_devices", {})
    if request.param == "real":
        monkeypatch.delenv(gpu.SIMULATED, raising=False)
        try:
            yield gpu.device(0)
        except DeviceError as error:
            pytest.skip(f"needs an NVIDIA GPU with CuPy: {error}")
        return
    folder = simulated.make(tmp_path / "gpu", delay=0.002)
    monkeypatch.setenv(gpu.SIMULATED, str(folder))
    yield gpu.device(0)
    gc.collect()
    assert simulated.violations(folder) == []


def test_a_buffer_is_not_given_again_before_its_copy_has_passed(device: Device) -> None:
    staging, stream, size = Staging(device), device.stream(), 100_000
    slots = [device.malloc(size) for _ in range(9)]
    for number, slot in enumerate(slots):
        buffer = staging.take(size)
        buffer.array(size)[:] = number
        buffer.upload(slot, size, stream)
    for number, slot in enumerate(slots):
        buffer = staging.take(size)
        buffer.download(slot, size, stream)
        buffer.wait()
        assert (buffer.array(size) == number).all()
    assert device.calls["hostRegister"] <= 3
    staging.close()
    assert device.calls["hostRegister"] == device.calls["hostUnregister"]
    for slot in slots:
        device.free(slot)


def test_larger_pictures_get_larger_buffers(device: Device) -> None:
    staging, stream = Staging(device), device.stream()
    slot = device.malloc(5000)
    for size in (1000, 5000, 200):
        buffer = staging.take(size)
        buffer.array(size)[:] = size % 251
        buffer.upload(slot, size, stream)
        back = staging.take(size)
        back.download(slot, size, stream)
        back.wait()
        assert (back.array(size) == size % 251).all()
    staging.close()
    assert device.calls["hostRegister"] == device.calls["hostUnregister"]
    device.free(slot)


def test_pinned_memory_that_is_written_too_early_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The simulated GPU reads pinned memory when its stream comes to it, as a real one does."""
    device = simulated.SimulatedDevice(simulated.make(tmp_path / "gpu", delay=0.05), 0)
    stream, slot = device.stream(), device.malloc(4096)
    source = np.full(4096, 1, np.uint8)
    at = source.__array_interface__["data"][0]
    device.memcpy_async(slot, at, 4096, Copy.TO_DEVICE, stream)
    source[:] = 2  # of pageable memory the copy is made by now
    back = device.array(slot, (4096,), owner=None)
    assert (back.get() == 1).all()
    device.host_register(at, 4096)
    device.memcpy_async(slot, at, 4096, Copy.TO_DEVICE, stream)
    source[:] = 3
    assert (back.get() == 3).all()
    device.host_unregister(at)
    device.free(slot)


def test_copies_count_for_the_thread_that_asks_for_them(device: Device) -> None:
    counts: Counter[tuple[str, Copy]] = Counter()
    slot, host = device.malloc(4096), np.zeros(4096, np.uint8)
    at = host.__array_interface__["data"][0]

    def copy(name: str, nbytes: int) -> None:
        def add(kind: Copy) -> None:
            meters[kind] = lambda n: counts.update({(name, kind): n})

        meters: dict[Copy, object] = {}
        add(Copy.TO_DEVICE)
        add(Copy.TO_HOST)
        meter.use(meters)  # type: ignore[arg-type]
        stream = device.stream()
        for kind in (Copy.TO_DEVICE, Copy.TO_DEVICE, Copy.TO_HOST, Copy.ON_DEVICE):
            to, source = (at, slot) if kind is Copy.TO_HOST else (slot, at)
            source = slot if kind is Copy.ON_DEVICE else source
            device.memcpy_async(to, source, nbytes, kind, stream)
            device.stream_synchronize(stream)

    before = Counter(device.copied)
    for name, nbytes in (("one", 100), ("two", 7)):
        thread = threading.Thread(target=copy, args=(name, nbytes))
        thread.start()
        thread.join()
    assert counts == {
        ("one", Copy.TO_DEVICE): 200, ("one", Copy.TO_HOST): 100,
        ("two", Copy.TO_DEVICE): 14, ("two", Copy.TO_HOST): 7,
    }  # fmt: skip
    assert device.copied - before == {
        Copy.TO_DEVICE: 214, Copy.TO_HOST: 107, Copy.ON_DEVICE: 107,
    }  # fmt: skip
    device.free(slot)
