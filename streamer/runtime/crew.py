"""The workers of a run: their processes are started, spoken to, read and ended here.

What a worker's end means for the run is the supervisor's to decide.
"""

from __future__ import annotations

import sys
import time
from typing import Any, Final

import zmq

from streamer.graph.plan import NodePlan, Plan
from streamer.masking import mask
from streamer.runtime.desk import ControlDesk
from streamer.runtime.limits import demand_for_start
from streamer.runtime.process import WorkerProcess
from streamer.runtime.record import WorkerRecord
from streamer.runtime.spare import Spare
from streamer.runtime.watcher import Watcher

EXIT_GRACE: Final = 10.0
"""seconds that a process has to end once all its nodes have"""
SPARE_AFTER: Final = 1.0
"""seconds after the latest start of a worker when a spare process is made ready"""


class Crew:
    """See the module.

    Args:
        plan: of the graph.
        watcher: told of every line that a worker writes.
        board_fd: descriptor of the board's memory.
        debug: workers log in detail.

    Attributes:
        workers: one record for each worker of the plan.
        of_node: the same by node name.
        incarnations: of every node's worker.
    """

    def __init__(self, plan: Plan, watcher: Watcher, *, board_fd: int, debug: bool) -> None:
        self.workers = [WorkerRecord(worker) for worker in plan.workers]
        self.of_node = {node: w for w in self.workers for node in w.plan.nodes}
        self.incarnations = {node.name: 1 for node in plan.nodes}
        self._watcher = watcher
        self._board_fd = board_fd
        self._debug = debug
        self._desk: ControlDesk | None = None
        self._folder = ""
        self._spare = Spare(board_fd=board_fd, say=watcher.event)

    def listen(self, desk: ControlDesk, folder: str) -> None:
        """Takes the desk that workers are spoken to by, and the folder of the run's sockets."""
        self._desk, self._folder = desk, folder

    def spawn(self, worker: WorkerRecord, plan: Plan, generations: dict[str, int]) -> None:
        """Starts the next process of a worker.

        Args:
            worker: of which none runs; those of its nodes that have ended stay away.
            plan: with the parameters as they are now.
            generations: of the latest change of each node's parameters.

        Raises:
            RunError: the system cannot start a process.
        """
        worker.begin(time.monotonic())
        # Of those that stay away what they have sent is still taken, from their last process.
        self.incarnations |= dict.fromkeys(worker.present, worker.incarnation)
        orders: dict[str, Any] = {
            "plan": plan.to_dict(),
            "worker": worker.plan.name,
            "left_out": sorted(worker.left_out),
            "incarnation": worker.incarnation,
            "incarnations": self.incarnations,
            "generations": generations,
            "folder": self._folder,
            "board_fd": self._board_fd,
            "debug": self._debug,
            "path": [entry for entry in sys.path if entry],
        }
        worker.process = self._process(worker.plan.name)
        worker.process.order(worker.plan.name, orders)
        if worker.incarnation > 1:
            self.tell_all("peers", incarnations=self.incarnations)
            for node in worker.left_out:
                self.tell_all("gone", node=node)

    def welcome(self, identity: bytes, name: str, incarnation: int) -> WorkerRecord | None:
        """Hears a hello and tells the newcomer who is there; None if it is none of ours.

        Args:
            identity: of its connection.
            name: of its worker.
            incarnation: of its process.
        """
        for worker in self.workers:
            if (worker.plan.name, worker.incarnation) == (name, incarnation):
                worker.identity = identity
                self.tell(worker, "peers", incarnations=self.incarnations)
                for other in self.workers:
                    for node in other.plan.nodes if other.over else other.left_out:
                        self.tell(worker, "gone", node=node)
                return worker
        return None

    def keep_spare(self, plan: Plan, *, wanted: bool) -> None:
        """Has an idle process ready that a worker can go on in at once when its own has died.

        Args:
            plan: a graph of files gets none: nobody waits there for the next picture.
            wanted: whether workers may still be started again.
        """
        if not wanted:
            self._spare.dismiss()
        elif any(map(_restarts_live, plan.nodes)):
            now, latest = time.monotonic(), max(worker.spawned_at for worker in self.workers)
            if now - latest > SPARE_AFTER:
                self._spare.keep([node.entry for node in plan.nodes], now=now)

    def _process(self, name: str) -> WorkerProcess:
        demand_for_start(name)
        return self._spare.take() or WorkerProcess(board_fd=self._board_fd, name=name)

    def register(self, poller: zmq.Poller) -> None:
        """Has a poller wake for deaths and for lines."""
        for worker in self.workers:
            if worker.process is not None:
                poller.register(worker.process.pidfd, zmq.POLLIN)
                if not worker.process.silent:
                    poller.register(worker.process.output, zmq.POLLIN)

    def pass_lines(self, worker: WorkerRecord, *, rest: bool = False) -> None:
        """Passes on what a worker has written; with `rest` all of it, the last line included."""
        assert worker.process is not None
        for line in worker.process.lines(rest=rest):
            self._watcher.line(worker.plan.name, mask(line))

    def bury(self, worker: WorkerRecord) -> None:
        """Lets go of a process that has ended, and ends whatever it had started."""
        assert worker.process is not None
        self.pass_lines(worker, rest=True)
        worker.process.kill()
        worker.process.close()
        worker.process = None

    def kill_late(self, now: float, *, until: float | None) -> None:
        """Ends processes that had time enough to end by themselves.

        Args:
            now: seconds of `time.monotonic`.
            until: when all must have ended; None while the run goes on.
        """
        for worker in self.workers:
            late = worker.done and now - worker.done_at > EXIT_GRACE
            if worker.process is not None and (late or (until is not None and now > until)):
                worker.process.kill()

    def end_all(self) -> None:
        """Ends all processes at once."""
        self._spare.dismiss()
        for worker in self.workers:
            if worker.process is not None:
                worker.process.kill()
                self.bury(worker)

    def tell_node(self, node: str, kind: str, **fields: Any) -> None:
        """Sends a message about a node to its worker."""
        self.tell(self.of_node[node], kind, node=node, **fields)

    def tell_all(self, kind: str, **fields: Any) -> None:
        """Sends a message to every worker."""
        for worker in self.workers:
            self.tell(worker, kind, **fields)

    def tell(self, worker: WorkerRecord, kind: str, **fields: Any) -> None:
        """Sends a message to a worker."""
        # Before it says hello there is nothing to say: it is told everything then.
        if self._desk is not None and worker.identity is not None and worker.process is not None:
            self._desk.tell(worker.identity, kind, **fields)

    def __repr__(self) -> str:
        return f"<Crew of {len(self.workers)}>"


def _restarts_live(node: NodePlan) -> bool:
    return node.live and node.restart.policy != "never"
