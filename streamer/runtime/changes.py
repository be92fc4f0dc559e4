"""Parameters that change while a graph runs, as the supervisor sees them.

A change is checked here, prepared by the node in a thread beside its frame loop, taken by the node
between two pictures, and confirmed. Each has a generation, which pictures made with it carry; the
time from the request to the first such picture at each sink is measured.

A node is told all its parameters, so that its changes are made one after the other: what is asked
while one is under way waits, and is checked against what has become of that one. Parameters that
the node has not taken yet are nowhere but in the change itself; a process that is started again
begins with those that it has taken.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol

import zmq

from streamer.errors import ParameterError, RunError, StreamerError
from streamer.graph.changing import changed, current
from streamer.graph.plan import Plan
from streamer.graph.tree import one_line
from streamer.runtime.clients import ClientDesk, Request
from streamer.runtime.report import ChangeReport, Report
from streamer.telemetry.board import Board

MOST_WAITING: Final = 100
"""changes of one node that may wait for the one under way"""
MOST_KEPT: Final = 300
"""changes that the report lists, the latest ones; a slider makes ten a second, for hours"""


@dataclass(slots=True)
class _Change:
    """One change that was asked for.

    Attributes:
        path: `NODE.KEY`.
        node: the node's name.
        value: new one of the parameter.
        asked_ns: when, on CLOCK_MONOTONIC.
        client: whom to answer; None once it has its answer.
        params: all parameters that the node is told; empty until it is its turn.
        generation: from 1, in the order of turns; 0 until then.
        first_ns: when the first picture with it was delivered, by sink.
    """

    path: str
    node: str
    value: Any
    asked_ns: int
    client: bytes | None
    params: dict[str, Any] = field(default_factory=dict)
    generation: int = 0
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
        say: told in a sentence of a change that a node has tried and refused.
    """

    def __init__(
        self, plan: Plan, tell: Callable[..., None], *, say: Callable[[str], None]
    ) -> None:
        self.plan = plan
        """with the parameters as they are now: those that nodes have taken"""
        self.generations: dict[str, int] = {}
        """of the latest change of each node that was confirmed"""
        self._tell = tell
        self._say = say
        self._asked: dict[str, deque[_Change]] = {node.name: deque() for node in plan.nodes}
        self._present: set[str] = set()
        self._over: set[str] = set()
        self._tried = 0
        self.made = 0
        """how many changes nodes have taken in all"""
        self._made: deque[_Change] = deque(maxlen=MOST_KEPT)
        self._unseen: deque[_Change] = deque(maxlen=MOST_KEPT)
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
            except Exception as error:  # a validator of someone else's: the show goes on
                asked = f"{request.kind} {one_line(request.fields.get('path', ''), 100)}".strip()
                refusal = self._unforeseen(error, f"{asked} cannot be answered")
                self._desk.refuse(request.identity, refusal)

    def confirmed(self, node: str, generation: int, text: str) -> None:
        """A node has taken a change, or refused it with a text."""
        change = self._under_way(node)
        if change is None or change.generation != generation:
            return  # of a process that has died meanwhile
        self._asked[node].popleft()
        if text:
            # Its log may tell of what was begun, a model's loading say, and not how it ended.
            self._say(f"{change.path} stays as it was: {text}")
            self._refuse(change, ParameterError(text))
        else:
            taken = replace(self.plan.node(node), params=change.params)
            nodes = (taken if other.name == node else other for other in self.plan.nodes)
            self.plan = replace(self.plan, nodes=tuple(nodes))
            self.generations[node] = generation
            self.made += 1
            self._made.append(change)
            self._unseen.append(change)
            self._answer(change)
        self._next(node)

    def arrived(self, nodes: Iterable[str]) -> None:
        """A process of these nodes has come, which knows the parameters as they are."""
        for node in nodes:
            self._present.add(node)
            self._over.discard(node)
            self._next(node)

    def died(self, node: str) -> None:
        """The process of a node has died: the next one begins with the parameters as they are.

        Whatever it died of, the change that was under way is not tried again. Those behind it wait
        for the next process.
        """
        self._present.discard(node)
        change = self._under_way(node)
        if change is not None:
            self._asked[node].popleft()
            said = f"the process of {node} died before it had taken {change.path}"
            self._refuse(change, RunError(f"{said}; the former value holds, ask again"))

    def ended(self, node: str) -> None:
        """A node has ended and takes no more changes, unless its process is started again."""
        self._present.discard(node)
        self._over.add(node)
        asked = self._asked[node]
        while asked:
            self._refuse(asked.popleft(), _has_ended(node))

    def look(self, board: Board) -> None:
        """Notes when the first pictures with a change were delivered."""
        for change in self._unseen:
            for sink in self._sinks[change.node]:
                cells = board.nodes[sink]
                if sink not in change.first_ns and cells.generation.value >= change.generation:
                    change.first_ns[sink] = cells.generation_ns.value
        unseen = (c for c in self._unseen if len(c.first_ns) < len(self._sinks[c.node]))
        self._unseen = deque(unseen, maxlen=MOST_KEPT)

    def listed(self) -> list[ChangeReport]:
        """The latest changes that nodes have taken, for the report; at most `MOST_KEPT`."""
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
        ]

    def close(self) -> None:
        """Refuses what is still open and stops listening."""
        if self._desk is not None:
            for asked in self._asked.values():
                while asked:
                    self._refuse(asked.popleft(), RunError("the run has ended"))
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
        name = path.partition(".")[0]
        if not self._asked.get(name):
            changed(self.plan, path, value)  # what is plainly wrong waits for no process
        if name in self._over:
            raise _has_ended(name)
        asked = self._asked[name]
        if len(asked) >= MOST_WAITING:
            raise RunError(f"{MOST_WAITING} changes of {name} wait already; ask again later")
        asked.append(_Change(path, name, value, time.monotonic_ns(), client))
        self._next(name)

    def _under_way(self, node: str) -> _Change | None:
        asked = self._asked[node]
        return asked[0] if asked and asked[0].generation else None

    def _next(self, node: str) -> None:
        """Tells a node of the change whose turn it is, if none is under way."""
        asked = self._asked[node]
        while asked and node in self._present and not asked[0].generation:
            change = asked[0]
            generation = self._tried + 1
            try:
                params = changed(self.plan, change.path, change.value).params
                self._tell(node, "set", params=params, generation=generation)
            except StreamerError as error:
                self._refuse(asked.popleft(), error)
            except Exception as error:
                refusal = self._unforeseen(error, f"{change.path} cannot be set")
                self._refuse(asked.popleft(), refusal)
            else:
                change.params, change.generation, self._tried = params, generation, generation

    def _answer(self, change: _Change) -> None:
        client, change.client = change.client, None
        if self._desk is None or client is None:
            return
        try:
            value = current(self.plan, change.path)
            self._desk.answer(client, "value", value=value, generation=change.generation)
        except Exception as error:
            said = f"{change.path} has been set, but cannot be shown"
            self._desk.refuse(client, self._unforeseen(error, said))

    def _unforeseen(self, error: Exception, what: str) -> RunError:
        """What a client is told of an error that no code foresaw; it is logged, too."""
        said = type(error).__name__
        if not isinstance(error, ValueError):  # pydantic's quote the values, which may be secret
            said = f"{said}: {one_line(str(error), 200)}"
        refusal = RunError(f"{what}: {said}")
        self._say(str(refusal))
        return refusal

    def _refuse(self, change: _Change, error: StreamerError) -> None:
        client, change.client = change.client, None
        if self._desk is not None and client is not None:
            self._desk.refuse(client, error)


def _has_ended(node: str) -> RunError:
    return RunError(f"{node} has ended: it takes no more changes")


def _upstream(plan: Plan, name: str) -> set[str]:
    found, ahead = {name}, [name]
    while ahead:
        sources: Iterable[str] = (link.source for link in plan.inputs(ahead.pop()))
        for source in sources:
            if source not in found:
                found.add(source)
                ahead.append(source)
    return found
