"""The frame loops of the four kinds of nodes: receive, process, count, publish."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final, cast

import numpy as np

from streamer.audio import Packet
from streamer.drops import Drop
from streamer.errors import FrameError, NodeError, StreamerError
from streamer.frame import Frame
from streamer.header import Header, Hop
from streamer.link.consumer import Mark
from streamer.link.inlet import EndOfStream, Received
from streamer.link.outlet import Outlet
from streamer.link.wire import Watermark
from streamer.nodebase import Join, Node, Sink, Source, Transform
from streamer.runtime.context import RuntimeContext
from streamer.runtime.feed import Feed
from streamer.runtime.output import OutputFrame
from streamer.telemetry.board import NodeBoard

_LONGEST_WAIT: Final = 1.0
"""seconds after which a sink without pictures looks round"""


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
        finishing: for sinks: called once, when the last picture has been taken.
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
    finishing: Callable[[], None]

    def run(self) -> None:
        """Runs until the stream ends.

        Raises:
            StreamerError: the node cannot go on.
        """
        match self.node:
            case Source():
                run_source(self, self.node)
            case Join():
                from streamer.runtime.joining import run_join

                run_join(self, self.node)
            case Transform():
                run_transform(self, self.node)
            case Sink():
                run_sink(self, self.node)
            case _:
                raise NodeError(f"{type(self.node).__name__} is no source, transform, join or sink")

    @contextmanager
    def handling(self, header: Header) -> Iterator[None]:
        """Notes on the board which picture is being processed, for whoever finds us dead."""
        self.board.handling.set(header.seq + 1)
        yield
        self.board.handling.set(0)  # and not after an error that ends the node
        self.context.beat()

    def publish(self, result: Any, like: Header | None, received: int, started: int) -> None:
        """Publishes what a node has returned for a frame, or counts why it returned nothing."""
        board, context = self.board, self.context
        # Waiting for the next node is no work of this one.
        waited, context.waited_ns = context.waited_ns, 0
        if result is None:
            if not context.withheld:
                board.dropped[Drop.FILTERED].add()
            self._passed(like)
            return
        if context.withheld and like is not None:
            raise NodeError("counted a frame as dropped and returned a picture for it all the same")
        assert self.outlet is not None
        if isinstance(result, OutputFrame):
            out = result
        else:
            out = self._copied(result, like)
        now = time.monotonic_ns()
        out.header.trace.append(Hop(context.name, received, started, now))
        if not context.passing:  # else the parameters had no part in it
            out.header.generation = max(out.header.generation, context.generation)
        board.process.add_ns(max(0, now - started - waited))
        board.emitted.add()
        if not board.first_ns.value:
            board.first_ns.set(now)
        board.last_ns.set(now)
        out.publish(check_views=like is not None)

    def drop(self, reason: Drop, header: Header) -> None:
        """Counts a frame that goes no further."""
        if not self.context.withheld:
            self.board.dropped[reason].add()
        self._passed(header)

    def failed(self, header: Header, error: FrameError) -> None:
        """Counts a frame that the node could not process."""
        _forget_variables(error)
        self.drop(Drop.FAILED, header)
        self.context.log.warning("frame %d dropped: %s", header.seq, error)

    def pass_on(self, watermark: Watermark) -> None:
        """Tells those behind that pictures up to a mark will not come."""
        if self.outlet is not None:
            w = watermark
            self.outlet.pass_by(Mark(w.stream, w.seq, w.pts, w.time_base))

    def _passed(self, header: Header | None) -> None:
        if header is not None and self.outlet is not None:
            self.outlet.pass_by(Mark.of(header))

    def _on_device(self, result: Any) -> bool:
        """Whether a node has returned an array in its GPU's memory."""
        device, shape = self.context.device, getattr(result, "shape", None)
        if device is None or isinstance(result, np.ndarray) or shape is None:
            return False
        try:
            return device.pointer_of(result, tuple(shape)) is not None
        except ValueError as error:
            raise NodeError(f"returned {error}, which is no picture") from None

    def _copied(self, result: Any, like: Header | None) -> OutputFrame:
        """Copies a picture that lies in the node's own memory into a slot, and counts it."""
        if isinstance(result, Frame):
            array = result.cupy() if result.memory == "cuda" else result.numpy()
            pixel_format, like = result.format, like or result.header
        else:
            array = result if self._on_device(result) else _as_array(result)
            pixel_format = "gray" if array.ndim == 2 else "rgb24"
        assert like is not None  # only sources have none, and they yield frames
        height, width = array.shape[:2]
        if isinstance(result, Frame):
            width, height = result.width, result.height
        out = cast(OutputFrame, self.context.allocate(width, height, pixel_format, like=like))
        try:
            out.write(array)
        except ValueError as error:
            raise NodeError(f"returned {error}, which is no picture") from None
        self.board.copies.add()
        return out


def _as_array(result: Any) -> np.ndarray[Any, np.dtype[np.uint8]]:
    try:
        array = np.asarray(result)
    except (TypeError, ValueError):
        raise NodeError(f"returned a {type(result).__name__}, which is no picture") from None
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or array.shape[2:] not in ((), (3,)):
        raise NodeError(
            f"returned a picture of {array.dtype} and shape {array.shape}; "
            "a picture is uint8, (height, width, 3) for rgb24 or (height, width) for gray"
        )
    return array


def _forget_variables(error: BaseException | None) -> None:
    """Lets go of the variables that an error keeps, views of a frame among them."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def run_source(loop: Loop, node: Source[Any]) -> None:
    """Yields of the source, numbered and counted, until its end, the frame limit or a drain."""
    context, board = loop.context, loop.board
    clock = _Continued(board, context.incarnation)
    first, announced = True, False
    if loop.frames is not None and board.emitted.value >= loop.frames:
        return  # started again after its last picture
    items = node.frames()
    started = time.monotonic_ns()
    try:
        for item in items:
            if isinstance(item, Packet):
                if loop.audio is not None:
                    announced = True
                    if item.data:  # an announcement has no time of its own
                        item.pts += clock.offset(item.pts, item.time_base)
                        board.packets.add()
                    loop.audio.send_packet(item, cancelled=context.cancelled)
                context.beat()
                continue
            if not isinstance(item, Frame):
                raise NodeError(
                    f"yielded a {type(item).__name__}; a source yields frames from "
                    "context.allocate, and audio packets"
                )
            if loop.outlet is not None and loop.outlet.finished:
                break  # it took too long to end, and its stream was ended for it
            if first:
                first = False
                loop.running()
                if loop.audio is not None and not announced:
                    loop.audio.finish()  # no announcement before the first picture: no sound
            header = item.header
            header.stream = context.name
            header.pts += clock.offset(header.pts, header.time_base)
            clock.passed(header)
            header.seq = board.captured.value
            board.captured.add()
            loop.publish(item, None, header.capture_ns, max(started, header.capture_ns))
            context.beat()
            if context.stopping.is_set() or board.emitted.value == loop.frames:
                break
            loop.feed.answer()
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
        if incarnation > 1 and board.last_ns.value:
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
            loop.feed.wait(key)
        elif isinstance(arrival, EndOfStream):
            return
        elif isinstance(arrival, Watermark):
            loop.pass_on(arrival)
        elif isinstance(arrival, Received):
            if first:
                loop.running()
                first = False
            _transform(loop, node, arrival)


def _transform(loop: Loop, node: Transform[Any], arrival: Received) -> None:
    loop.board.received.add()
    loop.context.withheld = loop.context.passing = False
    started = time.monotonic_ns()
    with arrival.frame as frame, loop.handling(frame.header):
        result = None
        try:
            result = node.process(frame)
            loop.publish(result, frame.header, arrival.received_ns, started)
        except FrameError as error:  # also where there is no room for what was returned
            result = None  # it may be a view of the frame
            loop.failed(frame.header, error)
        del result


def run_sink(loop: Loop, node: Sink[Any]) -> None:
    """Pictures, and between them audio packets, as they come; then the end."""
    (video,) = (key for key, (link, _) in loop.feed.links.items() if link.media == "video")
    audio = [key for key, (link, _) in loop.feed.links.items() if link.media == "audio"]
    announced = not audio
    silent = True
    first, ended = True, False
    while not loop.aborted.is_set():
        idle = True
        for key in audio:
            while isinstance(packet := loop.feed.receive(key), Packet):
                announced, idle = True, False
                if packet.data or silent:  # a source that was started again announces once more
                    node.audio(packet)
                silent = False
                if packet.data:
                    loop.board.packets.add()
            announced = announced or isinstance(packet, EndOfStream)
        if ended and all(loop.feed.links[key][1].ended for key in audio):
            break
        if announced and not ended:
            arrival = loop.feed.receive(video)
            if isinstance(arrival, EndOfStream):
                ended, idle = True, False
            elif isinstance(arrival, Watermark):
                idle = False
            elif isinstance(arrival, Received):
                idle = False
                if first:
                    loop.running()
                    first = False
                _sink(loop, node, arrival)
        if idle:
            again = node.idle()
            seconds = _LONGEST_WAIT if again is None else min(max(again, 0.0), _LONGEST_WAIT)
            keys = [*audio, *([video] if announced and not ended else [])]
            loop.feed.wait(*keys, seconds=seconds)
    loop.finishing()
    try:
        node.finish()
    except StreamerError:
        raise
    except Exception as error:
        # Starting it again would begin another output, not end this one.
        raise NodeError(f"the output cannot be ended: {type(error).__name__}: {error}") from error


def _sink(loop: Loop, node: Sink[Any], arrival: Received) -> None:
    board = loop.board
    board.received.add()
    if not board.first_ns.value:
        board.first_ns.set(arrival.received_ns)
    loop.context.withheld = False
    started = time.monotonic_ns()
    with arrival.frame as frame, loop.handling(frame.header):
        try:
            node.process(frame)
        except FrameError as error:
            loop.failed(frame.header, error)
            return
        board.process.add_ns(time.monotonic_ns() - started)
        if not node.deferred and not loop.context.withheld:
            loop.context.delivered(frame.header)
