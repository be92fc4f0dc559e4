"""How nodes stand with the outside, as the supervisor hears and shows it."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from streamer.status import Status
from streamer.telemetry.board import NodeBoard

if TYPE_CHECKING:
    from streamer.runtime.watcher import Watcher

STATUSES: Final = tuple(Status)
"""in the order of the numbers on the board, which begin at 1"""
_COUNTED: Final = re.compile(r" \([^()]*\d[^()]*\)$")
"""what goes on being counted at the end of a text: seconds, attempts"""
AWAY: Final = (Status.STALLED, Status.RECONNECTING, Status.FAILED)
"""when no data flows that flowed before"""


@dataclass(frozen=True, slots=True)
class Standing:
    """How a node stands with the outside.

    Attributes:
        status: now.
        text: why, in a few words; may be empty.
        seconds: for how long; stalled, reconnecting and failed count as one stretch.
    """

    status: Status
    text: str
    seconds: float

    def __str__(self) -> str:
        if self.text.startswith(f"{self.status} "):
            return self.text  # "connecting to …" says it
        why = f": {self.text}" if self.text else ""
        return f"{self.status}{why}"


def status_of(cells: NodeBoard) -> Status | None:
    """The status on the board; None if the node never said one."""
    number = cells.status.value
    return STATUSES[number - 1] if 1 <= number <= len(STATUSES) else None


def stand(cells: NodeBoard, status: Status, now_ns: int) -> None:
    """Writes a status to the board; a return from away counts and ends the time away."""
    before = status_of(cells)
    if status is before:
        return
    if before in AWAY and status not in AWAY:
        if status is Status.LIVE:
            cells.reconnects.add(before is Status.RECONNECTING)
        cells.away_ns.add(max(0, now_ns - cells.status_ns.value))
    if not (before in AWAY and status in AWAY):
        cells.status_ns.set(now_ns)
    cells.status.set(STATUSES.index(status) + 1)


def away_ns(cells: NodeBoard, now_ns: int) -> int:
    """How long a node was away in all, the present stretch included, nanoseconds."""
    away = cells.away_ns.value
    if status_of(cells) in AWAY:
        away += max(0, now_ns - cells.status_ns.value)
    return away


class Standings:
    """How all nodes of a run stand.

    Args:
        cells: of the board, by node name.
        watcher: told of what is news.
    """

    def __init__(self, cells: Mapping[str, NodeBoard], watcher: Watcher) -> None:
        self._cells = cells
        self._watcher = watcher
        self._said: dict[str, tuple[str, str]] = {}

    def hear(self, node: str, status: str, text: str) -> None:
        """A node says how it stands; its context has written the status to the board.

        It may stand otherwise by now: what is told is what it said.
        """
        if status not in STATUSES:
            self._watcher.event(f"a worker spoke of an unknown status {status!r:.40}")
            return
        before = self._said.get(node, ("", ""))
        news = (before[0], _COUNTED.sub("", before[1])) != (status, _COUNTED.sub("", text))
        self._said[node] = (status, text)
        now = self.of(node)
        if news and now is not None:
            self._watcher.standing(node, replace(now, status=Status(status)))

    def died(self, nodes: Iterable[str], why: str, *, again: bool) -> None:
        """Nodes' process has died: what they were connected to is lost, for now or for good.

        Args:
            nodes: of the process.
            why: in words.
            again: whether it will be started again.
        """
        for node in nodes:
            cells = self._cells[node]
            if (status := status_of(cells)) is None:
                continue
            if not again:
                status = Status.FAILED
            elif status is not Status.CONNECTING:
                status = Status.RECONNECTING
            stand(cells, status, time.monotonic_ns())
            self._said[node] = (status, why)

    def of(self, node: str) -> Standing | None:
        """How a node stands now; None if it never said."""
        cells = self._cells[node]
        status = status_of(cells)
        if status is None:
            return None
        _, text = self._said.get(node, ("", ""))
        seconds = max(0, time.monotonic_ns() - cells.status_ns.value) / 1e9
        return Standing(status, text, seconds)

    def __repr__(self) -> str:
        return f"<Standings of {len(self._cells)} nodes>"
