"""A worker: the process that holds one node or several, each in a thread of its own.

The main thread serves the outlets' sockets and talks to the supervisor; it never runs a node's
code, so control stays responsive while a model computes. The worker gets its orders as one JSON
line on standard input, which then stays open: its end means that the supervisor is gone.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import sys
import threading
import time
import traceback
from typing import Any, Final

import zmq

from streamer import registry
from streamer.errors import StreamerError
from streamer.graph.plan import LinkPlan, NodePlan, Plan
from streamer.link.inlet import Inlet
from streamer.link.outlet import Consumer, Outlet
from streamer.masking import mask
from streamer.nodebase import Join, Node
from streamer.runtime import control
from streamer.runtime.addresses import control_endpoint, endpoint_of, local_endpoint_of
from streamer.runtime.context import RuntimeContext
from streamer.runtime.feed import Feed
from streamer.runtime.loops import Loop
from streamer.runtime.output import CancelledRun
from streamer.telemetry.board import Board

CRASHED: Final = 70
"""exit status after an error that no code foresaw (EX_SOFTWARE)"""
STOP_GRACE: Final = 1.5
"""seconds that a draining source has to end by itself before its stream is ended for it"""
ORPHAN_GRACE: Final = 5.0
"""seconds that a worker without a supervisor has to close its outputs"""

_log = logging.getLogger("streamer.worker")


class NodeThread:
    """One node of the worker: its thread, its inlets and its outlets."""

    def __init__(self, worker: Worker, node: NodePlan) -> None:
        self._worker = worker
        self.plan = node
        self.links_in = worker.plan.inputs(node.name)
        self.video = self._outlet("video")
        self.audio = self._outlet("audio")
        self.ended = False
        self.retry = False
        """whether it failed in a way that starting the process again may mend"""
        self.drain_at: float | None = None
        self.context = RuntimeContext(
            plan=worker.plan,
            node=node,
            incarnation=worker.incarnation,
            board=worker.board.nodes[node.name],
            outlet=self.video,
            tell=worker.tell,
            aborted=worker.aborted,
        )
        self.feed: Feed | None = None
        self.thread = threading.Thread(target=self._main, name=node.name, daemon=True)

    @property
    def outlets(self) -> tuple[Outlet, ...]:
        """The outlets that somebody consumes."""
        return tuple(outlet for outlet in (self.video, self.audio) if outlet is not None)

    def drain(self) -> None:
        """Asks a source to end."""
        if self.plan.role == "source" and self.drain_at is None:
            self.drain_at = time.monotonic()
            self.context.stopping.set()
            self._worker.started.set()

    def consumer_down(self, link: LinkPlan, incarnation: int) -> None:
        """The process of a consumer has died."""
        self._outlet_of(link).consumer_down(link.target, incarnation)

    def consumer_gone(self, link: LinkPlan) -> None:
        """A consumer will not come back."""
        self._outlet_of(link).consumer_gone(link.target)

    def reconnect(self, link: LinkPlan) -> None:
        """The producer of a link has been started again."""
        if self.feed is not None and link.key in self.feed.links:
            inlet = self.feed.links[link.key][1]
            self.feed.call(lambda: self._connect(link, inlet))

    def producer_gone(self, link: LinkPlan) -> None:
        """The producer of a link will not come back: its stream has ended."""
        if self.feed is not None and link.key in self.feed.links:
            inlet = self.feed.links[link.key][1]

            def end() -> None:
                inlet.ended = True

            self.feed.call(end)

    def _outlet_of(self, link: LinkPlan) -> Outlet:
        outlet = self.video if link.media == "video" else self.audio
        assert outlet is not None
        return outlet

    def _outlet(self, media: str) -> Outlet | None:
        plan, worker = self._worker.plan, self._worker
        links = [link for link in plan.outputs(self.plan.name) if link.media == media]
        if not links:
            return None
        return Outlet(
            worker.zmq,
            endpoints=(
                endpoint_of(worker.folder, plan, links[0], worker.incarnation),
                local_endpoint_of(links[0]),
            ),
            incarnation=worker.incarnation,
            consumers=[
                Consumer(
                    name=link.target,
                    queue=link.queue,
                    depth=_depth(plan, link),
                    board=worker.board.links[link.key],
                )
                for link in links
            ],
        )

    def _connect(self, link: LinkPlan, inlet: Inlet) -> None:
        worker = self._worker
        incarnation = worker.incarnations[link.source]
        if link.source in worker.node_names:
            inlet.connect(local_endpoint_of(link), incarnation)
        else:
            inlet.connect(endpoint_of(worker.folder, worker.plan, link, incarnation), incarnation)

    def _main(self) -> None:
        worker, name = self._worker, self.plan.name
        node: Node[Any] | None = None
        try:
            worker.tell("state", node=name, state="opening", text="")
            node_class = registry.load(self.plan.entry)
            node = node_class(node_class.Params(**self.plan.params))
            node.context = self.context
            self.feed = Feed(node.accepts)
            try:
                node.open()
                for link in self.links_in:
                    self.feed.add(link, self._inlet(link, node))
                worker.tell("state", node=name, state="ready", text="")
                if self.plan.role == "source":
                    worker.started.wait()
                if not (self.context.stopping.is_set() or worker.aborted.is_set()):
                    self._loop(node)
            finally:
                node.close()
            worker.tell("state", node=name, state="finished", text="")
        except CancelledRun:
            pass
        except StreamerError as error:
            worker.tell(
                "failed",
                node=name,
                text=mask(str(error)),
                exit_status=error.exit_status,
                retry=error.retry,
            )
            _log.debug("%s failed", name, exc_info=True)
            self.retry = error.retry
        except BaseException:
            # What nobody foresaw may have left the process in any state: it ends here, and the
            # supervisor starts another. Nothing of it is printed unmasked.
            sys.stderr.write(mask(f"{name}: {traceback.format_exc()}"))
            sys.stderr.flush()
            os._exit(CRASHED)
        finally:
            if not self.retry:
                for outlet in self.outlets:
                    outlet.finish()
            if self.feed is not None:
                self.feed.close()
            self.ended = True
            worker.ring()

    def _inlet(self, link: LinkPlan, node: Node[Any]) -> Inlet:
        assert self.feed is not None
        window = 1 if link.queue == "latest" and link.media == "video" else link.depth
        if isinstance(node, Join):
            window += 1  # a join keeps one picture while it waits for the next
        inlet = Inlet(
            self._worker.zmq,
            consumer=self.plan.name,
            incarnation=self._worker.incarnation,
            window=window,
            board=self._worker.board.links[link.key],
            on_release=self.feed.ring,
        )
        self._connect(link, inlet)
        return inlet

    def _loop(self, node: Node[Any]) -> None:
        worker, name = self._worker, self.plan.name
        assert self.feed is not None
        Loop(
            node=node,
            context=self.context,
            board=worker.board.nodes[name],
            feed=self.feed,
            outlet=self.video,
            audio=self.audio,
            aborted=worker.aborted,
            frames=worker.plan.frames,
            running=lambda: worker.tell("state", node=name, state="running", text=""),
        ).run()


class Worker:
    """The process's main thread.

    Args:
        orders: `plan`, `worker`, `incarnation`, `incarnations`, `folder`, `board_fd`, as the
            supervisor gives them.
    """

    def __init__(self, orders: dict[str, Any]) -> None:
        self.plan = Plan.from_dict(orders["plan"])
        self.name: str = orders["worker"]
        self.incarnation: int = orders["incarnation"]
        self.incarnations: dict[str, int] = orders["incarnations"]
        self.folder: str = orders["folder"]
        self.board = Board(
            [node.name for node in self.plan.nodes],
            [link.key for link in self.plan.links],
            fd=orders["board_fd"],
        )
        self.zmq = zmq.Context()
        self.aborted = threading.Event()
        self.started = threading.Event()
        self._sending = threading.Lock()
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        # A context of its own can be ended, which sends what was said, while nodes still run.
        self._control_zmq = zmq.Context()
        self._control = self._control_zmq.socket(zmq.DEALER)
        self._control.setsockopt(zmq.LINGER, 500)
        self._control.setsockopt(zmq.RECONNECT_IVL, 10)
        self._control.setsockopt(zmq.MAXMSGSIZE, control.MAX_MESSAGE)
        self._control.setsockopt(zmq.IDENTITY, f"{self.name}/{self.incarnation}".encode())
        self._control.connect(control_endpoint(self.folder))
        (mine,) = (worker for worker in self.plan.workers if worker.name == self.name)
        self.node_names = frozenset(mine.nodes)
        self.threads = [NodeThread(self, self.plan.node(name)) for name in mine.nodes]
        self._orphaned_at: float | None = None

    def tell(self, kind: str, **fields: Any) -> None:
        """Sends a control message to the supervisor; from any thread."""
        with self._sending:
            if not self._control.closed:
                self._control.send(control.pack(kind, **fields))
        self.ring()  # a send may swallow the socket's edge

    def ring(self) -> None:
        """Makes the main thread look round."""
        os.eventfd_write(self._bell, 1)

    def run(self) -> None:
        """Runs all nodes to their end."""
        self.tell("hello", worker=self.name, incarnation=self.incarnation, pid=os.getpid())
        for thread in self.threads:
            thread.thread.start()
        poller = zmq.Poller()
        poller.register(self._bell, zmq.POLLIN)
        poller.register(self._control.getsockopt(zmq.FD), zmq.POLLIN)
        poller.register(sys.stdin.fileno(), zmq.POLLIN)
        outlets = [outlet for thread in self.threads for outlet in thread.outlets]
        for outlet in outlets:
            poller.register(outlet.fd, zmq.POLLIN)
        while not all(self._over(thread) for thread in self.threads):
            if any(thread.ended and thread.retry for thread in self.threads):
                self._close_control()
                os._exit(CRASHED)
            ready = dict(poller.poll(250))
            if self._bell in ready:
                os.eventfd_read(self._bell)
            if sys.stdin.fileno() in ready and not os.read(sys.stdin.fileno(), 4096):
                poller.unregister(sys.stdin.fileno())
                self._orphaned()
            self._listen()
            for outlet in outlets:
                outlet.service()
            self._end_stuck()
        self.tell("done")
        for outlet in outlets:
            outlet.close()
        self._close_control()
        self._clean_up_if_orphaned()
        if any(thread.thread.is_alive() for thread in self.threads if not thread.ended):
            self._leave()
        self.zmq.term()

    def _close_control(self) -> None:
        with self._sending:
            self._control.close()
            self._control_zmq.term()

    def _over(self, thread: NodeThread) -> bool:
        if self.aborted.is_set() and thread.ended:
            return True
        stuck = thread.plan.role == "source" and thread.context.stopping.is_set()
        return (thread.ended or stuck) and all(outlet.drained for outlet in thread.outlets)

    def _listen(self) -> None:
        while True:
            try:
                with self._sending:
                    data = self._control.recv(zmq.NOBLOCK)
            except zmq.Again:
                return
            kind, fields = control.unpack(data)
            match kind:
                case "peers":
                    self._peers(fields["incarnations"])
                case "start":
                    self.started.set()
                case "drain":
                    for thread in self.threads:
                        thread.drain()
                case "abort":
                    self._abort()
                case "down":
                    for thread, link in self._outputs_to(fields["node"]):
                        thread.consumer_down(link, fields["incarnation"])
                case "gone":
                    for thread, link in self._outputs_to(fields["node"]):
                        thread.consumer_gone(link)
                    for thread, link in self._inputs_from(fields["node"]):
                        thread.producer_gone(link)

    def _peers(self, incarnations: dict[str, int]) -> None:
        former, self.incarnations = self.incarnations, incarnations
        for thread in self.threads:
            for link in thread.links_in:
                if former[link.source] != incarnations[link.source]:
                    thread.reconnect(link)

    def _abort(self) -> None:
        self.aborted.set()
        self.started.set()
        for thread in self.threads:
            thread.context.stopping.set()
            for outlet in thread.outlets:
                outlet.wake()
            if thread.feed is not None:
                thread.feed.ring()

    def _outputs_to(self, node: str) -> list[tuple[NodeThread, LinkPlan]]:
        return [
            (thread, link)
            for thread in self.threads
            for link in self.plan.outputs(thread.plan.name)
            if link.target == node
        ]

    def _inputs_from(self, node: str) -> list[tuple[NodeThread, LinkPlan]]:
        return [
            (thread, link)
            for thread in self.threads
            for link in thread.links_in
            if link.source == node
        ]

    def _end_stuck(self) -> None:
        """Ends the stream of a source that hangs in a read while the run drains."""
        now = time.monotonic()
        for thread in self.threads:
            if thread.drain_at is not None and now - thread.drain_at > STOP_GRACE:
                for outlet in thread.outlets:
                    outlet.finish()
        if self._orphaned_at is not None and now - self._orphaned_at > ORPHAN_GRACE:
            self._leave()

    def _orphaned(self) -> None:
        _log.warning("the supervisor is gone: closing outputs")
        self._orphaned_at = time.monotonic()
        for thread in self.threads:
            thread.drain()
            for link in thread.links_in:
                if link.source not in self.node_names and thread.plan.role != "source":
                    thread.producer_gone(link)
            for link in self.plan.outputs(thread.plan.name):
                if link.target not in self.node_names:
                    thread.consumer_gone(link)

    def _clean_up_if_orphaned(self) -> None:
        """Removes the run's folder in the supervisor's place; open connections do not need it."""
        if self._orphaned_at is not None:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _leave(self) -> None:
        """Ends the process although a node's thread is still inside a call that will not return."""
        self._clean_up_if_orphaned()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def _depth(plan: Plan, link: LinkPlan) -> int:
    # A join keeps one picture of each input while it waits for the next.
    joins = plan.node(link.target).role == "join"
    return link.depth + (1 if joins and link.queue == "wait" else 0)


def main() -> None:
    """Entry point of `python -m streamer.runtime.worker`."""
    # The supervisor decides what Ctrl-C means; workers are in a session of their own, and this
    # holds where they are not.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    orders = json.loads(_first_line())
    logging.basicConfig(
        level=logging.DEBUG if orders["debug"] else logging.INFO,
        format="%(levelname)s %(message)s",
        stream=sys.stderr,
    )
    sys.path.extend(entry for entry in orders["path"] if entry not in sys.path)
    Worker(orders).run()


def _first_line() -> bytes:
    # Read without buffering, so that the descriptor can be polled afterwards.
    line = b""
    while not line.endswith(b"\n"):
        block = os.read(sys.stdin.fileno(), 1)
        if not block:
            sys.exit("streamer.runtime.worker is started by streamer, not by hand")
        line += block
    return line


if __name__ == "__main__":
    main()
