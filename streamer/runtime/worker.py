"""A worker: the process that holds one node or several, each in a thread of its own.

The main thread serves the outlets' sockets and talks to the supervisor; it never runs a node's
code, so control stays responsive while a model computes. The worker gets its orders as one JSON
line on standard input, which then stays open: its end means that the supervisor is gone.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import importlib
import json
import logging
import os
import select
import shutil
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any, Final

import zmq

from streamer import registry
from streamer.errors import StreamerError
from streamer.graph.plan import Plan
from streamer.runtime import control
from streamer.runtime.addresses import control_endpoint
from streamer.runtime.control import NAMELESS
from streamer.runtime.nodethread import NodeThread
from streamer.telemetry.board import Board

CRASHED: Final = 70
"""exit status after an error that no code foresaw (EX_SOFTWARE)"""
STOP_GRACE: Final = 1.5
"""seconds that a draining source has to end by itself before its stream is ended for it"""
ORPHAN_GRACE: Final = 5.0
"""seconds that a worker without a supervisor has to close its outputs"""

SHOW_STACKS: Final = signal.SIGUSR1
"""has a worker write to its log where every thread is, even if Python's lock is kept for ever"""
_PR_SET_PDEATHSIG: Final = 1

_log = logging.getLogger("streamer.worker")


class Worker:
    """The process's main thread.

    Args:
        orders: `plan`, `worker`, `left_out`, `incarnation`, `incarnations`, `generations`,
            `folder`, `board_fd`, as the supervisor gives them.
    """

    def __init__(self, orders: dict[str, Any]) -> None:
        self.plan = Plan.from_dict(orders["plan"])
        self.name: str = orders["worker"]
        self.incarnation: int = orders["incarnation"]
        self.incarnations: dict[str, int] = orders["incarnations"]
        self.generations: dict[str, int] = orders["generations"]
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
        self.gone: set[str] = set(orders["left_out"])
        """nodes that will not come back, of other workers or of former processes of this one"""
        present = [name for name in mine.nodes if name not in self.gone]
        self.threads = [NodeThread(self, self.plan.node(name)) for name in present]
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
        while True:
            if not self.aborted.is_set() and any(t.ended and t.retry for t in self.threads):
                self._close_control()
                os._exit(CRASHED)
            if all(self._over(thread) for thread in self.threads):
                break
            self._pulse()
            behind = any(outlet.behind for outlet in outlets)
            ready = dict(poller.poll(0 if behind else 250))
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
        stuck = [thread.thread for thread in self.threads if not thread.ended]
        stuck += [left for thread in self.threads for left in thread.context.left]
        if any(thread.is_alive() for thread in stuck):
            self._leave()
        self.zmq.term()

    def _pulse(self) -> None:
        """Shows that the process runs."""
        now = time.monotonic_ns()
        for name in self.node_names:
            self.board.nodes[name].pulse_ns.set(now)

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
                    for thread in self.threads:
                        for link in self.plan.outputs(thread.plan.name):
                            if link.target == fields["node"]:
                                thread.consumer_down(link, fields["incarnation"])
                case "set":
                    for thread in self.threads:
                        if thread.plan.name == fields["node"]:
                            thread.change(fields["params"], fields["generation"])
                case "closed":
                    self._closed(fields["node"])
                case "gone":
                    self._closed(fields["node"])
                    self._gone({fields["node"]})

    def _peers(self, incarnations: dict[str, int]) -> None:
        former, self.incarnations = self.incarnations, incarnations
        for thread in self.threads:
            for link in thread.links_in:
                if former[link.source] != incarnations[link.source]:
                    thread.producer_changed(link)

    def _closed(self, node: str) -> None:
        """A node takes no more pictures."""
        for thread in self.threads:
            for link in self.plan.outputs(thread.plan.name):
                if link.target == node:
                    thread.consumer_gone(link)

    def _gone(self, nodes: set[str]) -> None:
        """Nodes that are not in this process will not come back."""
        self.gone |= nodes
        for thread in self.threads:
            for link in thread.links_in:
                if link.source in nodes:
                    thread.producer_changed(link)

    def _abort(self) -> None:
        self.aborted.set()
        self.started.set()
        for thread in self.threads:
            thread.context.stopping.set()
            for outlet in thread.outlets:
                outlet.wake()
            if thread.feed is not None:
                thread.feed.ring()

    def _end_stuck(self) -> None:
        """Ends the stream of a source that hangs in a read while the run drains."""
        now = time.monotonic()
        for thread in self.threads:
            # One that waits for a consumer to make room does not hang.
            hangs = not any(outlet.waiting for outlet in thread.outlets)
            if thread.drain_at is not None and now - thread.drain_at > STOP_GRACE and hangs:
                for outlet in thread.outlets:
                    outlet.finish()
        if self._orphaned_at is not None and now - self._orphaned_at > ORPHAN_GRACE:
            self._leave()

    def _orphaned(self) -> None:
        _log.warning("the supervisor is gone: closing outputs")
        self._orphaned_at = time.monotonic()
        for thread in self.threads:
            thread.drain()
            for link in self.plan.outputs(thread.plan.name):
                if link.target not in self.node_names:
                    thread.consumer_gone(link)
        self._gone({node.name for node in self.plan.nodes} - self.node_names)

    def _clean_up_if_orphaned(self) -> None:
        """Removes the run's folder in the supervisor's place; open connections do not need it."""
        if self._orphaned_at is not None:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _leave(self) -> None:
        """Ends the process although a node's thread is still inside a call that will not return."""
        self._clean_up_if_orphaned()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):  # nobody reads it any more
                stream.flush()
        os._exit(0)


def main() -> None:
    """Entry point of `python -m streamer.runtime.worker`."""
    # The supervisor decides what Ctrl-C and SIGTERM mean, also where they are sent to all processes
    # of a service or a terminal at once. Programs that a node starts get the usual meaning back.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    # Where it was, for whoever looks at the log, when it dies of its own code or is found hung.
    faulthandler.enable()
    faulthandler.register(SHOW_STACKS, all_threads=True)
    _wake_when_orphaned()
    orders = _orders()
    logging.basicConfig(
        level=logging.DEBUG if orders["debug"] else logging.INFO,
        format="%(levelname)s %(message)s",
        stream=sys.stderr,
    )
    _extend_path(orders["path"])
    Worker(orders).run()


def _wake_when_orphaned() -> None:
    """Has the kernel continue a process that is stopped when the supervisor dies, so that it ends.

    Whoever runs is not disturbed by it, and hears of the death on standard input.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGCONT), 0, 0, 0)


def _orders() -> dict[str, Any]:
    """What to do; a process without a name first gets ready for whatever may come."""
    idle = sys.argv[1:] == [NAMELESS]
    while True:
        orders: dict[str, Any] = json.loads(_line(idle=idle))
        if "worker" in orders:
            break
        _extend_path(orders["path"])
        for entry in orders["prepare"]:
            # What is wrong here is said where it matters.
            with contextlib.suppress(StreamerError, ImportError):
                for module in registry.load(entry).preload:
                    if not select.select([sys.stdin], [], [], 0)[0]:  # else it is wanted already
                        importlib.import_module(module)
    if idle:
        _rename(orders["worker"])
    return orders


def _extend_path(path: list[str]) -> None:
    sys.path.extend(entry for entry in path if entry not in sys.path)


def _rename(name: str) -> None:
    """Puts the worker's name in place of `NAMELESS` in the process's arguments, for ps."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        words = Path("/proc/self/cmdline").read_bytes()
        start = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[45])
        if start:
            at = start + words.index(NAMELESS.encode())
            ctypes.memmove(at, name.encode().ljust(len(NAMELESS), b"\0"), len(NAMELESS))


def _line(*, idle: bool) -> bytes:
    # Read without buffering, so that the descriptor can be polled afterwards.
    line = b""
    while not line.endswith(b"\n"):
        block = os.read(sys.stdin.fileno(), 1)
        if not block:
            sys.exit(0 if idle else "streamer.runtime.worker is started by streamer, not by hand")
        line += block
    return line


if __name__ == "__main__":
    main()
