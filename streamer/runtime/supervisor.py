"""The supervisor: starts the workers of a plan, watches them, restarts them, ends them.

It runs in one thread, woken by its workers' messages, deaths and output, by signals and by a
clock. It passes no frames and reads no pixels. Its rules:

- Sources begin when every node is ready, so that mistakes show before anything is read.
- A worker that dies is started again by its nodes' policy; its leases are taken back.
- A node that fails for good ends the run: sources end, all other outputs are closed properly.
- The first interrupt drains, the second ends at once.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import zmq

from streamer.errors import ProtocolError, RunError
from streamer.graph.plan import Plan, WorkerPlan
from streamer.masking import mask
from streamer.runtime import control
from streamer.runtime.addresses import control_endpoint
from streamer.runtime.process import WorkerProcess, describe_exit
from streamer.runtime.report import Circumstances, Report, build
from streamer.runtime.restart import delay_before_restart, may_restart
from streamer.telemetry.board import Board

TICK: Final = 0.25
"""seconds between two looks at the clock"""
DRAIN_IDLE: Final = 10.0
"""seconds without a delivered frame after which a drain becomes an abort"""
ABORT_GRACE: Final = 3.0
"""seconds that workers have to close outputs before they are killed"""

LONGEST_BASE: Final = 70
"""characters of a temporary folder's path; a socket's path has at most 107"""


class Watcher(Protocol):
    """What is told of a run while it goes on; every method may do nothing."""

    def line(self, worker: str, text: str) -> None:
        """A worker has written a line."""

    def state(self, node: str, state: str, text: str) -> None:
        """A node is opening, ready, running, finished or restarting; `text` says more."""

    def event(self, text: str) -> None:
        """Something that the user should know, as one sentence."""

    def tick(self, supervisor: Supervisor) -> None:
        """Called some times a second; `supervisor.report()` has the numbers."""


@dataclass(slots=True)
class _Worker:
    plan: WorkerPlan
    process: WorkerProcess | None = None
    incarnation: int = 0
    restarts: list[float] = field(default_factory=list)
    start_at: float | None = None
    identity: bytes | None = None
    done: bool = False
    over: bool = False
    peak_mb: float = 0.0
    states: dict[str, str] = field(default_factory=dict)


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
        self.plan = plan
        self.expected: dict[str, tuple[int, float]] = {}
        """what sources of known length have announced: pictures and seconds, 0 if unknown"""
        self._watcher = watcher
        self._duration = duration
        self._debug = debug
        nodes, links = [n.name for n in plan.nodes], [link.key for link in plan.links]
        self._board_fd = Board.share(nodes, links)
        self._board = Board(nodes, links, fd=self._board_fd)
        self._workers = [_Worker(worker) for worker in plan.workers]
        self._of_node = {node: w for w in self._workers for node in w.plan.nodes}
        self._incarnations = dict.fromkeys(nodes, 1)
        self._folder = ""
        self._errors: list[str] = []
        self._exit_status = 0
        self._crashed: set[str] = set()
        self._failed: set[str] = set()
        self._began = time.monotonic()
        self._first_frame: float | None = None
        self._ended: float | None = None
        self._started = False
        self._draining = False
        self._aborted = False
        self._progress = (0, 0.0)
        self._kill_at: float | None = None
        self._wake_r, self._wake_w = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._interrupts = 0

    # ---- from other threads and signal handlers ------------------------------------------------

    def interrupt(self) -> None:
        """Drains; the second time ends at once. Safe in a signal handler and in any thread."""
        self._interrupts += 1
        os.write(self._wake_w, b"!")

    # ---- the run -------------------------------------------------------------------------------

    def run(self) -> Report:
        """Runs the plan to its end and tells what was done."""
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = context.socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self._socket.setsockopt(zmq.MAXMSGSIZE, control.MAX_MESSAGE)
        try:
            self._folder = _private_folder()
            self._socket.bind(control_endpoint(self._folder))
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
                    self._pass_lines(worker)
                    worker.process.close()
                    worker.process = None
            self._ended = time.monotonic()
            self._socket.close(0)
            context.term()
            if self._folder:
                shutil.rmtree(self._folder, ignore_errors=True)
            for fd in (self._wake_r, self._wake_w, self._board_fd):
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
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._wake_r, zmq.POLLIN)
        for worker in self._workers:
            if worker.process is not None:
                poller.register(worker.process.pidfd, zmq.POLLIN)
                poller.register(worker.process.output, zmq.POLLIN)
        due = [w.start_at - time.monotonic() for w in self._workers if w.start_at is not None]
        poller.poll(int(max(0.0, min([TICK, *due])) * 1000) + 1)

    def _look(self) -> None:
        self._hear()
        for worker in self._workers:
            if worker.process is not None:
                self._pass_lines(worker)
                worker.peak_mb = max(worker.peak_mb, worker.process.rss_mb())
                if (status := worker.process.poll()) is not None:
                    self._hear()
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
            delivered = sum(node.delivered.value for node in self._board.nodes.values())
            if delivered != self._progress[0]:
                self._progress = (delivered, now)
            elif now - self._progress[1] > DRAIN_IDLE:
                self._watcher.event(f"nothing has moved for {DRAIN_IDLE:.0f} s: stopping at once")
                self._abort()
        if self._kill_at is not None and now > self._kill_at:
            for worker in self._workers:
                if worker.process is not None:
                    worker.process.kill()

    # ---- workers -------------------------------------------------------------------------------

    def _spawn(self, worker: _Worker) -> None:
        worker.incarnation += 1
        worker.identity = None
        worker.done = False
        worker.states = dict.fromkeys(worker.plan.nodes, "starting")
        for node in worker.plan.nodes:
            self._incarnations[node] = worker.incarnation
        orders: dict[str, Any] = {
            "plan": self.plan.to_dict(),
            "worker": worker.plan.name,
            "incarnation": worker.incarnation,
            "incarnations": self._incarnations,
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

    def _ended_process(self, worker: _Worker, status: int) -> None:
        assert worker.process is not None
        self._pass_lines(worker)
        worker.process.kill()  # whatever it had started
        worker.process.close()
        worker.process = None
        if worker.done and status == 0:
            self._over(worker)
            return
        for node in worker.plan.nodes:
            if node not in self._failed:
                self._crashed.add(node)
            self._tell_all("down", node=node, incarnation=worker.incarnation)
        if self._aborted:
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
        if not self._failed.issuperset(worker.plan.nodes):  # else it has said itself why
            self._give_up(worker.plan.nodes, what)

    def _over(self, worker: _Worker) -> None:
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

    def _hear(self) -> None:
        while True:
            try:
                identity, data = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            except ValueError:
                continue
            try:
                kind, fields = control.unpack(data)
            except ProtocolError as error:
                self._watcher.event(f"a worker sent nonsense: {error}")
                continue
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
            case "done":
                for worker in self._workers:
                    if worker.identity == identity:
                        worker.done = True

    def _welcome(self, identity: bytes, fields: dict[str, Any]) -> None:
        for worker in self._workers:
            if (worker.plan.name, worker.incarnation) == (fields["worker"], fields["incarnation"]):
                worker.identity = identity
                self._tell(worker, "peers", incarnations=self._incarnations)
                for other in self._workers:
                    for node in other.plan.nodes if other.over else ():
                        self._tell(worker, "gone", node=node)
                if self._started:
                    self._tell(worker, "start")
                if self._draining:
                    self._tell(worker, "drain")
                if self._aborted:
                    self._tell(worker, "abort")

    def _state(self, worker: _Worker, node: str, state: str, text: str) -> None:
        if state:
            worker.states[node] = state
        self._watcher.state(node, state or worker.states[node], text)
        if state == "running" and self._first_frame is None:
            self._first_frame = time.monotonic()
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
        self._tell_all("gone", node=node)
        self._give_up((node,), message, fields["exit_status"])

    # ---- orders --------------------------------------------------------------------------------

    def _drain(self) -> None:
        if not self._draining:
            self._draining = True
            self._progress = (-1, time.monotonic())
            self._tell_all("drain")
            for worker in self._workers:
                if worker.start_at is not None:  # died, and waits to be started again
                    worker.start_at = None
                    self._over(worker)

    def _abort(self) -> None:
        self._draining = self._aborted = True
        self._kill_at = time.monotonic() + ABORT_GRACE
        self._tell_all("abort")
        for worker in self._workers:
            if worker.process is None and not worker.over:
                worker.start_at = None
                self._over(worker)

    def _tell_all(self, kind: str, **fields: Any) -> None:
        for worker in self._workers:
            self._tell(worker, kind, **fields)

    def _tell(self, worker: _Worker, kind: str, **fields: Any) -> None:
        if worker.identity is None or worker.process is None:
            return  # it is told everything when it says hello
        try:
            self._socket.send_multipart(
                (worker.identity, control.pack(kind, **fields)), zmq.NOBLOCK
            )
        except zmq.ZMQError as error:
            if error.errno not in (zmq.EHOSTUNREACH, zmq.EAGAIN):
                raise

    def _pass_lines(self, worker: _Worker) -> None:
        assert worker.process is not None
        for line in worker.process.lines():
            self._watcher.line(worker.plan.name, mask(line))


def _private_folder() -> str:
    """A new folder for the run's sockets, for this user alone (0700)."""
    base = tempfile.gettempdir()
    if len(base) > LONGEST_BASE:
        base = "/tmp"
    try:
        return tempfile.mkdtemp(prefix="streamer-", dir=base)
    except OSError as error:
        raise RunError(f"no folder for sockets in {base}: {error.strerror}") from error
