"""The simulated GPU notices what a real one punishes: every test here does something wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from streamer.errors import DeviceError
from streamer.gpu import simulated
from streamer.gpu.device import GRANULE, Copy
from streamer.gpu.simulated import SimulatedDevice

SIZE = 10_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return simulated.make(tmp_path / "gpu", delay=0.05)


@pytest.fixture
def device(folder: Path) -> SimulatedDevice:
    return SimulatedDevice(folder, 0)


def host_copy(device: SimulatedDevice, pointer: int, stream: int) -> np.ndarray:
    found = np.zeros(SIZE, np.uint8)
    to = found.__array_interface__["data"][0]
    device.memcpy_async(to, pointer, SIZE, Copy.TO_HOST, stream)
    device.stream_synchronize(stream)
    return found


def test_work_is_done_later_and_in_order(device: SimulatedDevice, folder: Path) -> None:
    pointer, stream, event = device.malloc(SIZE), device.stream_create(), device.event_create()
    assert device.event_query(event)  # it stands for nothing yet
    device.memset_async(pointer, 1, SIZE, stream)
    device.memset_async(pointer, 7, SIZE, stream)
    device.event_record(event, stream)
    assert not device.event_query(event)
    device.event_synchronize(event)
    assert device.event_query(event)
    assert (host_copy(device, pointer, stream) == 7).all()
    assert simulated.violations(folder) == []


def test_a_wait_orders_two_streams_and_its_lack_is_seen(
    device: SimulatedDevice, folder: Path
) -> None:
    pointer, event = device.malloc(SIZE), device.event_create()
    writer, reader = device.stream_create(), device.stream_create()
    for value in (1, 2, 3, 7):
        device.memset_async(pointer, value, SIZE, writer)
    assert not (host_copy(device, pointer, reader) == 7).any()  # the pixels are wrong, too
    (said,) = simulated.violations(folder)
    assert "has not waited for an event recorded after that" in said
    device.stream_synchronize(writer)
    device.memset_async(pointer, 8, SIZE, writer)
    device.event_record(event, writer)
    device.stream_wait_event(reader, event)
    assert (host_copy(device, pointer, reader) == 8).all()
    assert len(simulated.violations(folder)) == 1


def test_a_write_after_the_record_is_seen_by_the_reader(
    device: SimulatedDevice, folder: Path
) -> None:
    pointer, event = device.malloc(SIZE), device.event_create()
    writer, reader = device.stream_create(), device.stream_create()
    device.event_record(event, writer)
    device.memset_async(pointer, 7, SIZE, writer)
    device.stream_wait_event(reader, event)
    host_copy(device, pointer, reader)
    assert "has not waited" in simulated.violations(folder)[0]


def test_a_write_before_a_reader_is_done_is_seen(device: SimulatedDevice, folder: Path) -> None:
    pointer, event = device.malloc(SIZE), device.event_create()
    writer, reader = device.stream_create(), device.stream_create()
    device.memset_async(pointer, 7, SIZE, writer)
    device.event_record(event, writer)
    device.stream_wait_event(reader, event)
    found = np.zeros(SIZE, np.uint8)
    to = found.__array_interface__["data"][0]
    device.memcpy_async(to, pointer, SIZE, Copy.TO_HOST, reader)
    device.memset_async(pointer, 8, SIZE, writer)
    assert "has not done reading" in simulated.violations(folder)[0]
    device.stream_synchronize(reader)
    device.memset_async(pointer, 9, SIZE, writer)
    assert len(simulated.violations(folder)) == 1


OTHER = """
import json, sys
from streamer.errors import DeviceError
from streamer.gpu.simulated import SimulatedDevice
device = SimulatedDevice(sys.argv[1], 0)
handle = bytes.fromhex(sys.argv[2])
first = device.ipc_open_mem_handle(handle)
if sys.argv[3] == "twice":
    device.ipc_open_mem_handle(handle)
print("open", flush=True)
sys.stdin.readline()
device.ipc_close_mem_handle(first)
print("closed", flush=True)
sys.stdin.readline()
"""


class Other:
    """A second process that opens a handle."""

    def __init__(self, folder: Path, handle: bytes, how: str = "once") -> None:
        words = [sys.executable, "-c", OTHER, str(folder), handle.hex(), how]
        self.process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "open\n"

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "closed\n"

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


def test_freeing_what_another_process_has_open_is_seen(
    device: SimulatedDevice, folder: Path
) -> None:
    for closes, wrong in ((True, 0), (False, 1)):
        pointer = device.malloc(GRANULE)
        other = Other(folder, device.ipc_get_mem_handle(pointer))
        if closes:
            other.close()
        device.free(pointer)
        other.end()
        assert len(simulated.violations(folder)) == wrong
    assert "while another process has it open" in simulated.violations(folder)[0]


def test_what_a_dead_process_had_open_and_had_is_given_back(
    device: SimulatedDevice, folder: Path
) -> None:
    pointer = device.malloc(GRANULE)
    other = Other(folder, device.ipc_get_mem_handle(pointer))
    other.end()
    device.free(pointer)
    assert simulated.violations(folder) == []
    words = f"from streamer.gpu.simulated import SimulatedDevice as D; D({str(folder)!r}, 0)"
    subprocess.run([sys.executable, "-c", f"{words}.malloc({GRANULE})"], check=True)
    assert simulated.used(folder) == 0


def test_opening_twice_or_at_home_is_seen(device: SimulatedDevice, folder: Path) -> None:
    pointer = device.malloc(GRANULE)
    handle = device.ipc_get_mem_handle(pointer)
    Other(folder, handle, "twice").end()
    assert "opened a second time" in simulated.violations(folder)[0]
    with pytest.raises(DeviceError, match="invalid device context"):
        device.ipc_open_mem_handle(handle)
    assert "in the process that exported it" in simulated.violations(folder)[1]


def test_new_memory_may_get_the_handle_of_freed_memory(device: SimulatedDevice) -> None:
    first = device.malloc(GRANULE)
    handle = device.ipc_get_mem_handle(first)
    device.free(first)
    assert device.ipc_get_mem_handle(device.malloc(GRANULE)) == handle


def test_memory_is_finite_and_drivers_may_refuse(device: SimulatedDevice, folder: Path) -> None:
    simulated.change(folder, memory=3 * GRANULE, ipc=False)
    pointer = device.malloc(2 * GRANULE)
    with pytest.raises(DeviceError, match="out of memory") as caught:
        device.malloc(2 * GRANULE)
    assert caught.value.out_of_memory
    assert device.memory() == (GRANULE, 3 * GRANULE)
    with pytest.raises(DeviceError, match="not supported"):
        device.ipc_get_mem_handle(pointer)
    assert device.ipc_refusal()
    for handle in (b"", bytes(64), b"MEM " + bytes(60)):
        with pytest.raises(DeviceError, match="invalid argument"):
            device.ipc_open_mem_handle(handle)


def test_a_device_is_named_the_same_in_every_process(device: SimulatedDevice, folder: Path) -> None:
    script = (
        "import json; from streamer.gpu.simulated import SimulatedDevice as D; "
        f"print(json.dumps(D({str(folder)!r}, 0).uuid))"
    )
    said = json.loads(subprocess.check_output([sys.executable, "-c", script]))
    assert said == device.uuid
    with pytest.raises(DeviceError, match="there is no gpu 1: 1 are simulated"):
        SimulatedDevice(folder, 1)
