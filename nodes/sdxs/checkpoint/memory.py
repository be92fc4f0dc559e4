"""How much memory is left, whether a network fits into it, and words for where it ran out.

Linux promises more memory than there is and ends a process that makes use of it. So what a model
will take is added up before any of it is taken.
"""

from __future__ import annotations

import errno
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

# Of torch's CPU allocator; of C++; of oneDNN, which says no more when it has chosen an
# implementation, and finds no memory to set it up.
_WORDS = (
    *("allocate memory", "bad_alloc", "could not create a primitive\n"),
    # A GPU's driver and its libraries, which take memory beside torch's allocator.
    *("CUDA error: out of memory", "STATUS_ALLOC_FAILED"),
    # What torch's allocator runs into where it looks for memory while a thread records a graph.
    "captures_underway.empty()",
)


def available_bytes(device: torch.device, *, root: Path = Path("/")) -> int:
    """Bytes that this process can still have: of a GPU's memory, or of this machine's.

    Of the machine's, that is the least of what is available, what the control group (a container's
    limit) leaves, and what the process's own limits on address space and data leave.

    Args:
        device: Where the bytes are wanted.
        root: Where `proc` and `sys` are mounted.
    """
    if device.type == "cuda":
        free: int = torch.cuda.mem_get_info(device)[0]
        return free
    return max(0, min([_machine(root), *_groups(root), *_own_limits(root)]))


class Budget:
    """What is left for the networks of a model; each takes its share before it has its weights.

    Args:
        device: Where the networks will be.
        dtype: Of their weights there.
        what: The model's name, for the message.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype, *, what: str) -> None:
        self._what = what
        # Weights are drawn, or read from a pickle, in float32 and on the CPU at first.
        self._bytes = dtype.itemsize if device.type == "cuda" else max(4, dtype.itemsize)
        self._left = available_bytes(device)
        self._before = 0

    def take(self, module: nn.Module, part: str) -> None:
        """Sets aside what the weights of a network will take.

        Args:
            module: On the meta device.
            part: Its name, for the message.

        Raises:
            MemoryError: It is more than there is.
        """
        needed = self._bytes * sum(tensor.numel() for tensor in module.state_dict().values())
        if needed > self._left:
            beside = f" beside {_shown(self._before)} for the rest" if self._before else ""
            raise MemoryError(
                f"the {part} of {self._what} takes {_shown(needed)}{beside}, "
                f"and {_shown(self._left)} are left"
            )
        self._before += needed
        self._left -= needed


@contextmanager
def in_words(text: str) -> Iterator[None]:
    """Turns the many ways of running out of memory into Python's.

    Args:
        text: The message of the MemoryError.
    """
    try:
        yield
    except (RuntimeError, OSError) as error:
        out = isinstance(error, torch.OutOfMemoryError) or (
            error.errno == errno.ENOMEM
            if isinstance(error, OSError)
            else any(words in f"{error}\n" for words in _WORDS)
        )
        if not out:
            raise
        raise MemoryError(text) from error


def _machine(root: Path) -> int:
    for line in (root / "proc/meminfo").read_text(encoding="ascii").splitlines():
        key, _, value = line.partition(":")
        if key == "MemAvailable":
            return int(value.split()[0]) * 1024
    raise OSError("/proc/meminfo does not say how much memory is available")


def _groups(root: Path) -> Iterator[int]:
    """What each control group leaves, from the process's own up; nothing where there are none."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        base, names = (
            (root / "sys/fs/cgroup/memory", ("memory.limit_in_bytes", "memory.usage_in_bytes"))
            if controllers
            else (root / "sys/fs/cgroup", ("memory.max", "memory.current"))
        )
        folder = base / path.lstrip("/")
        # In a container, the path may be the host's: then its own group is at the top.
        for group in (folder, *folder.parents):
            if not group.is_relative_to(base):
                break
            try:
                limit, used = ((group / name).read_text(encoding="ascii").strip() for name in names)
                kept = (group / "memory.stat").read_text(encoding="ascii")
            except OSError:
                continue
            if limit != "max":
                yield int(limit) - int(used) + _reclaimable(kept)


def _reclaimable(stat: str) -> int:
    """Pages of files that nobody has looked at for long: they count as used, and can go."""
    values = dict(line.split() for line in stat.splitlines())
    return int(values.get("total_inactive_file", values.get("inactive_file", 0)))


def _own_limits(root: Path) -> Iterator[int]:
    pages = (root / "proc/self/statm").read_text(encoding="ascii").split()
    for kind, used in ((resource.RLIMIT_AS, pages[0]), (resource.RLIMIT_DATA, pages[5])):
        limit, _ = resource.getrlimit(kind)
        if limit != resource.RLIM_INFINITY:
            yield limit - int(used) * resource.getpagesize()


def _shown(count: int) -> str:
    mebibytes = count / 2**20
    return f"{mebibytes / 1024:.1f} GiB" if mebibytes >= 1024 else f"{mebibytes:.0f} MiB"
