"""Whether a worker hangs: beats that stay away for too long. Time is an argument.

Two things beat. The worker's main thread, which serves sockets and never runs a node's code, shows
that the process runs at all: one that was stopped (SIGSTOP), or in which some code keeps Python's
lock for ever, falls silent. Each node's frame loop beats at every picture and every wait, so that
a node that stands still inside its own code is found although its process is well.

Opening takes as long as it takes: models are loaded there. A node that warms up beside its frame
loop may stand still for longer, too: whoever imports a library keeps Python's lock at times. What
beats into the future has leave until then (see `RuntimeContext.patient`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from streamer.graph.plan import NodePlan
from streamer.runtime.record import WorkerRecord
from streamer.telemetry.board import NodeBoard

START_LIMIT: Final = 60.0
"""seconds that a process may take until it speaks for the first time"""
OPENING_LIMIT: Final = 120.0
"""seconds that a process may stand still while one of its nodes opens, warms up or finishes:
libraries that are loaded, or connect, may keep Python's lock all the while"""
LEAST_LIMIT: Final = 2.0
"""seconds that a node or a process may stand still at least, however short `hang` is: idle ones
beat once a second"""
_BUSY: Final = {"starting", "opening", "finishing"}
ABSENCE: Final = 1.5
"""seconds between two looks after which the supervisor itself was away, with all others maybe"""


class Watchdog:
    """See the module. One for a run; `look` comes first in every turn."""

    def __init__(self) -> None:
        self._looked: float | None = None
        self._woke = 0.0

    def look(self, now: float) -> None:
        """Notes the time (seconds) of a look; after a long absence all limits begin anew.

        The whole machine may have slept, or everything been stopped and continued: nobody is
        taken for hung who had no chance to beat.
        """
        if self._looked is not None and now - self._looked > ABSENCE:
            self._woke = now
        self._looked = now

    def verdict(
        self,
        worker: WorkerRecord,
        nodes: Sequence[NodePlan],
        cells: Mapping[str, NodeBoard],
        now: float,
    ) -> str:
        """Why a worker counts as hung, in words; empty if it does not.

        Args:
            worker: whose process runs.
            nodes: that it holds.
            cells: of the board, by node name.
            now: seconds on a clock that does not go on while the machine sleeps.
        """
        for node in nodes:
            if why := self._node(node, cells[node.name], worker.spawned_at, now):
                return f"{node.name} {why}"
        why = self._process(worker, nodes, cells, now)
        return f"{' and '.join(worker.plan.nodes)} {why}" if why else ""

    def _node(self, node: NodePlan, cells: NodeBoard, spawned_at: float, now: float) -> str:
        beat = cells.beat_ns.value / 1e9
        if not node.restart.hang or beat < spawned_at:
            return ""  # of a former process, or none yet
        where = "frames()" if node.role == "source" else "process()"
        limit = max(node.restart.hang, LEAST_LIMIT)
        if cells.warming.value:
            limit = max(limit, OPENING_LIMIT)
        return self._late(beat, limit, now, "has not moved", f"hung in {where}")

    def _process(
        self,
        worker: WorkerRecord,
        nodes: Sequence[NodePlan],
        cells: Mapping[str, NodeBoard],
        now: float,
    ) -> str:
        hang = min(node.restart.hang for node in nodes)
        if not hang:
            return ""
        pulse = max(cells[node.name].pulse_ns.value for node in nodes) / 1e9
        if pulse < worker.spawned_at:
            return self._late(worker.spawned_at, START_LIMIT, now, "has not begun")
        busy = not _BUSY.isdisjoint(worker.states.values())
        busy = busy or any(cells[node.name].warming.value for node in nodes)
        limit = OPENING_LIMIT if busy else max(hang / 2, LEAST_LIMIT)
        return self._late(pulse, limit, now, "has not moved", "its process was stopped or blocked")

    def _late(self, since: float, limit: float, now: float, what: str, how: str = "") -> str:
        # Beats are in the future while a node has leave.
        silent = now - max(since, self._woke)
        if silent <= limit:
            return ""
        return f"{what} for {limit:.3g} s" + (f" ({how})" if how else "")

    def __repr__(self) -> str:
        return f"<Watchdog, last look at {self._looked}>"
