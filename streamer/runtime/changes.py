"""Parameters that change while a graph runs, as the supervisor sees them.

A change is checked here, prepared by the node in a thread beside its frame loop, taken by the node
between two pictures, and confirmed. Each has a generation, which pictures made with it carry; the
time from the request to the first such picture at each sink is measured.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import zmq

from streamer.errors import ParameterError, RunError, StreamerError
from streamer.graph.changing import changed, current
from streamer.graph.plan import Plan
from streamer.runtime.clients import ClientDesk, Request
from streamer.runtime.report import ChangeReport, Report
from streamer.telemetry.board import Board


@dataclass(slots=True)
class _Change:
    path: str
    node: str
    former: dict[str, Any]
    generation: int
    asked_ns: int
    client: bytes | None
    confirmed: bool = False
    first_ns: dict[str, int] = field(default_factory=dict)


class Told(Protocol):
    """What clients are told of a run."""

    def report(self) -> Report:
        """The interim report."""
        ...

    def status(self) -> dict[str, Any]:
        """How the run and its nodes stand."""
        ...


class Changes:
    """See the module.

    Args:
        plan: with the parameters of the graph file.
        tell: sends a control message to the worker of a node.
    """

    def __init__(self, plan: Plan, tell: Callable[..., None]) -> None:
        self.plan = plan
        """with the parameters as they are now"""
        self.generations: dict[str, int] = {}
        """of the latest change of each node that was confirmed"""
        self._tell = tell
        self._made: list[_Change] = []
        self._desk: ClientDesk | None = None
        self._sinks = {
            node.name: tuple(
                sink.name
                for sink in plan.nodes
                if sink.role == "sink" and node.name in _upstream(plan, sink.name)
            )
            for node in plan.nodes
        }

    def listen(self, context: zmq.Context[zmq.Socket[bytes]], folder: str) -> None:
        """Opens the desk for other programs."""
        self._desk = ClientDesk(context, folder)

    @property
    def socket(self) -> zmq.Socket[bytes] | None:
        """Readable when a client has asked something."""
        return self._desk.socket if self._desk is not None else None

    def hear(self, run: Told) -> None:
        """Answers what clients have asked; a change is answered once the node has taken it."""
        if self._desk is None:
            return
        for request in self._desk.requests():
            try:
                self._serve(request, run)
            except StreamerError as error:
                self._desk.refuse(request.identity, error)

    def confirmed(self, node: str, generation: int, text: str) -> None:
        """A node has taken a change, or refused it with a text."""
        for change in self._made:
            if change.generation != generation or change.node != node or change.confirmed:
                continue
            if text:
                self._put_back(change)
                self._refuse(change, ParameterError(text))
                return
            change.confirmed = True
            self.generations[node] = generation
            self._answer(change)

    def restarted(self, node: str) -> None:
        """The process of a node has died: the next one begins with the parameters as they are."""
        for change in self._made:
            if change.node == node and not change.confirmed:
                self.confirmed(node, change.generation, "")

    def look(self, board: Board) -> None:
        """Notes when the first pictures with a change were delivered."""
        for change in self._made:
            for sink in self._sinks[change.node]:
                cells = board.nodes[sink]
                if sink not in change.first_ns and cells.generation.value >= change.generation:
                    change.first_ns[sink] = cells.generation_ns.value

    def listed(self) -> list[ChangeReport]:
        """All changes that nodes have taken, for the report."""
        return [
            ChangeReport(
                path=change.path,
                generation=change.generation,
                first_frame_ms={
                    sink: round((change.first_ns[sink] - change.asked_ns) / 1e6, 3)
                    if sink in change.first_ns
                    else None
                    for sink in self._sinks[change.node]
                },
            )
            for change in self._made
            if change.confirmed
        ]

    def close(self) -> None:
        """Refuses what is still open and stops listening."""
        if self._desk is not None:
            for change in self._made:
                if not change.confirmed:
                    self._refuse(change, RunError("the run has ended"))
            self._desk.close()
            self._desk = None

    def _serve(self, request: Request, run: Told) -> None:
        assert self._desk is not None
        match request.kind:
            case "get":
                value = current(self.plan, request.fields["path"])
                self._desk.answer(request.identity, "value", value=value)
            case "set":
                self._change(request.fields["path"], request.fields["value"], request.identity)
            case "report":
                self._desk.answer(request.identity, "report", report=run.report().to_dict())
            case "status":
                self._desk.answer(request.identity, "status", status=run.status())

    def _change(self, path: str, value: Any, client: bytes) -> None:
        node = changed(self.plan, path, value)
        change = _Change(
            path=path,
            node=node.name,
            former=self.plan.node(node.name).params,
            generation=len(self._made) + 1,
            asked_ns=time.monotonic_ns(),
            client=client,
        )
        self._made.append(change)
        self._replace(node.name, node.params)
        self._tell(node.name, "set", params=node.params, generation=change.generation)

    def _replace(self, name: str, params: dict[str, Any]) -> None:
        nodes = (replace(n, params=params) if n.name == name else n for n in self.plan.nodes)
        self.plan = replace(self.plan, nodes=tuple(nodes))

    def _put_back(self, change: _Change) -> None:
        key = change.path.partition(".")[2]
        params = dict(self.plan.node(change.node).params)
        params.pop(key, None)
        if key in change.former:
            params[key] = change.former[key]
        self._replace(change.node, params)

    def _answer(self, change: _Change) -> None:
        client, change.client = change.client, None
        if self._desk is not None and client is not None:
            value = current(self.plan, change.path)
            self._desk.answer(client, "value", value=value, generation=change.generation)

    def _refuse(self, change: _Change, error: StreamerError) -> None:
        client, change.client = change.client, None
        if self._desk is not None and client is not None:
            self._desk.refuse(client, error)


def _upstream(plan: Plan, name: str) -> set[str]:
    found, ahead = {name}, [name]
    while ahead:
        sources: Iterable[str] = (link.source for link in plan.inputs(ahead.pop()))
        for source in sources:
            if source not in found:
                found.add(source)
                ahead.append(source)
    return found
