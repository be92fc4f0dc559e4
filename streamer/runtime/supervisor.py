"""The supervisor: starts the workers of a plan, watches them, restarts them, ends them.

It runs in one thread, woken by its workers' messages, deaths and output, by signals and by a
clock. It passes no frames and reads no pixels. Its rules:

- Sources begin when every node is ready, so that mistakes show before anything is read.
- A worker that dies is started again by its nodes' policy; its leases are taken back.
- A node that fails for good ends the run: sources end, all other outputs are closed properly.
- The first interrupt drains, the second ends at once.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import time
from typing import Any, Final

import zmq

from streamer.graph.plan import Plan
from streamer.masking import mask
from streamer.runtime.addresses import private_folder
from streamer.runtime.changes import Changes
from streamer.runtime.desk import ControlDesk
from streamer.runtime.draining import DrainWatch, unfinished
from streamer.runtime.process import WorkerProcess, describe_exit
from streamer.runtime.record import WorkerRecord
from streamer.runtime.report import Circumstances, Report, build
from streamer.runtime.restart import delay_before_restart, may_restart
from streamer.runtime.watcher import Watcher
from streamer.telemetry.board import Board

TICK: Final = 0.25
"""seconds between two looks at the clock"""
ABORT_GRACE: Final = 3.0
"""seconds that workers have to close outputs before they are killed"""
EXIT_GRACE: Final = 10.0
"""seconds that a process has to end once all its nodes have"""
LAST_WORDS: Final = 2.0
"""seconds that the messages of a process that ended properly may take to arrive"""
LAST_WORDS_OF_DEAD: Final = 0.05
"""the same for one that died"""


class Supervisor:
    """See the module.

    Args:
        plan: of the graph.
        watcher: told of what happens.
        duration: drain after so many seconds from the first frame.
        debug: workers log in detail.
    """

    def __init__(
        self, plan: Plan, watcher: Watcher, *, duration: float | None = None, debug: bool = False
    ) -> None:
        self.expected: dict[str, tuple[int, float]] = {}
        """what sources of known length have announced: pictures and seconds, 0 if unknown"""
        self._changes = Changes(plan, self._tell_node)
        self._watcher = watcher
        self._duration = duration
        self._debug = debug
        nodes, links = [n.name for n in plan.nodes], [link.key for link in plan.links]
        self._board_fd = Board.share(nodes, links)
        self._board = Board(nodes, links, fd=self._board_fd)
        self._workers = [WorkerRecord(worker) for worker in plan.workers]
        self._of_node = {node: w for w in self._workers for node in w.plan.nodes}
        self._incarnations = dict.fromkeys(nodes, 1)
        self._folder = ""
        self._desk: ControlDesk | None = None
        self._errors: list[str] = []
        self._exit_status = 0
        self._crashed: set[str] = set()
        self._failed: set[str] = set()
        self._closed: set[str] = set()
        self._began = time.monotonic()
        self._first_frame: float | None = None
        self._ended: float | None = None
        self._started = False
        self._draining = False
        self._aborted = False
        self._drain_watch = DrainWatch()
        self._kill_at: float | None = None
        self._wake_r, self._wake_w = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._interrupts = 0

    @property
    def plan(self) -> Plan:
        """The plan, with the parameters as they are now."""
        return self._changes.plan

    # ---- from other threads and signal handlers ------------------------------------------------

    def interrupt(self) -> None:
        """Drains; the second time ends at once. Safe in a signal handler and in any thread."""
        self._interrupts += 1
        with contextlib.suppress(OSError):  # full: it will wake anyhow; closed: the run is over
            os.write(self._wake_w, b"!")

    # ---- the run -------------------------------------------------------------------------------

    def run(self) -> Report:
        """Runs the plan to its end and tells what was done."""
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        try:
            self._folder = private_folder()
            self._desk = ControlDesk(
                context, self._folder, nodes=self._of_node, complain=self._watcher.event
            )
            self._changes.listen(context, self._folder)
            for worker in self._workers:
                self._spawn(worker)
            while not all(worker.over for worker in self._workers):
                self._wait()
                self._look()
                self._watcher.tick(self)
        finally:
            for worker in self._workers:
                if worker.process is not None:
                    worker.process.kill()
                    self._pass_lines(worker, rest=True)
                    worker.process.close()
                    worker.process = None
            self._ended = time.monotonic()
            self._changes.look(self._board)
            self._changes.close()
            if self._desk is not None:
                self._desk.close()
            context.term()
            if self._folder:
                shutil.rmtree(self._folder, ignore_errors=True)
            descriptors = (self._wake_r, self._wake_w, self._board_fd)
            self._wake_r = self._wake_w = self._board_fd = -1  # a late signal must not write there
            for fd in descriptors:
                os.close(fd)
        return self.report()

    def report(self) -> Report:
        """The report as of now; final after the run."""
        circumstances = Circumstances(
            final=self._ended is not None,
            seconds=(self._ended or time.monotonic()) - self._began,
            aborted=self._aborted,
            crashed=frozenset(self._crashed),
            failed=frozenset(self._failed),
            restarts={node: len(worker.restarts) for node, worker in self._of_node.items()},
            rss_mb={node: worker.peak_mb for node, worker in self._of_node.items()},
        )
        return build(
            self.plan,
            self._board,
            circumstances,
            changes=self._changes.listed(),
            errors=self._errors,
            exit_status=self._exit_status,
        )

    @property
    def running(self) -> bool:
        """Whether frames flow."""
        return self._first_frame is not None

    def __repr__(self) -> str:
        return f"<Supervisor of {self.plan.name}: {len(self._workers)} workers>"

    # ---- one turn ------------------------------------------------------------------------------

    def _wait(self) -> None:
        poller = zmq.Poller()
        assert self._desk is not None
        poller.register(self._desk.socket, zmq.POLLIN)
        poller.register(self._wake_r, zmq.POLLIN)
        if self._changes.socket is not None:
            poller.register(self._changes.socket, zmq.POLLIN)
        for worker in self._workers:
            if worker.process is not None:
                poller.register(worker.process.pidfd, zmq.POLLIN)
                if not worker.process.silent:
                    poller.register(worker.process.output, zmq.POLLIN)
        due = [w.start_at - time.monotonic() for w in self._workers if w.start_at is not None]
        poller.poll(int(max(0.0, min([TICK, *due])) * 1000) + 1)

    def _look(self) -> None:
        self._hear()
        self._changes.hear(self.report)
        self._changes.look(self._board)
        for worker in self._workers:
            if worker.process is not None:
                self._pass_lines(worker)
                worker.peak_mb = max(worker.peak_mb, worker.process.rss_mb())
                if (status := worker.process.poll()) is not None:
                    self._hear_last(worker, status)
                    self._ended_process(worker, status)
            elif worker.start_at is not None and time.monotonic() >= worker.start_at:
                worker.start_at = None
                self._spawn(worker)
        self._clock()

    def _clock(self) -> None:
        now = time.monotonic()
        try:
            os.read(self._wake_r, 4096)
        except BlockingIOError:
            pass
        if self._interrupts and not self._draining:
            self._watcher.event("stopping: finishing what is under way (again to stop at once)")
            self._drain()
        if self._interrupts > 1 and not self._aborted:
            self._watcher.event("stopping at once")
            self._abort()
        if (
            self._duration is not None
            and self._first_frame is not None
            and now - self._first_frame >= self._duration
            and not self._draining
        ):
            self._drain()
        if self._draining and not self._aborted:
            self._watch_drain()
        for worker in self._workers:
            if worker.process is not None and (
                (self._kill_at is not None and now > self._kill_at)
                or (worker.done and now - worker.done_at > EXIT_GRACE)
            ):
                worker.process.kill()

    def _watch_drain(self) -> None:
        """Ends a drain that does not get on."""
        done = sum(
            node.received.value + node.emitted.value + node.delivered.value + node.packets.value
            for node in self._board.nodes.values()
        )
        states = {n: s for w in self._workers if not w.over for n, s in w.states.items()}
        idle = self._drain_watch.idle(done, states.values(), time.monotonic())
        if idle is not None:
            stuck = unfinished(states, self._board.nodes)
            self._watcher.event(f"nothing has moved for {idle:.0f} s: stopping at once")
            self._errors.append(f"{stuck} did not end within {idle:.0f} s")
            self._exit_status = max(self._exit_status, 1)
            self._abort()

    # ---- workers -------------------------------------------------------------------------------

    def _spawn(self, worker: WorkerRecord) -> None:
        worker.incarnation += 1
        worker.identity = None
        worker.done = False
        worker.states = dict.fromkeys(worker.plan.nodes, "starting")
        self._closed.difference_update(worker.plan.nodes)
        for node in worker.plan.nodes:
            self._incarnations[node] = worker.incarnation
        orders: dict[str, Any] = {
            "plan": self.plan.to_dict(),
            "worker": worker.plan.name,
            "incarnation": worker.incarnation,
            "incarnations": self._incarnations,
            "generations": self._changes.generations,
            "folder": self._folder,
            "board_fd": self._board_fd,
            "debug": self._debug,
            "path": [entry for entry in sys.path if entry],
        }
        worker.process = WorkerProcess(
            worker.plan.name, worker.incarnation, orders, board_fd=self._board_fd
        )
        if worker.incarnation > 1:
            self._tell_all("peers", incarnations=self._incarnations)

    def _ended_process(self, worker: WorkerRecord, status: int) -> None:
        assert worker.process is not None
        self._pass_lines(worker, rest=True)
        worker.process.kill()  # whatever it had started
        worker.process.close()
        worker.process = None
        if worker.done:  # what it did after its last word touches no frame
            self._over(worker)
            return
        for node in worker.plan.nodes:
            if node not in self._failed and not self._aborted:
                self._crashed.add(node)
            self._tell_all("down", node=node, incarnation=worker.incarnation)
            self._changes.restarted(node)
        if self._aborted or worker.finished:
            # Finished: only what it had not handed on is lost, and a new start would begin anew.
            self._over(worker)
            return
        names = " and ".join(worker.plan.nodes)
        what = f"{names} {describe_exit(status)}"
        now = time.monotonic()
        policies = [self.plan.node(node).restart for node in worker.plan.nodes]
        if (
            self._started
            and not self._draining
            and all(may_restart(p, worker.restarts, now=now) for p in policies)
        ):
            delay = max(delay_before_restart(p, worker.restarts, now=now) for p in policies)
            worker.restarts.append(now)
            worker.start_at = now + delay
            for node in worker.plan.nodes:
                self._state(worker, node, "restarting", f"{describe_exit(status)}")
            self._watcher.event(f"{what}; starting it again")
            return
        self._over(worker)
        if self._failed.isdisjoint(worker.plan.nodes):  # else one of them has said why
            self._give_up(worker.plan.nodes, what)

    def _over(self, worker: WorkerRecord) -> None:
        worker.over = True
        for node in worker.plan.nodes:
            self._tell_all("gone", node=node)

    def _give_up(self, nodes: tuple[str, ...], error: str, exit_status: int = 1) -> None:
        self._failed.update(nodes)
        if error not in self._errors:
            self._errors.append(error)
        self._exit_status = max(self._exit_status, exit_status)
        self._drain()

    # ---- messages ------------------------------------------------------------------------------

    def _hear_last(self, worker: WorkerRecord, status: int) -> None:
        """Hears what a process said before it ended; that may still be on its way."""
        until = time.monotonic() + (LAST_WORDS if status == 0 else LAST_WORDS_OF_DEAD)
        assert self._desk is not None
        self._hear()
        while not worker.done and (left := until - time.monotonic()) > 0:
            self._desk.wait(left)
            self._hear()

    def _hear(self) -> None:
        assert self._desk is not None
        for identity, kind, fields in self._desk.messages():
            self._message(identity, kind, fields)

    def _message(self, identity: bytes, kind: str, fields: dict[str, Any]) -> None:
        match kind:
            case "hello":
                self._welcome(identity, fields)
            case "state":
                worker = self._of_node[fields["node"]]
                self._state(worker, fields["node"], fields["state"], fields["text"])
            case "expect":
                self.expected[fields["node"]] = (fields["frames"], fields["seconds"])
            case "failed":
                self._node_failed(fields)
            case "taken":
                self._changes.confirmed(fields["node"], fields["generation"], fields["text"])
            case "done":
                for worker in self._workers:
                    if worker.identity == identity:
                        worker.done = True
                        worker.done_at = time.monotonic()

    def _welcome(self, identity: bytes, fields: dict[str, Any]) -> None:
        for worker in self._workers:
            if (worker.plan.name, worker.incarnation) == (fields["worker"], fields["incarnation"]):
                worker.identity = identity
                self._tell(worker, "peers", incarnations=self._incarnations)
                for other in self._workers:
                    for node in other.plan.nodes if other.over else ():
                        self._tell(worker, "gone", node=node)
                for node in self._closed:
                    self._tell(worker, "closed", node=node)
                if self._started:
                    self._tell(worker, "start")
                if self._draining:
                    self._tell(worker, "drain")
                if self._aborted:
                    self._tell(worker, "abort")

    def _state(self, worker: WorkerRecord, node: str, state: str, text: str) -> None:
        if state:
            worker.states[node] = state
        self._watcher.state(node, state or worker.states[node], text)
        if state == "running" and self._first_frame is None:
            self._first_frame = time.monotonic()
        if state == "finished":
            self._close(node)
            self._drain_if_all_sinks_ended()
        if not self._started and not self._draining:
            states = [s for w in self._workers for s in w.states.values()]
            if all(s == "ready" for s in states) and all(w.identity for w in self._workers):
                self._started = True
                self._tell_all("start")

    def _node_failed(self, fields: dict[str, Any]) -> None:
        node = fields["node"]
        worker = self._of_node[node]
        message = mask(f"{node}: {fields['text']}")
        policy = self.plan.node(node).restart
        again = fields["retry"] and self._started and not self._draining
        if again and may_restart(policy, worker.restarts, now=time.monotonic()):
            self._watcher.event(message)
            return  # its process ends by itself and is started again
        self._close(node)
        self._give_up((node,), message, fields["exit_status"])

    # ---- orders --------------------------------------------------------------------------------

    def _close(self, node: str) -> None:
        """Tells all that a node takes no more pictures; what it has made is still handed on."""
        self._closed.add(node)
        self._tell_all("closed", node=node)

    def _drain_if_all_sinks_ended(self) -> None:
        """Nobody watches any more: a source that has not ended by itself would run for nothing."""
        sinks = [node.name for node in self.plan.nodes if node.role == "sink"]
        if all(self._of_node[s].states[s] == "finished" or self._of_node[s].over for s in sinks):
            self._drain()

    def _drain(self) -> None:
        if not self._draining:
            self._draining = True
            self._tell_all("drain")
            for worker in self._workers:
                if worker.start_at is not None:  # died, and waits to be started again
                    worker.start_at = None
                    worker.restarts.pop()
                    self._over(worker)

    def _abort(self) -> None:
        self._draining = self._aborted = True
        self._kill_at = time.monotonic() + ABORT_GRACE
        self._tell_all("abort")
        for worker in self._workers:
            if worker.process is None and not worker.over:
                worker.start_at = None
                self._over(worker)

    def _tell_node(self, node: str, kind: str, **fields: Any) -> None:
        self._tell(self._of_node[node], kind, node=node, **fields)

    def _tell_all(self, kind: str, **fields: Any) -> None:
        for worker in self._workers:
            self._tell(worker, kind, **fields)

    def _tell(self, worker: WorkerRecord, kind: str, **fields: Any) -> None:
        # Before it says hello there is nothing to say: it is told everything then.
        if self._desk is not None and worker.identity is not None and worker.process is not None:
            self._desk.tell(worker.identity, kind, **fields)

    def _pass_lines(self, worker: WorkerRecord, *, rest: bool = False) -> None:
        """Passes on what a worker has written; with `rest` all of it, the last line included."""
        assert worker.process is not None
        for line in worker.process.lines(rest=rest):
            self._watcher.line(worker.plan.name, mask(line))
