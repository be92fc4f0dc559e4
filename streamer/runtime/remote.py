"""A run of another process, as its user's other programs see it: parameters and reports."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import zmq

from streamer.errors import ParameterError, RunError, StreamerError
from streamer.runtime.clients import clients_endpoint, pack, unpack
from streamer.runtime.folder import descriptions

PATIENCE: Final = 30.0
"""seconds that a node may take to prepare a new value"""
PROMPT: Final = 5.0
"""seconds in which a run answers everything else; one that is stopped holds nobody up for longer"""


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
            RunError: the run has ended.
        """
        return self._ask("get", path=path)["value"]

    def set(self, path: str, value: Any) -> int:
        """Changes a parameter; returns when the node has taken it.

        Returns:
            The generation: pictures whose header has it, or a later one, are made with the value.

        Raises:
            ParameterError: there is no such parameter, it cannot change while the graph runs, or
                the value is wrong. The former value holds.
            RunError: the run has ended.
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
        if not self._socket.poll(int((PATIENCE if kind == "set" else PROMPT) * 1000)):
            raise RunError(f"{self.run} does not answer; it is stopped, too busy, or has ended")
        answer, said = unpack(self._socket.recv())
        if answer == "error":
            refused = StreamerError if said["exit_status"] == 1 else ParameterError
            raise refused(said["text"])
        return said

    def __repr__(self) -> str:
        return f"<Remote of {self.run}>"
