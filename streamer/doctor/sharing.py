"""Shared memory between processes, tried as the links use it: by a real second process."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from streamer import gpu
from streamer.doctor.finding import Finding, Status
from streamer.errors import DeviceError
from streamer.gpu import probe

_AREA: Final = "Share"
_SIZE: Final = 1 << 20
_SEALS: Final = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
_CUDA_ADVICE: Final = (
    "frames go through host memory between processes; containers of one graph need one --pid and "
    "one --ipc, or put the nodes into one group of `workers:`"
)
_LITTLE_MEMORY: Final = 512 << 20
_PRODUCER: Final = f"""
import fcntl, mmap, os, sys
fd = os.memfd_create("streamer-doctor", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
os.ftruncate(fd, {_SIZE})
fcntl.fcntl(fd, fcntl.F_ADD_SEALS, {_SEALS})
memory = mmap.mmap(fd, {_SIZE})
memory[-5:] = b"hello"
print(fd, flush=True)
sys.stdin.read()
"""


def look() -> Iterator[Finding]:
    """Sealed memory, its way into another process, its size, and CUDA IPC where CuPy is."""
    yield _sealed()
    yield _through_proc()
    yield _size()
    yield _sockets()
    yield from _cuda_ipc()


def _sealed() -> Finding:
    name = "sealed memory (memfd)"
    try:
        descriptor = os.memfd_create("streamer-doctor", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(descriptor, _SIZE)
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
            held = fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & _SEALS == _SEALS
        finally:
            os.close(descriptor)
    except (OSError, AttributeError) as error:
        return Finding(
            area=_AREA,
            name=name,
            status=Status.FAIL,
            detail=f"cannot be had: {error}",
            advice="needs Linux 3.17 or newer, and a sandbox that allows memfd_create",
        )
    if not held:
        return Finding(
            area=_AREA,
            name=name,
            status=Status.FAIL,
            detail="the kernel does not keep the seals",
            advice="needs a Linux kernel that has memfd sealing",
        )
    return Finding(area=_AREA, name=name, status=Status.OK, detail="its size can be sealed")


def _through_proc() -> Finding:
    """Reads in this process what another one has written, through /proc/PID/fd."""
    name = "between processes (/proc/PID/fd)"
    advice = "mount /proc without hidepid, and allow processes of one user to see each other"
    with subprocess.Popen(
        [sys.executable, "-S", "-E", "-c", _PRODUCER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as producer:
        assert producer.stdout is not None
        number = producer.stdout.readline().strip()
        if not number.isdigit():
            producer.kill()
            return Finding(
                area=_AREA,
                name=name,
                status=Status.FAIL,
                detail="a second process could not make shared memory",
                advice="see the line above",
            )
        try:
            descriptor = os.open(f"/proc/{producer.pid}/fd/{number}", os.O_RDONLY | os.O_CLOEXEC)
            try:
                right = os.pread(descriptor, 5, _SIZE - 5) == b"hello"
            finally:
                os.close(descriptor)
        except OSError as error:
            producer.kill()
            return Finding(
                area=_AREA, name=name, status=Status.FAIL, detail=str(error), advice=advice
            )
        producer.kill()
    return Finding(
        area=_AREA,
        name=name,
        status=Status.OK if right else Status.FAIL,
        detail="a second process's memory is read" if right else "it reads other bytes",
        advice="" if right else advice,
    )


def _size() -> Finding:
    """How much memory there is for frames: of the machine, and of the cgroup if that is less."""
    available = _meminfo("MemAvailable")
    limit = _cgroup_left()
    free = available if limit is None else min(available, limit)
    little = free < _LITTLE_MEMORY
    where = "" if limit is None or limit >= available else " (limit of the container)"
    return Finding(
        area=_AREA,
        name="memory for frames",
        status=Status.WARN if little else Status.OK,
        detail=f"{free / (1 << 30):.1f} GiB available{where}",
        advice="close other programs, or give the container more memory" if little else "",
    )


def _meminfo(name: str) -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) << 10
    return 0


def _cgroup_left(folder: Path = Path("/sys/fs/cgroup")) -> int | None:
    try:
        limit = (folder / "memory.max").read_text().strip()
        used = int((folder / "memory.current").read_text())
    except (OSError, ValueError):
        return None
    return None if limit == "max" else max(0, int(limit) - used)


def _sockets() -> Finding:
    """A ZeroMQ message through a socket file in a private folder, as links send headers."""
    import zmq

    with tempfile.TemporaryDirectory(prefix="streamer-doctor-") as folder, zmq.Context() as context:
        address = f"ipc://{folder}/s"
        with context.socket(zmq.PAIR) as one, context.socket(zmq.PAIR) as other:
            for end in (one, other):
                end.setsockopt(zmq.LINGER, 0)
                end.setsockopt(zmq.RCVTIMEO, 2000)
            one.bind(address)
            other.connect(address)
            one.send(b"hello")
            right = other.recv() == b"hello"
    return Finding(
        area=_AREA,
        name="sockets (ZeroMQ ipc)",
        status=Status.OK if right else Status.FAIL,
        detail="messages pass" if right else "messages are lost",
    )


def _gpus() -> int:
    try:
        import cupy

        count: int = cupy.cuda.runtime.getDeviceCount()
    except Exception:  # CuPy raises its own types; that it is missing or broken is said elsewhere
        return 0
    return count


def _cuda_ipc() -> Iterator[Finding]:
    """Whether a second process can open memory of each GPU, by doing so."""
    for ordinal in range(1 if os.environ.get(gpu.SIMULATED) else _gpus()):
        try:
            why = probe.ask(gpu.device(ordinal))
        except DeviceError as error:
            why = str(error)
        yield Finding(
            area=_AREA,
            name=f"GPU {ordinal} between processes (CUDA IPC)",
            status=Status.WARN if why else Status.OK,
            detail=f"does not work: {why}" if why else "a second process's memory is read",
            advice=_CUDA_ADVICE if why else "",
        )
