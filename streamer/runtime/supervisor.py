"""The supervisor: starts the workers of a plan, watches them, restarts them, ends them.

It runs in one thread, woken by its workers' messages, deaths and output, by signals and by a
clock. It passes no frames and reads no pixels. Its rules:

- Sources begin when every node is ready, so that mistakes show before anything is read.
- A worker that hangs is ended. One that dies is started again by its nodes' policy; its leases
  are taken back.
- A node that fails for good ends the run: sources end, all other outputs are closed properly.
  An output of a live graph ends alone, while there are others.
- The first interrupt drains, the second ends at once.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import Any, Final

import zmq

from streamer.errors import RunError
from streamer.graph.plan import Plan
from streamer.masking import mask
from streamer.runtime.changes import Changes
from streamer.runtime.crew import Crew
from streamer.runtime.desk import ControlDesk
from streamer.runtime.draining import DrainWatch, done, is_spared, sinks_left, unfinished
from streamer.runtime.folder import RunFolder, remove_abandoned
from streamer.runtime.limits import demand_descriptors
from streamer.runtime.obituary import Obituary
from streamer.runtime.progress import Progress
from streamer.runtime.record import WorkerRecord
from streamer.runtime.report import Circumstances, Report, build
from streamer.runtime.standing import Standing, Standings
from streamer.runtime.watchdog import Watchdog
from streamer.runtime.watcher import Watcher
from streamer.telemetry.board import Board

TICK: Final = 0.25
"""seconds between two looks at the clock"""
ABORT_GRACE: Final = 3.0
"""seconds that workers have to close outputs before they are killed"""
STACKS: Final = 0.25
"""seconds that one which hangs has to write where its threads are"""
LAST_WORDS: Final = 0.5
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
        self.progress = Progress()
        """what nodes are busy with that load or build something"""
        self._watcher = watcher
        self._duration = duration
        nodes, links = [n.name for n in plan.nodes], [link.key for link in plan.links]
        self._board_fd = Board.share(nodes, links)
        self._board = Board(nodes, links, fd=self._board_fd)
        self._crew = Crew(plan, watcher, board_fd=self._board_fd, debug=debug)
        self._changes = Changes(plan, self._crew.tell_node, say=watcher.event)
        self._standings = Standings(self._board.nodes, watcher)
        self._watchdog = Watchdog()
        self._obituary = Obituary()
        self._folder: RunFolder | None = None
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

    def hang_up(self) -> None:
        """Drains, however often it is called: a terminal that closes may say so twice."""
        if not self._interrupts:
            self.interrupt()

    # ---- the run -------------------------------------------------------------------------------

    def run(self) -> Report:
        """Runs the plan to its end and tells what was done.

        Raises:
            RunError: it cannot begin: no folder for sockets, no process, no descriptors.
        """
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        try:
            demand_descriptors(len(self._crew.workers))
            remove_abandoned()
            self._folder = RunFolder()
            self._listen(context, self._folder)
            for worker in self._crew.workers:
                self._crew.spawn(worker, self.plan, self._changes.generations)
            while not all(worker.over for worker in self._crew.workers):
                self._wait()
                self._look()
                self._watcher.tick(self)
        finally:
            self._crew.end_all()
            self._ended = time.monotonic()
            self._changes.look(self._board)
            self._changes.close()
            if self._desk is not None:
                self._desk.close()
            context.term()
            if self._folder is not None:
                self._folder.remove()
            descriptors = (self._wake_r, self._wake_w, self._board_fd)
            self._wake_r = self._wake_w = self._board_fd = -1  # a late signal must not write there
            for fd in descriptors:
                os.close(fd)
        return self.report()

    def _listen(self, context: zmq.Context[zmq.Socket[bytes]], folder: RunFolder) -> None:
        try:
            self._desk = ControlDesk(
                context, folder.path, nodes=self._crew.of_node, complain=self._watcher.event
            )
            self._changes.listen(context, folder.path)
        except zmq.ZMQError as error:
            raise RunError(f"no sockets for the run: {error.strerror}") from error
        self._crew.listen(self._desk, folder.path)
        folder.describe(graph=self.plan.name, pid=os.getpid())

    def report(self, *, changes: bool = True) -> Report:
        """The report as of now; final after the run.

        Args:
            changes: list the changes of parameters; who shows none of them asks for none.
        """
        circumstances = Circumstances(
            final=self._ended is not None,
            seconds=(self._ended or time.monotonic()) - self._began,
            aborted=self._aborted,
            crashed=frozenset(self._crashed),
            failed=frozenset(self._failed),
            restarts={node: w.restarts for node, w in self._crew.of_node.items()},
            last_failures={node: w.last_failure for node, w in self._crew.of_node.items()},
            rss_mb={node: w.peak_mb for node, w in self._crew.of_node.items()},
        )
        return build(
            self.plan,
            self._board,
            circumstances,
            changes=self._changes.listed() if changes else [],
            changes_made=self._changes.made,
            errors=self._errors,
            exit_status=self._exit_status,
        )

    def status(self) -> dict[str, Any]:
        """How the run and its nodes stand, as JSON types; see `docs/faults.md`."""
        from streamer.runtime.overview import overview

        phase = "ending" if self._draining else "running" if self._started else "starting"
        records, standings = self._crew.of_node, self._standings
        return overview(
            self.report(changes=False), self.plan, records, standings, self.progress, phase
        )

    def standing(self, node: str) -> Standing | None:
        """How a node stands with the outside; None if it never said."""
        return self._standings.of(node)

    @property
    def running(self) -> bool:
        """Whether frames flow."""
        return self._first_frame is not None

    def __repr__(self) -> str:
        return f"<Supervisor of {self.plan.name}: {len(self._crew.workers)} workers>"

    # ---- one turn ------------------------------------------------------------------------------

    def _wait(self) -> None:
        poller = zmq.Poller()
        assert self._desk is not None
        poller.register(self._desk.socket, zmq.POLLIN)
        poller.register(self._wake_r, zmq.POLLIN)
        if self._changes.socket is not None:
            poller.register(self._changes.socket, zmq.POLLIN)
        self._crew.register(poller)
        due = [w.start_at - time.monotonic() for w in self._crew.workers if w.start_at is not None]
        poller.poll(int(max(0.0, min([TICK, *due])) * 1000) + 1)

    def _look(self) -> None:
        now = time.monotonic()
        self._watchdog.look(now)
        self._obituary.look(now)
        self._hear()
        self._changes.hear(self)
        self._changes.look(self._board)
        for worker in self._crew.workers:
            if worker.process is not None:
                self._crew.pass_lines(worker)
                worker.peak_mb = max(worker.peak_mb, worker.process.rss_mb())
                if (status := worker.process.poll()) is not None:
                    self._hear_last(worker, status)
                    self._ended_process(worker, status)
                else:
                    self._watch(worker)
            elif worker.start_at is not None and time.monotonic() >= worker.start_at:
                worker.start_at = None
                self._start_again(worker)
        self._crew.keep_spare(self.plan, wanted=self._started and not self._draining)
        self._clock()

    def _watch(self, worker: WorkerRecord) -> None:
        """Ends a process that hangs; what follows is what follows any death."""
        assert worker.process is not None
        now = time.monotonic()
        if worker.condemned_at is not None:
            if worker.process.stopped or now - worker.condemned_at >= STACKS:
                worker.process.kill()
        elif not (worker.done or self._aborted):
            nodes = [self.plan.node(name) for name in worker.present]
            verdict = self._watchdog.verdict(worker, nodes, self._board.nodes, now)
            if verdict:
                worker.condemned_at, worker.cause = now, verdict
                worker.process.show_stacks()

    def _clock(self) -> None:
        now = time.monotonic()
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_r, 4096)
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
        self._crew.kill_late(now, until=self._kill_at)

    def _watch_drain(self) -> None:
        """Ends a drain that does not get on."""
        states = {n: s for w in self._crew.workers if not w.over for n, s in w.states.items()}
        moved, now = done(self._board.nodes), time.monotonic()
        idle = self._drain_watch.idle(moved, states.values(), now, begun=self._started)
        if idle is None:
            return
        if not self._started:
            opening = [name for name, state in states.items() if state in ("starting", "opening")]
            verb = "is" if len(opening) == 1 else "are"
            what = f"{' and '.join(opening)} {verb} open" if opening else "all has ended"
            self._watcher.event(f"not waiting until {what}: no frame was under way")
        else:
            self._watcher.event(f"nothing has moved for {idle:.0f} s: stopping at once")
            stuck = unfinished(states, self._board.nodes)
            self._errors.append(f"{stuck} did not end within {idle:.0f} s")
            self._exit_status = max(self._exit_status, 1)
        self._abort()

    # ---- workers -------------------------------------------------------------------------------

    def _ended_process(self, worker: WorkerRecord, status: int) -> None:
        self._crew.bury(worker)
        if worker.done:  # what it did after its last word touches no frame
            self._over(worker)
            return
        why = self._obituary.write(worker, status, self._board.nodes)
        for node in worker.plan.nodes:
            if node not in self._failed and not self._aborted:
                self._crashed.add(node)
            self._crew.tell_all("down", node=node, incarnation=worker.incarnation)
            self._changes.died(node)
        if self._aborted or not worker.unended:
            # Ended: only what it had not handed on is lost, and a new start would begin anew.
            self._over(worker)
            return
        worker.last_failure = why
        self._restart_or_give_up(worker, why)

    def _restart_or_give_up(self, worker: WorkerRecord, why: str) -> None:
        now = time.monotonic()
        nodes = worker.unended  # the others would begin anew
        policies = [self.plan.node(node).restart for node in nodes]
        worked = all(self._board.nodes[node].worked for node in nodes)
        restart = None
        if self._started and not self._draining:
            quick = not worker.spared
            restart = worker.breaker.next(policies, now=now, worked=worked, quick=quick)
        self._standings.died(nodes, why, again=restart is not None)
        if restart is None:
            self._over(worker)
            self._give_up(nodes, why)
            return
        worker.breaker.chosen(restart, now=now)
        worker.start_at = now + restart.delay
        text = f"resting for {restart.delay:.0f} s: {why}" if restart.rest else why
        for node in nodes:
            self._state(worker, node, "resting" if restart.rest else "restarting", text)
        after = f"trying again in {restart.delay:.0f} s" if restart.rest else "starting it again"
        self._watcher.event(f"{why}; {after}")

    def _start_again(self, worker: WorkerRecord) -> None:
        try:
            self._crew.spawn(worker, self.plan, self._changes.generations)
        except RunError as error:  # too many processes, say: that may pass
            worker.last_failure = str(error)
            self._restart_or_give_up(worker, str(error))

    def _over(self, worker: WorkerRecord) -> None:
        worker.over = True
        for node in worker.plan.nodes:
            self._crew.tell_all("gone", node=node)
            self._changes.ended(node)

    def _give_up(self, nodes: tuple[str, ...], error: str, exit_status: int = 1) -> None:
        self._failed.update(nodes)
        self._errors = list(dict.fromkeys((*self._errors, error)))
        self._exit_status = max(self._exit_status, exit_status)
        left = sinks_left(self.plan, self._crew.of_node, self._failed)
        if left and self._started and not self._draining and is_spared(self.plan, nodes):
            self._watcher.event(f"{error}; the other outputs go on")
        else:
            self._drain()

    # ---- messages ------------------------------------------------------------------------------

    def _hear_last(self, worker: WorkerRecord, status: int) -> None:
        """Hears what a process said before it ended; that may still be on its way."""
        until = time.monotonic() + (LAST_WORDS if status >= 0 else LAST_WORDS_OF_DEAD)
        assert self._desk is not None
        self._hear()
        while not (worker.done or worker.cause) and (left := until - time.monotonic()) > 0:
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
                worker = self._crew.of_node[fields["node"]]
                self._state(worker, fields["node"], fields["state"], fields["text"])
            case "note":
                node, text = fields["node"], fields["text"]
                self.progress.hear(node, text, fields["done"], fields["of"])
                self._watcher.state(node, self._crew.of_node[node].states[node], text)
            case "status" if self._crew.of_node[fields["node"]].speaks(identity):
                self._standings.hear(fields["node"], fields["status"], fields["text"])
            case "expect":
                self.expected[fields["node"]] = (fields["frames"], fields["seconds"])
            case "failed":
                self._node_failed(fields)
            case "taken":
                self._changes.confirmed(fields["node"], fields["generation"], fields["text"])
            case "done":
                for worker in self._crew.workers:
                    if worker.identity == identity:
                        worker.done = True
                        worker.done_at = time.monotonic()

    def _welcome(self, identity: bytes, fields: dict[str, Any]) -> None:
        worker = self._crew.welcome(identity, fields["worker"], fields["incarnation"])
        if worker is not None:
            for node in self._closed:
                self._crew.tell(worker, "closed", node=node)
            orders = {"start": self._started, "drain": self._draining, "abort": self._aborted}
            for order in filter(orders.get, orders):
                self._crew.tell(worker, order)
            self._changes.arrived(worker.unended)

    def _state(self, worker: WorkerRecord, node: str, state: str, text: str) -> None:
        worker.states[node] = state
        self._watcher.state(node, state, self.progress.through(node, state, text))
        if state == "running" and self._first_frame is None:
            self._first_frame = time.monotonic()
        if state == "finished":
            self._close(node)
            self._changes.ended(node)
            if not sinks_left(self.plan, self._crew.of_node, self._failed):
                self._drain()  # a source that has not ended by itself would run for nothing
        # Whoever has interrupted meanwhile wants nothing to begin.
        if not (self._started or self._draining or self._interrupts):
            states = [s for w in self._crew.workers for s in w.states.values()]
            if all(s == "ready" for s in states) and all(w.identity for w in self._crew.workers):
                self._started = True
                self._crew.tell_all("start")

    def _node_failed(self, fields: dict[str, Any]) -> None:
        node = fields["node"]
        worker = self._crew.of_node[node]
        message = mask(f"{node}: {fields['text']}")
        worker.last_failure = message
        if fields["retry"]:
            worker.cause = worker.cause or message  # its process ends by itself
            if self._started and not self._draining:
                worker.spared = worker.spared or not fields["quick"]
                return  # what becomes of it is decided then
        self._state(worker, node, "failed", "")
        self._standings.died((node,), message, again=False)
        self._close(node)
        self._changes.ended(node)
        self._give_up((node,), message, fields["exit_status"])

    # ---- orders --------------------------------------------------------------------------------

    def _close(self, node: str) -> None:
        """Tells all that a node takes no more pictures; what it has made is still handed on."""
        self._closed.add(node)
        self._crew.tell_all("closed", node=node)

    def _drain(self) -> None:
        if not self._draining:
            self._draining = True
            self._crew.tell_all("drain")
            for worker in self._crew.workers:
                if worker.start_at is not None:  # died, and waits to be started again
                    worker.start_at = None
                    self._over(worker)
                    if worker.resting:
                        self._give_up(worker.unended, worker.last_failure)

    def _abort(self) -> None:
        self._draining = self._aborted = True
        self._kill_at = time.monotonic() + ABORT_GRACE
        self._crew.tell_all("abort")
        for worker in self._crew.workers:
            if worker.process is None and not worker.over:
                worker.start_at = None
                self._over(worker)
