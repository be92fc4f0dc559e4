"""A run of another process, as its user's other programs see it: parameters and reports."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import zmq

from streamer.errors import ParameterError, RunError, StreamerError
from streamer.runtime.clients import clients_endpoint, pack, unpack
from streamer.runtime.folder import descriptions, goes_on

PATIENCE: Final = 30.0
"""seconds that a node may take to prepare a new value"""
BUSY: Final = 20.0
"""seconds that a run may take to answer everything else: its machine may be overloaded"""
GLANCE: Final = 0.5
"""seconds without an answer after which its process is looked at, again and again"""
_STOPPED: Final = ("T", "t")


@dataclass(frozen=True, slots=True)
class RunningGraph:
    """A run that was found.

    Attributes:
        graph: name of its graph.
        pid: process id of its supervisor.
        folder: where its sockets are.
    """

    graph: str
    pid: int
    folder: Path

    def __str__(self) -> str:
        return f"{self.graph} (pid {self.pid})"


def running_graphs() -> list[RunningGraph]:
    """This user's runs on this host, by name and process id."""
    return sorted(_found(), key=lambda run: (run.graph, run.pid))


def _found() -> Iterator[RunningGraph]:
    for folder, about in descriptions():
        with contextlib.suppress(ValueError, KeyError, TypeError):
            yield RunningGraph(str(about["graph"]), int(about["pid"]), folder)


def choose(which: str | None = None) -> RunningGraph:
    """The run that is meant.

    Args:
        which: name of a graph or process id of a run; not needed where only one runs.

    Raises:
        ParameterError: none, or more than one, fits.
    """
    runs = running_graphs()
    fitting = [run for run in runs if which in (None, run.graph, str(run.pid))]
    if len(fitting) == 1:
        return fitting[0]
    if not runs:
        raise ParameterError("no graph is running; start one with streamer run")
    listed = ", ".join(map(str, runs))
    if not fitting:
        raise ParameterError(f"no graph {which!r} is running; running: {listed}")
    raise ParameterError(f"several graphs run; say which by --run and its pid: {listed}")


class Remote:
    """A connection to a run; a context manager.

    Args:
        run: from `choose` or `running_graphs`.
    """

    def __init__(self, run: RunningGraph) -> None:
        self.run = run
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.connect(clients_endpoint(run.folder))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def get(self, path: str) -> Any:
        """The value of a parameter, `NODE.KEY`.

        Raises:
            ParameterError: there is no such parameter.
            RunError: the run has ended, is stopped, or is too busy to answer.
        """
        return self._ask("get", path=path)["value"]

    def set(self, path: str, value: Any) -> int:
        """Changes a parameter; returns when the node has taken it.

        Returns:
            The generation: pictures whose header has it, or a later one, are made with the value.

        Raises:
            ParameterError: there is no such parameter, it cannot change while the graph runs, or
                the value is wrong. The former value holds.
            RunError: the run has ended, is stopped, or is too busy to answer.
        """
        return int(self._ask("set", path=path, value=value)["generation"])

    def report(self) -> dict[str, Any]:
        """The interim report, as `docs/report.md` describes it."""
        report: dict[str, Any] = self._ask("report")["report"]
        return report

    def status(self) -> dict[str, Any]:
        """How the run and its nodes stand, as `docs/faults.md` describes it."""
        status: dict[str, Any] = self._ask("status")["status"]
        return status

    def close(self) -> None:
        """Ends the connection."""
        self._socket.close()
        self._context.term()

    def _ask(self, kind: str, **fields: Any) -> dict[str, Any]:
        try:
            request = pack(kind, **fields)
        except (TypeError, ValueError, OverflowError) as error:
            raise ParameterError(f"this value cannot be sent: {error}") from None
        self._socket.send(request)
        self._wait(kind)
        answer, said = unpack(self._socket.recv())
        if answer == "error":
            refused = StreamerError if said["exit_status"] == 1 else ParameterError
            raise refused(said["text"])
        return said

    def _wait(self, kind: str) -> None:
        """Waits for the answer.

        Raises:
            RunError: none comes, with what is known of the reason.
        """
        patience = PATIENCE if kind == "set" else BUSY
        until = time.monotonic() + patience
        while (left := until - time.monotonic()) > 0:
            if self._socket.poll(int(min(left, GLANCE) * 1000) + 1):
                return
            if not goes_on(self.run.folder) and not self._socket.poll(0):
                raise RunError(f"{self.run} has ended")
            if _state(self.run.pid) in _STOPPED:
                raise RunError(
                    f"{self.run} does not answer: it is stopped, by SIGSTOP or a debugger; "
                    f"kill -CONT {self.run.pid} has it go on"
                )
        if kind == "set":
            raise RunError(
                f"{self.run} has not taken the change within {patience:.0f} s: its node still "
                "prepares it, or is away, and may take it later; streamer status tells how it is"
            )
        raise RunError(
            f"{self.run} has not answered within {patience:.0f} s, although its process runs: it "
            "or this machine is too busy"
        )

    def __repr__(self) -> str:
        return f"<Remote of {self.run}>"


def _state(pid: int) -> str:
    """The letter by which the kernel tells the state of a process; empty if there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""
