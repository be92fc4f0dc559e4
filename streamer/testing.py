"""A context without a graph, for unit tests of nodes and for using a node as a library."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from typing import Any, TypeVar

from streamer.drops import COUNTED, Drop
from streamer.errors import NodeError
from streamer.formats import picture_bytes
from streamer.frame import Frame
from streamer.header import Header, new_header
from streamer.lease import Lease
from streamer.nodebase import Node
from streamer.status import Count, Status

N = TypeVar("N", bound=Node[Any])


class SoloContext:
    """Gives a node heap memory for its frames, and keeps what it reports.

    Attributes:
        dropped: frames counted by reason.
        repeats: pictures shown again, as counted by `repeated`.
        spoils: those among them that could not be made.
        sent: headers of the pictures that a deferred sink reported as delivered.
        passes: pictures passed on as they came, as counted by `pass_on`.
        calls: what `call` was given, in order; nobody calls it but the test.
        left: threads that `leave` was told of.
        warm: whether the node gets ready, as `warming` was told last.
        notes: texts of `note`.
        progress: what `note` was told besides: done, and of how many.
        expected: the last arguments of `expect`.
        statuses: what `status` was told, in order.
        counts: what `count` was told, added up.
        watching: what `viewers` was told, in order.
    """

    def __init__(
        self,
        *,
        name: str = "node",
        live: bool = False,
        newest: bool | None = None,
        wanted: tuple[str, ...] = ("rgb24",),
        wants_audio: bool = False,
        input_names: tuple[str, ...] = ("in",),
        incarnation: int = 1,
        alone: bool = True,
    ) -> None:
        self.name = name
        self.log = logging.getLogger(f"streamer.node.{name}")
        self.live = live
        self.newest = live if newest is None else newest
        self.wanted = wanted
        self.gpu: int | None = None
        self.stopping = threading.Event()
        self.incarnation = incarnation
        self.input_names = input_names
        self.wants_audio = wants_audio
        self.alone = alone
        self.dropped: Counter[Drop] = Counter()
        self.sent: list[Header] = []
        self.notes: list[str] = []
        self.progress: list[tuple[int, int]] = []
        self.passes = 0
        self.calls: list[Callable[[], None]] = []
        self.left: list[threading.Thread] = []
        self.warm = False
        self.expected: dict[str, float | None] = {}
        self.repeats = 0
        self.spoils = 0
        self.statuses: list[tuple[Status, str]] = []
        self.counts: Counter[Count] = Counter()
        self.watching: list[int] = []
        self._seq = 0

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
        try:
            pixels = memoryview(bytearray(picture_bytes(format, width, height)))
        except ValueError as error:
            raise NodeError(f"cannot make this picture: {error}") from None
        header = new_header(
            self.name,
            self._seq,
            width,
            height,
            format,
            like=like,
            pts=pts,
            time_base=time_base,
            capture_ns=capture_ns,
        )
        if like is None:
            self._seq += 1
        return Frame(header, Lease(pixels))

    def drop(self, reason: Drop, count: int = 1) -> None:
        """See `streamer.Context.drop`."""
        if reason not in COUNTED:
            raise ValueError(f"a node cannot drop frames as {reason!s}")
        if count < 0:
            raise ValueError(f"{count} frames cannot be dropped")
        self.dropped[reason] += count

    def repeated(self, *, spoiled: bool = False) -> None:
        """See `streamer.Context.repeated`."""
        self.repeats += 1
        self.spoils += spoiled

    def pass_on(self, frame: Frame) -> Frame:
        """See `streamer.Context.pass_on`."""
        out = self.allocate(frame.width, frame.height, frame.format, like=frame.header)
        out.write(frame.cupy() if out.memory == "cuda" else frame.numpy())
        out.header.passed = True
        self.passes += 1
        return out

    def warming(self, on: bool) -> None:
        """See `streamer.Context.warming`."""
        self.warm = on

    def call(self, function: Callable[[], None]) -> None:
        """See `streamer.Context.call`."""
        self.calls.append(function)

    def leave(self, thread: threading.Thread) -> None:
        """See `streamer.Context.leave`."""
        self.left.append(thread)

    def delivered(self, header: Header) -> None:
        """See `streamer.Context.delivered`."""
        self.sent.append(header)

    def expect(self, *, frames: int | None = None, seconds: float | None = None) -> None:
        """See `streamer.Context.expect`."""
        self.expected = {"frames": frames, "seconds": seconds}

    def note(self, text: str, *, done: int = 0, of: int = 0) -> None:
        """See `streamer.Context.note`."""
        self.notes.append(text)
        self.progress.append((done, of))

    def status(self, status: Status, text: str = "") -> None:
        """See `streamer.Context.status`."""
        self.statuses.append((status, text))

    def count(self, what: Count, count: int = 1) -> None:
        """See `streamer.Context.count`."""
        self.counts[what] += count

    def viewers(self, count: int) -> None:
        """See `streamer.Context.viewers`."""
        self.watching.append(count)

    def alive(self) -> None:
        """See `streamer.Context.alive`."""


def solo(node_class: type[N], *, context: SoloContext | None = None, **params: Any) -> N:
    """An opened node with parameters of its own and a `SoloContext`; close it after use."""
    node = node_class(node_class.Params(**params))
    node.context = context or SoloContext(live=False)
    node.open()
    return node
