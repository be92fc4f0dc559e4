"""The frame loops of the four kinds of nodes: receive, process, count, publish."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, cast

import numpy as np

from streamer.drops import Drop
from streamer.errors import FrameError, NodeError
from streamer.frame import Frame, Header, Hop, Packet
from streamer.link.inlet import EndOfStream, Received
from streamer.link.outlet import Outlet
from streamer.nodebase import Join, Node, Sink, Source, Transform
from streamer.runtime.context import RuntimeContext
from streamer.runtime.feed import Feed
from streamer.runtime.output import OutputFrame
from streamer.telemetry.board import NodeBoard


@dataclass(slots=True, kw_only=True)
class Loop:
    """What every frame loop works with.

    Attributes:
        node: opened.
        context: of the node.
        board: counters of the node.
        feed: inlets; without links for sources.
        outlet: of pictures; None for sinks.
        audio: outlet of audio packets; None where nobody takes them.
        aborted: set when the run is to end at once.
        frames: for sources: end after so many pictures.
        running: called once, when the first picture has come.
    """

    node: Node[Any]
    context: RuntimeContext
    board: NodeBoard
    feed: Feed
    outlet: Outlet | None
    audio: Outlet | None
    aborted: threading.Event
    frames: int | None
    running: Callable[[], None]

    def run(self) -> None:
        """Runs until the stream ends.

        Raises:
            StreamerError: the node cannot go on.
        """
        match self.node:
            case Source():
                run_source(self, self.node)
            case Join():
                run_join(self, self.node)
            case Transform():
                run_transform(self, self.node)
            case Sink():
                run_sink(self, self.node)
            case _:
                raise NodeError(f"{type(self.node).__name__} is no source, transform, join or sink")

    def publish(self, result: Any, like: Header | None, received: int, started: int) -> None:
        """Publishes what a node has returned for a frame, or counts why it returned nothing."""
        board, context = self.board, self.context
        withheld, context.withheld = context.withheld, False
        # Waiting for the next node is no work of this one.
        waited, context.waited_ns = context.waited_ns, 0
        if result is None:
            if not withheld:
                board.dropped[Drop.FILTERED].add()
            return
        assert self.outlet is not None
        if isinstance(result, OutputFrame):
            out = result
        else:
            out = self._copied(result, like)
        now = time.monotonic_ns()
        out.header.trace.append(Hop(context.name, received, started, now))
        board.process.add_ns(max(0, now - started - waited))
        board.emitted.add()
        if not board.first_ns.value:
            board.first_ns.set(now)
        board.last_ns.set(now)
        out.publish(check_views=like is not None)

    def _copied(self, result: Any, like: Header | None) -> OutputFrame:
        """Copies a picture that lies in the node's own memory into a slot, and counts it."""
        if isinstance(result, Frame):
            array, pixel_format, like = result.numpy(), result.format, like or result.header
        else:
            array = np.asarray(result)
            pixel_format = "gray" if array.ndim == 2 else "rgb24"
            if (
                array.dtype != np.uint8
                or array.ndim not in (2, 3)
                or array.shape[2:]
                not in (
                    (),
                    (3,),
                )
            ):
                raise NodeError(
                    f"returned a picture of {array.dtype} and shape {array.shape}; "
                    "a picture is uint8, (height, width, 3) for rgb24 or (height, width) for gray"
                )
        if like is None:
            raise NodeError("a source yields frames from context.allocate, not arrays")
        height, width = array.shape[:2]
        if isinstance(result, Frame):
            width, height = result.width, result.height
        out = cast(OutputFrame, self.context.allocate(width, height, pixel_format, like=like))
        np.copyto(out.numpy(), array)
        self.board.copies.add()
        return out


def run_source(loop: Loop, node: Source[Any]) -> None:
    """Yields of the source, numbered and counted, until its end, the frame limit or a drain."""
    context, board = loop.context, loop.board
    clock = _Continued(board, context.incarnation)
    produced = 0
    items = node.frames()
    started = time.monotonic_ns()
    try:
        for item in items:
            if isinstance(item, Packet):
                if loop.audio is not None:
                    item.pts += clock.offset(item.pts, item.time_base)
                    board.packets.add()
                    loop.audio.send_packet(item, cancelled=loop.aborted.is_set)
                continue
            if not produced:
                loop.running()
                if loop.audio is not None and not board.packets.value:
                    loop.audio.finish()  # no announcement before the first picture: no sound
            header = item.header
            header.pts += clock.offset(header.pts, header.time_base)
            clock.passed(header)
            header.seq = board.captured.value
            board.captured.add()
            loop.publish(item, None, header.capture_ns, max(started, header.capture_ns))
            produced += 1
            if context.stopping.is_set() or produced == loop.frames:
                break
            started = time.monotonic_ns()
    finally:
        close = getattr(items, "close", None)
        if close is not None:
            close()


class _Continued:
    """Lets a restarted source go on where it died: its clock does not begin at 0 again."""

    def __init__(self, board: NodeBoard, incarnation: int) -> None:
        self._board = board
        self._start: int | None = None
        if incarnation > 1 and board.captured.value:
            away = max(0, time.monotonic_ns() - board.last_ns.value)
            self._start = board.pts_end_ns.value + away
        self._shift: Fraction | None = None if self._start is not None else Fraction(0)

    def offset(self, pts: int, time_base: Fraction) -> int:
        if self._shift is None:
            assert self._start is not None
            self._shift = Fraction(self._start, 10**9) - pts * time_base
        return round(self._shift / time_base)

    def passed(self, header: Header) -> None:
        end = (header.pts + header.duration) * header.time_base
        self._board.pts_end_ns.set(int(end * 10**9))


def run_transform(loop: Loop, node: Transform[Any]) -> None:
    """One picture out for each picture in."""
    (key,) = (key for key, (link, _) in loop.feed.links.items() if link.media == "video")
    first = True
    while not loop.aborted.is_set():
        arrival = loop.feed.receive(key)
        if arrival is None:
            loop.feed.wait()
        elif isinstance(arrival, EndOfStream):
            return
        elif isinstance(arrival, Received):
            if first:
                loop.running()
                first = False
            _transform(loop, node, arrival)


def _transform(loop: Loop, node: Transform[Any], arrival: Received) -> None:
    loop.board.received.add()
    started = time.monotonic_ns()
    with arrival.frame as frame:
        try:
            result = node.process(frame)
        except FrameError as error:
            _failed(loop, frame.header, error)
            return
        loop.publish(result, frame.header, arrival.received_ns, started)
        del result


def _failed(loop: Loop, header: Header, error: FrameError) -> None:
    loop.board.dropped[Drop.FAILED].add()
    loop.context.log.warning("frame %d dropped: %s", header.seq, error)


def run_sink(loop: Loop, node: Sink[Any]) -> None:
    """Pictures, and between them audio packets, as they come; then the end."""
    video = [key for key, (link, _) in loop.feed.links.items() if link.media == "video"]
    audio = [key for key, (link, _) in loop.feed.links.items() if link.media == "audio"]
    announced = not audio
    first, ended = True, False
    while not loop.aborted.is_set():
        idle = True
        for key in audio:
            while isinstance(packet := loop.feed.receive(key), Packet):
                announced, idle = True, False
                loop.board.packets.add()
                node.audio(packet)
            announced = announced or isinstance(packet, EndOfStream)
        if ended and all(loop.feed.links[key][1].ended for key in audio):
            break
        if announced and not ended:
            arrival = loop.feed.receive(video[0])
            if isinstance(arrival, EndOfStream):
                ended, idle = True, False
            elif isinstance(arrival, Received):
                idle = False
                if first:
                    loop.running()
                    first = False
                _sink(loop, node, arrival)
        if idle:
            loop.feed.wait()
    node.finish()


def _sink(loop: Loop, node: Sink[Any], arrival: Received) -> None:
    board = loop.board
    board.received.add()
    started = time.monotonic_ns()
    with arrival.frame as frame:
        loop.context.withheld = False
        try:
            node.process(frame)
        except FrameError as error:
            _failed(loop, frame.header, error)
            return
        board.process.add_ns(time.monotonic_ns() - started)
        if not node.deferred and not loop.context.withheld:
            loop.context.delivered(frame.header)


def run_join(loop: Loop, node: Join[Any]) -> None:
    """One picture out for each of the leading input's, with the newest not later of the others."""
    keys = [key for key, (link, _) in loop.feed.links.items() if link.media == "video"]
    leader = keys[0]
    others = {key: _Other(loop.feed, key) for key in keys[1:]}
    first = True
    try:
        while not loop.aborted.is_set():
            arrival = loop.feed.receive(leader)
            if arrival is None:
                if loop.context.live:
                    for other in others.values():
                        other.look()
                loop.feed.wait()
            elif isinstance(arrival, EndOfStream):
                return
            elif isinstance(arrival, Received):
                if first:
                    loop.running()
                    first = False
                _join(loop, node, arrival, others)
    finally:
        for other in others.values():
            other.release()


def _join(loop: Loop, node: Join[Any], arrival: Received, others: dict[str, _Other]) -> None:
    board, context = loop.board, loop.context
    board.received.add()
    with arrival.frame as leader:
        for other in others.values():
            while not other.advance(leader.header) and not context.live:
                if loop.aborted.is_set():
                    return
                loop.feed.wait()
        started = time.monotonic_ns()
        frames: dict[str, Frame | None] = {context.input_names[0]: leader}
        for name, other in zip(context.input_names[1:], others.values(), strict=True):
            frames[name] = other.current
        if not node.partial and None in frames.values():
            board.dropped[Drop.UNMATCHED].add()
            return
        try:
            result = node.process(frames)
        except FrameError as error:
            _failed(loop, leader.header, error)
            return
        loop.publish(result, leader.header, arrival.received_ns, started)
        del result


class _Other:
    """An input of a join that does not lead: the picture shown and the one after it."""

    def __init__(self, feed: Feed, key: str) -> None:
        self._feed = feed
        self._key = key
        self.current: Frame | None = None
        self._next: Frame | None = None
        self._ended = False

    def look(self) -> None:
        """Takes what has come in, without using it yet."""
        if self._next is None and not self._ended:
            arrival = self._feed.receive(self._key)
            if isinstance(arrival, Received):
                self._next = arrival.frame
            elif isinstance(arrival, EndOfStream):
                self._ended = True

    def advance(self, leader: Header) -> bool:
        """Goes on to the newest picture that is not later than the leader's.

        Returns:
            Whether it is known to be that: a later one, or the end, or the very number has come.
        """
        while True:
            self.look()
            if self._next is None or _later(self._next.header, leader):
                break
            if self.current is not None:
                self.current.release()
            self.current, self._next = self._next, None
        same = self.current is not None and (
            self.current.header.stream == leader.stream and self.current.header.seq == leader.seq
        )
        return same or self._next is not None or self._ended

    def release(self) -> None:
        """Gives back what is held."""
        for frame in (self.current, self._next):
            if frame is not None:
                frame.release()
        self.current = self._next = None


def _later(header: Header, leader: Header) -> bool:
    if header.stream == leader.stream:
        return header.seq > leader.seq
    return header.pts * header.time_base > leader.pts * leader.time_base
