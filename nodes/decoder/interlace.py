"""Interlaced pictures made whole, only where the decoder says that they are interlaced."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from av.error import BlockingIOError as AgainError
from av.error import EOFError as EndError
from av.filter import Graph

if TYPE_CHECKING:
    from fractions import Fraction

    from av.video.frame import VideoFrame


class Deinterlacer:
    """Passes progressive pictures through, and weaves the fields of the others into whole ones.

    Uses FFmpeg's bwdif, one picture out for each one in. It looks a picture ahead, so pictures
    come one later from the first interlaced one on.

    Args:
        time_base: seconds in one unit of the pictures' times.
    """

    def __init__(self, time_base: Fraction) -> None:
        self._time_base = time_base
        self._graph: Graph | None = None
        self._shape: tuple[int, int, str] | None = None

    def passed(self, frame: VideoFrame | None) -> Iterator[VideoFrame]:
        """Pictures that are ready; None flushes at the end."""
        if frame is None:
            yield from self._drain()
            return
        shape = (frame.width, frame.height, frame.format.name)
        if self._shape not in (None, shape):
            yield from self._drain()
        if self._graph is None:
            if not frame.interlaced_frame:
                yield frame
                return
            self._build(frame, shape)
        assert self._graph is not None
        self._graph.vpush(frame)
        yield from self._ready()

    def _build(self, frame: VideoFrame, shape: tuple[int, int, str]) -> None:
        graph = Graph()
        source = graph.add_buffer(
            width=frame.width,
            height=frame.height,
            format=frame.format,
            time_base=self._time_base,
        )
        weave = graph.add("bwdif", "mode=send_frame:parity=auto:deint=interlaced")
        graph.link_nodes(source, weave, graph.add("buffersink"))
        graph.configure()
        self._graph, self._shape = graph, shape

    def _ready(self) -> Iterator[VideoFrame]:
        assert self._graph is not None
        while True:
            try:
                frame = self._graph.vpull()
            except (AgainError, EndError):
                return
            # bwdif counts in half units, for those who want a picture for each field.
            scale = frame.time_base / self._time_base if frame.time_base else 1
            if scale != 1:
                frame.pts = None if frame.pts is None else round(frame.pts * scale)
                frame.duration = round(frame.duration * scale)
            yield frame

    def _drain(self) -> Iterator[VideoFrame]:
        if self._graph is not None:
            self._graph.vpush(None)
            yield from self._ready()
            self._graph = self._shape = None
