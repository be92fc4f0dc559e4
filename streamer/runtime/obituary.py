"""What a dead worker died of, in words."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from streamer.runtime.record import WorkerRecord
from streamer.telemetry.board import NodeBoard

_CGROUPS: Final = "sys/fs/cgroup"
RECENT: Final = 5.0
"""seconds; a kill for want of memory that is older than twice that is of another process"""


class Obituary:
    """Writes them; `look` comes in every turn.

    Args:
        root: of the file system, for where the kernel counts whom it has killed for memory.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self._before = self._lately = self._oom_kills()
        self._looked = 0.0

    def look(self, now: float) -> None:
        """Notes now and then whom the kernel has killed for memory: most are none of this run's.

        Args:
            now: seconds on a clock that does not go back.
        """
        if now - self._looked >= RECENT:
            self._before, self._lately, self._looked = self._lately, self._oom_kills(), now

    def write(self, worker: WorkerRecord, status: int, cells: Mapping[str, NodeBoard]) -> str:
        """Why a worker's process has ended, as one sentence that names its nodes.

        Args:
            worker: whose process it was.
            status: exit status, negative for a signal.
            cells: of the board, by node name.
        """
        if worker.cause:
            return worker.cause
        nodes = worker.present
        who = nodes[0] if len(nodes) == 1 else f"the process of {' and '.join(nodes)}"
        said = f"{who} {describe_exit(status)}"
        if status == -signal.SIGKILL:  # which comes from without, and says nothing of the picture
            if (killed := self._oom_kills()) > self._before:
                self._before = self._lately = killed
                said += ": the machine or its container ran out of memory"
            return said
        for node in nodes:
            if handling := cells[node].handling.value:
                said += f" at picture {handling - 1}"
                if len(nodes) > 1:
                    said += f" in {node}"
        return said

    def _oom_kills(self) -> int:
        """How many processes the kernel has ended for want of memory, as far as it shows."""
        found = 0
        with contextlib.suppress(OSError, IndexError):
            group = (self._root / "proc/self/cgroup").read_text().partition("::")[2].split("\n")[0]
            found += _count(self._root / f"{_CGROUPS}{group}" / "memory.events")
        return found + _count(self._root / "proc/vmstat")

    def __repr__(self) -> str:
        return "<Obituary>"


def describe_exit(status: int) -> str:
    """What an exit status means, in words."""
    if status >= 0:
        return f"ended with status {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"


def _count(file: Path) -> int:
    try:
        for line in file.read_text().splitlines():
            name, _, number = line.partition(" ")
            if name == "oom_kill":
                return int(number)
    except (OSError, ValueError):
        pass
    return 0
