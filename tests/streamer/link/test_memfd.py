"""Shared memory between real processes: who may write, what survives, what is refused."""

from __future__ import annotations

import contextlib
import fcntl
import gc
import json
import mmap
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from streamer.errors import SlabError
from streamer.link import slab as slabs
from streamer.link.memfd import MemfdSlab

PRODUCER = """
import json, sys
import numpy as np
from streamer.link.memfd import MemfdSlab
slab = MemfdSlab(4, 10_000)
for index in range(4):
    np.frombuffer(slab.slot(index), np.uint8)[:] = index + 1
print(json.dumps(slab.ticket()), flush=True)
for line in sys.stdin:
    index, value = map(int, line.split())
    if index < 0:
        slab.close()
    else:
        np.frombuffer(slab.slot(index), np.uint8)[:] = value
    print("done", flush=True)
"""


class Producer:
    """A process with a slab of its own."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PRODUCER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.ticket: dict[str, Any] = json.loads(self.process.stdout.readline())

    def write(self, index: int, value: int) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{index} {value}\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "done\n"

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def close(self) -> None:
        self.kill()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()


@pytest.fixture
def producer() -> Iterator[Producer]:
    made = Producer()
    yield made
    made.close()


def mappings() -> int:
    with open("/proc/self/maps") as file:
        return sum("streamer-slab" in line for line in file)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_a_consumer_sees_what_the_producer_writes(producer: Producer) -> None:
    attached = slabs.attach("memfd", producer.ticket)
    views = [np.frombuffer(attached.slot(index), np.uint8) for index in range(4)]
    assert [set(view.tolist()) for view in views] == [{1}, {2}, {3}, {4}]
    producer.write(2, 99)
    assert set(views[2].tolist()) == {99}
    assert set(views[3].tolist()) == {4}
    assert all(len(view) == 10_000 for view in views)


def test_a_consumer_may_only_read(producer: Producer) -> None:
    view = slabs.attach("memfd", producer.ticket).slot(0)
    assert view.readonly
    with pytest.raises(TypeError):
        view[0] = 1
    array = np.frombuffer(view, np.uint8)
    with pytest.raises(ValueError, match="WRITEABLE"):
        array.setflags(write=True)


def test_a_consumer_in_the_same_process_may_only_read_the_same_array() -> None:
    slab = MemfdSlab(2, 100)
    before = mappings()
    attached = slabs.attach("memfd", slab.ticket())
    assert mappings() == before
    slab.slot(1)[:] = b"x" * 100
    assert bytes(attached.slot(1)) == b"x" * 100
    assert attached.slot(1).readonly
    slab.close()
    with pytest.raises(SlabError, match="closed"):
        slabs.attach("memfd", slab.ticket())


def test_pictures_outlive_their_producer(producer: Producer) -> None:
    attached = slabs.attach("memfd", producer.ticket)
    view = np.frombuffer(attached.slot(3), np.uint8)
    producer.kill()
    attached.close()
    assert set(view.tolist()) == {4}
    assert not slabs.owner_lives(producer.ticket)
    with pytest.raises(SlabError, match="cannot be reached"):
        slabs.attach("memfd", producer.ticket)


def test_the_size_is_sealed() -> None:
    slab = MemfdSlab(2, 5000)
    fd = slab.ticket()["fd"]
    assert isinstance(fd, int)
    size = os.fstat(fd).st_size
    assert size == 2 * 8192
    for wanted in (size - 1, size + 1, 0):
        with pytest.raises(PermissionError):
            os.ftruncate(fd, wanted)
    with pytest.raises(PermissionError):
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
    slab.close()


def test_the_alive_are_told_from_the_dead() -> None:
    assert slabs.owner_lives({"pid": os.getpid()})
    assert slabs.owner_lives({"pid": "nonsense"})  # then its death explains nothing
    assert slabs.owner_lives({})
    child = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not slabs.owner_lives({"pid": child.pid})  # dead, and nobody has waited for it
    child.wait()
    assert not slabs.owner_lives({"pid": child.pid})


LARGE = """
import mmap, os
fd = os.memfd_create("large")
os.ftruncate(fd, 1 << 29)
mmap.mmap(fd, 1 << 29, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE).close()
print(fd, flush=True)
input()
"""


def test_a_process_whose_memory_is_just_being_freed_is_dead() -> None:
    # Its descriptors are gone then, while its state is still that of a living process.
    with subprocess.Popen(
        [sys.executable, "-c", LARGE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        fd = int(child.stdout.readline())
        assert slabs.owner_lives({"pid": child.pid})
        child.kill()
        with contextlib.suppress(FileNotFoundError):
            while True:
                os.close(os.open(f"/proc/{child.pid}/fd/{fd}", os.O_RDONLY))
        assert not slabs.owner_lives({"pid": child.pid})


@pytest.mark.parametrize(
    "changes",
    [
        {"inode": 1},
        {"fd": 0},
        {"fd": 99_999},
        {"pid": 2**40},
        {"pid": 1},
        {"slots": 5},
        {"slots": 3},
        {"stride": 4096},
        {"stride": 2**60, "slot_bytes": 2**59},
        {"slots": 2**60},
        {"slot_bytes": 20_000},
        {"slot_bytes": 0},
        {"slots": -1},
        {"slots": 1.0},
        {"slots": "4"},
        {"pid": True},
        {"inode": b"\0"},
    ],
)
def test_a_wrong_ticket_is_refused(producer: Producer, changes: dict[str, Any]) -> None:
    before, mapped = descriptors(), mappings()
    with pytest.raises(SlabError):
        slabs.attach("memfd", {**producer.ticket, **changes})
    assert (descriptors(), mappings()) == (before, mapped)


def test_an_incomplete_ticket_is_refused(producer: Producer) -> None:
    for key in producer.ticket:
        ticket = {name: value for name, value in producer.ticket.items() if name != key}
        with pytest.raises(SlabError, match=f"has no '{key}'"):
            slabs.attach("memfd", ticket)


def test_a_descriptor_used_for_something_else_is_refused(producer: Producer) -> None:
    # Its owner has closed the slab, and the number may since mean any file.
    producer.write(-1, 0)
    with pytest.raises(SlabError):
        slabs.attach("memfd", producer.ticket)


def test_files_that_are_no_slab_are_refused() -> None:
    # Read by a process of its own: within one process a ticket is looked up, not opened.
    attach = (
        "import json, sys\n"
        "from streamer.errors import SlabError\n"
        "from streamer.link import slab\n"
        "try:\n"
        "    slab.attach('memfd', json.loads(sys.argv[1]))\n"
        "except SlabError as error:\n"
        "    print('refused:', error)\n"
    )
    reading, writing = os.pipe()
    with tempfile.TemporaryFile() as plain:
        plain.write(bytes(8192))
        plain.flush()
        unsealed = os.memfd_create("streamer-slab", os.MFD_ALLOW_SEALING)
        os.ftruncate(unsealed, 8192)
        for fd in (plain.fileno(), unsealed, reading, writing):
            status = os.fstat(fd)
            ticket = {
                "pid": os.getpid(), "fd": fd, "inode": status.st_ino,
                "slots": 2, "slot_bytes": 4096, "stride": 4096,
            }  # fmt: skip
            out = subprocess.check_output([sys.executable, "-c", attach, json.dumps(ticket)])
            assert out.startswith(b"refused:"), fd
        for fd in (unsealed, reading, writing):
            os.close(fd)


def test_memory_of_another_kind_is_refused() -> None:
    with pytest.raises(SlabError, match="frames lie in 'floppy' memory"):
        slabs.attach("floppy", {})


@pytest.mark.parametrize(
    ("slots", "slot_bytes", "said"),
    [
        (0, 100, "cannot be made"),
        (2, 0, "cannot be made"),
        (2, -5, "cannot be made"),
        (1024, 1 << 40, "cannot be made"),
        (1, slabs.MAX_SLAB, "are available: make the pictures smaller"),
    ],
)
def test_absurd_sizes_are_refused(slots: int, slot_bytes: int, said: str) -> None:
    before = descriptors()
    with pytest.raises(SlabError, match=said):
        slabs.create(slots, slot_bytes)
    assert descriptors() == before


def test_a_slab_has_only_its_own_slots(producer: Producer) -> None:
    slab, attached = MemfdSlab(3, 10), slabs.attach("memfd", producer.ticket)
    for index in (-1, 4, 10**9):
        with pytest.raises(SlabError, match="no slot"):
            slab.slot(index)
        with pytest.raises(SlabError, match="no slot"):
            attached.slot(index)
    attached.close()
    with pytest.raises(SlabError, match="no slot"):
        attached.slot(0)


def test_slots_start_on_pages_and_do_not_overlap() -> None:
    slab = MemfdSlab(5, mmap.PAGESIZE + 1)
    for index in range(5):
        slab.slot(index)[:] = bytes([index + 1]) * (mmap.PAGESIZE + 1)
    for index in range(5):
        view = slab.slot(index)
        assert set(view.tolist()) == {index + 1}
        address = np.frombuffer(view, np.uint8).__array_interface__["data"][0]
        assert address % mmap.PAGESIZE == 0


def test_nothing_is_left_of_a_thousand_slabs(producer: Producer) -> None:
    gc.collect()
    before, mapped = descriptors(), mappings()
    for number in range(1000):
        slab = slabs.create(2, 4096)
        own = slabs.attach("memfd", slab.ticket())
        foreign = slabs.attach("memfd", producer.ticket)
        view = np.frombuffer(foreign.slot(1), np.uint8)
        assert view[0] == 2
        assert len(own.slot(0)) == 4096
        if number % 2:
            own.close()
            foreign.close()
            slab.close()
        del slab, own, foreign, view
    gc.collect()
    assert (descriptors(), mappings()) == (before, mapped)


def test_a_view_keeps_its_memory_and_its_death_frees_it() -> None:
    slab = MemfdSlab(2, 4096)
    mapped = mappings()
    view = np.frombuffer(slab.slot(0), np.uint8)
    slab.close()
    assert mappings() == mapped
    assert view.sum() == 0
    del view
    gc.collect()
    assert mappings() == mapped - 1
