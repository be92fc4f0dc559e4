"""The context that a node gets in a worker: slots of its outlet, and the board's counters."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from fractions import Fraction

from streamer.drops import COUNTED, Drop
from streamer.errors import DeviceError, FrameError, NodeError
from streamer.formats import picture_bytes
from streamer.frame import Frame
from streamer.gpu.device import Device
from streamer.graph.plan import NodePlan, Plan
from streamer.header import Header, new_header
from streamer.link.outlet import Outlet
from streamer.masking import mask
from streamer.runtime.output import CancelledRun, OutputFrame
from streamer.runtime.progress import MOST_PARTS
from streamer.runtime.standing import AWAY, stand, status_of
from streamer.status import Count, Status
from streamer.telemetry.board import NodeBoard


class BeatingEvent(threading.Event):
    """An event; whoever waits for it is not hung.

    Args:
        beat: called some times a second while somebody waits.
    """

    def __init__(self, beat: Callable[[], None]) -> None:
        super().__init__()
        self._beat = beat

    def wait(self, timeout: float | None = None) -> bool:
        """Waits until it is set, or for so many seconds; whether it is set."""
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            left = 0.5 if until is None else min(0.5, until - time.monotonic())
            done = super().wait(max(0.0, left))
            self._beat()
            if done or (until is not None and time.monotonic() >= until):
                return done


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
        leading = [link for link in plan.inputs(node.name) if link.leading]
        self.newest = any(link.queue == "latest" for link in leading)
        self.own_clocks = plan.own_clocks(node.name)
        """keys of the links whose pictures are of another live source than the leading input's"""
        self.wanted = node.wanted
        self.gpu = node.gpu
        self.stopping: threading.Event = BeatingEvent(self.alive)
        self.incarnation = incarnation
        self.input_names = tuple(
            link.input for link in plan.inputs(node.name) if link.media == "video"
        )
        self.wants_audio = node.wants_audio
        self.alone = sum(other.role == "sink" for other in plan.nodes) == 1
        self.device: Device | None = None
        """GPU that its frames lie on"""
        self.withheld = False
        """whether the node itself has counted the frame that it is processing as dropped"""
        self.passing = False
        """whether the node passes the frame on as it came that it is processing"""
        self._watching = threading.Lock()
        self.generation = 0
        """of the latest change of the node's parameters"""
        self.waited_ns = 0
        """how long the node has waited for slots since its last picture"""
        self.caller: Callable[[Callable[[], None]], None] | None = None
        """has the node's thread call a function, once it has a frame loop"""
        self.left: list[threading.Thread] = []
        """threads of the node that nobody can end"""
        self._role = node.role
        self._board = board
        self._outlet = outlet
        self._tell = tell
        self._aborted = aborted
        # A former process may have died of it.
        board.warming.set(0)
        board.handling.set(0)

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
        try:
            slot = self._outlet.allocate(nbytes, cancelled=self.cancelled)
        except DeviceError as error:
            # It did have memory, for smaller pictures; this one is lost, and others may follow.
            if error.out_of_memory and self._board.emitted.value and self._role != "source":
                self.drop(Drop.NO_SLOT)
                raise FrameError(str(error)) from None
            # Its former process may be dead and its memory not yet free.
            error.retry = error.lost or (error.out_of_memory and self.incarnation > 1)
            raise
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

    def pass_on(self, frame: Frame) -> Frame:
        """See `streamer.Context.pass_on`."""
        out = self.allocate(frame.width, frame.height, frame.format, like=frame.header)
        try:
            out.write(frame.cupy() if out.memory == "cuda" else frame.numpy())
        except BaseException:
            out.release()
            raise
        out.header.passed = self.passing = True
        self._board.copies.add()
        self._board.counts[Count.PASSED].add()
        return out

    def warming(self, on: bool) -> None:
        """See `streamer.Context.warming`."""
        self._board.warming.set(int(on))

    def call(self, function: Callable[[], None]) -> None:
        """See `streamer.Context.call`."""
        if self.caller is None:
            raise TypeError(f"{self.name} has no frame loop that could call anything")
        self.caller(function)

    def leave(self, thread: threading.Thread) -> None:
        """See `streamer.Context.leave`."""
        self.left.append(thread)

    def delivered(self, header: Header) -> None:
        """See `streamer.Context.delivered`."""
        now = time.monotonic_ns()
        self._board.delivered.add()
        if header.passed:
            self._board.counts[Count.PASSED].add()
        self._board.age.add_ns(header.age_ns(now))
        self._board.last_ns.set(now)
        if header.generation > self._board.generation.value:
            self._board.generation_ns.set(now)
            self._board.generation.set(header.generation)

    def expect(self, *, frames: int | None = None, seconds: float | None = None) -> None:
        """See `streamer.Context.expect`."""
        self._board.expected.set(frames or 0)
        self._tell("expect", node=self.name, frames=frames or 0, seconds=float(seconds or 0))

    def note(self, text: str, *, done: int = 0, of: int = 0) -> None:
        """See `streamer.Context.note`."""
        if not 0 <= done <= max(of, 0) <= MOST_PARTS:
            raise ValueError(f"{done} of {of} parts cannot be done; at most {MOST_PARTS} are")
        self.alive()
        self._tell("note", node=self.name, text=mask(text)[:500], done=done, of=of)

    def status(self, status: Status, text: str = "") -> None:
        """See `streamer.Context.status`."""
        self.alive()
        if status is Status.CONNECTING and status_of(self._board) in AWAY:
            status = Status.RECONNECTING  # a new process goes on where the former one died
        stand(self._board, status, time.monotonic_ns())
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
        cell = self._board.beat_ns
        with self._watching:
            if cell.value:  # else nobody watches it: whatever speaks for it still does so beside
                cell.set(max(cell.value, time.monotonic_ns()))

    def beat(self) -> None:
        """The frame loop has got on; ends whatever leave there was."""
        self._board.beat_ns.set(time.monotonic_ns())

    def patient(self, seconds: float) -> None:
        """Gives the node leave to stand still for so long, beside what it may anyway."""
        self._board.beat_ns.set(time.monotonic_ns() + int(seconds * 1e9))

    def unwatched(self) -> None:
        """Nobody watches the frame loop any more: it has ended."""
        with self._watching:
            self._board.beat_ns.set(0)

    def cancelled(self) -> bool:
        """Whether the run is to end at once; asked by whoever waits, who is not hung then."""
        self.alive()  # leave that the node was given is not ended by waiting
        return self._aborted.is_set()

    def __repr__(self) -> str:
        return f"<RuntimeContext of {self.name}>"
