"""The context that a node gets in a worker: slots of its outlet, and the board's counters."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from fractions import Fraction
from typing import Final

from streamer.drops import COUNTED, Drop
from streamer.errors import NodeError
from streamer.formats import picture_bytes
from streamer.frame import Frame
from streamer.graph.plan import NodePlan, Plan
from streamer.header import Header, new_header
from streamer.link.outlet import Outlet
from streamer.masking import mask
from streamer.runtime.output import CancelledRun, OutputFrame
from streamer.status import Count, Status
from streamer.telemetry.board import NodeBoard

_STATUSES: Final = tuple(Status)
_AWAY: Final = (Status.STALLED, Status.RECONNECTING)


class RuntimeContext:
    """See `streamer.Context`.

    Args:
        plan: of the whole graph.
        node: the node that the context is for.
        incarnation: of the worker, from 1.
        board: the node's counters.
        outlet: of its pictures; None for sinks.
        tell: sends a control message to the supervisor.
        aborted: set when the run is to end at once.
    """

    def __init__(
        self,
        *,
        plan: Plan,
        node: NodePlan,
        incarnation: int,
        board: NodeBoard,
        outlet: Outlet | None,
        tell: Callable[..., None],
        aborted: threading.Event,
    ) -> None:
        self.name = node.name
        self.log = logging.getLogger(f"streamer.node.{node.name}")
        self.live = node.live
        self.wanted = node.wanted
        self.gpu = node.gpu
        self.stopping = threading.Event()
        self.incarnation = incarnation
        self.input_names = tuple(
            link.input for link in plan.inputs(node.name) if link.media == "video"
        )
        self.wants_audio = node.wants_audio
        self.withheld = False
        """whether the node itself has counted the frame that it is processing as dropped"""
        self.generation = 0
        """of the latest change of the node's parameters"""
        self.waited_ns = 0
        """how long the node has waited for slots since its last picture"""
        self._role = node.role
        self._board = board
        self._outlet = outlet
        self._tell = tell
        self._aborted = aborted

    def allocate(
        self,
        width: int,
        height: int,
        format: str = "rgb24",
        *,
        like: Header | None = None,
        pts: int | None = None,
        time_base: Fraction | None = None,
        capture_ns: int | None = None,
    ) -> Frame:
        """See `streamer.Context.allocate`."""
        if self._outlet is None:
            raise TypeError(f"{self.name} is a sink: it makes no frames")
        header = new_header(
            self.name,
            0,
            width,
            height,
            format,
            like=like,
            pts=pts,
            time_base=time_base,
            capture_ns=capture_ns,
        )
        try:
            nbytes = picture_bytes(format, width, height)
        except ValueError as error:
            raise NodeError(f"cannot make this picture: {error}") from None
        began = time.monotonic_ns()
        slot = self._outlet.allocate(nbytes, cancelled=self._aborted.is_set)
        self.waited_ns += time.monotonic_ns() - began
        if slot is None:
            raise CancelledRun
        return OutputFrame(header, self._outlet, slot)

    def drop(self, reason: Drop, count: int = 1) -> None:
        """See `streamer.Context.drop`."""
        if reason not in COUNTED:
            raise ValueError(f"a node cannot drop frames as {reason!s}")
        if count < 0:
            raise ValueError(f"{count} frames cannot be dropped")
        if not count:
            return
        if self._role == "source":
            self._board.captured.add(count)
        elif self._role != "sink" and (count > 1 or self.withheld):
            raise NodeError("a frame can be counted as dropped only once")
        else:
            self.withheld = True
        self._board.dropped[reason].add(count)

    def repeated(self, *, spoiled: bool = False) -> None:
        """See `streamer.Context.repeated`."""
        self._board.repeated.add()
        if spoiled:
            self._board.spoiled.add()

    def delivered(self, header: Header) -> None:
        """See `streamer.Context.delivered`."""
        now = time.monotonic_ns()
        self._board.delivered.add()
        self._board.age.add_ns(header.age_ns(now))
        self._board.last_ns.set(now)
        if header.generation > self._board.generation.value:
            self._board.generation_ns.set(now)
            self._board.generation.set(header.generation)

    def expect(self, *, frames: int | None = None, seconds: float | None = None) -> None:
        """See `streamer.Context.expect`."""
        self._board.expected.set(frames or 0)
        self._tell("expect", node=self.name, frames=frames or 0, seconds=float(seconds or 0))

    def note(self, text: str) -> None:
        """See `streamer.Context.note`."""
        self._tell("state", node=self.name, state="", text=text[:500])

    def status(self, status: Status, text: str = "") -> None:
        """See `streamer.Context.status`."""
        now, cells = time.monotonic_ns(), self._board
        before = _STATUSES[cells.status.value - 1] if cells.status.value else None
        if status is not before:
            if status is Status.LIVE and before in _AWAY:
                cells.away_ns.add(now - cells.status_ns.value)
                cells.reconnects.add(before is Status.RECONNECTING)
            if not (before in _AWAY and status in _AWAY):
                cells.status_ns.set(now)
            cells.status.set(_STATUSES.index(status) + 1)
        self._tell("status", node=self.name, status=str(status), text=mask(text)[:500])

    def count(self, what: Count, count: int = 1) -> None:
        """See `streamer.Context.count`."""
        self._board.counts[what].add(count)

    def viewers(self, count: int) -> None:
        """See `streamer.Context.viewers`."""
        self._board.viewers.set(count)
        self._board.viewers_most.set(max(count, self._board.viewers_most.value))

    def alive(self) -> None:
        """See `streamer.Context.alive`."""
        self._board.beat_ns.set(time.monotonic_ns())

    def __repr__(self) -> str:
        return f"<RuntimeContext of {self.name}>"
