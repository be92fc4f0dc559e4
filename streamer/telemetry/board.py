"""The board: all counters and histograms of a run in one shared memory.

The supervisor makes it and every worker maps it, so a count survives the process that made it,
and the live display, the interim and the final report read the same numbers. Each cell has one
writer: the worker that holds the node (for a link: the producer's side its own cells, the
consumer's side the others).
"""

from __future__ import annotations

import mmap
import os
import threading
from collections.abc import Iterable, Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

from streamer.drops import COUNTED, Drop
from streamer.errors import SlabError
from streamer.status import Count
from streamer.telemetry.histogram import CELLS, Histogram

Cells = npt.NDArray[np.int64]

_NODE_CELLS: Final = (
    "captured",  # sources: pictures that entered the graph
    "received",  # pictures taken from the leading input
    "emitted",  # pictures published
    "delivered",  # sinks: pictures that left
    "copies",  # copies of whole pictures made by the runtime
    "uploaded",  # bytes copied from host memory to a GPU
    "downloaded",  # and back
    "repeated",  # pictures that show a former result again
    "spoiled",  # those among them that could not be made
    "packets",  # audio packets passed on or taken
    "first_ns",  # CLOCK_MONOTONIC when the first picture was published; at sinks, received
    "last_ns",  # and when the latest was published; at sinks, delivered
    "expected",  # sources: pictures that will come, 0 if unknown
    "generation",  # sinks: of the parameters that the latest picture was made with
    "generation_ns",  # sinks: CLOCK_MONOTONIC when the first picture of it was delivered
    "pts_end_ns",  # sources: end of the stream so far, for a restart to continue from
    "mended",  # sources: times put right
    "filled",  # sinks: pictures shown in place of ones that did not come
    "skipped",  # sinks with viewers: pictures that some viewer was too slow for
    "hardware",  # pictures that a codec of the GPU has decoded or encoded
    "passed",  # pictures passed on as they came; at sinks, delivered ones that somebody passed on
    "viewers",  # sinks with viewers: how many watch now
    "viewers_most",  # and how many did at most
    "status",  # how the connection to the outside stands: its place in `Status`, from 1; 0: none
    "status_ns",  # CLOCK_MONOTONIC when that began
    "reconnects",  # how often it came back
    "away_ns",  # how long it was away in all, up to the last return
    "beat_ns",  # CLOCK_MONOTONIC when the node last showed that it is not hung; 0: not watched
    "pulse_ns",  # the same of its worker's main thread
    "warming",  # 1 while the node gets ready beside its frame loop, and passes pictures on
    "handling",  # number of the picture that is being processed, from 1; 0 between pictures
)
_LINK_CELLS: Final = (
    "offered",
    "received",
    "on_gpu",  # 1 if pictures went over in a GPU's memory, last
)


_adding = threading.RLock()  # garbage, and slots with it, may be collected while it is held


class Cell:
    """One integer of the board."""

    __slots__ = ("_cells", "_index")

    def __init__(self, cells: Cells, index: int) -> None:
        self._cells = cells
        self._index = index

    def add(self, count: int = 1) -> None:
        """Counts; also from several threads of the worker."""
        with _adding:
            self._cells[self._index] += count

    def set(self, value: int) -> None:
        """Overwrites."""
        self._cells[self._index] = value

    @property
    def value(self) -> int:
        """The number as it stands."""
        return int(self._cells[self._index])


class NodeBoard:
    """Cells of one node."""

    def __init__(self, cells: Cells) -> None:
        names = iter(range(len(cells)))
        self.captured = Cell(cells, next(names))
        self.received = Cell(cells, next(names))
        self.emitted = Cell(cells, next(names))
        self.delivered = Cell(cells, next(names))
        self.copies = Cell(cells, next(names))
        self.uploaded = Cell(cells, next(names))
        self.downloaded = Cell(cells, next(names))
        self.repeated = Cell(cells, next(names))
        self.spoiled = Cell(cells, next(names))
        self.packets = Cell(cells, next(names))
        self.first_ns = Cell(cells, next(names))
        self.last_ns = Cell(cells, next(names))
        self.expected = Cell(cells, next(names))
        self.generation = Cell(cells, next(names))
        self.generation_ns = Cell(cells, next(names))
        self.pts_end_ns = Cell(cells, next(names))
        self.counts: dict[Count, Cell] = {what: Cell(cells, next(names)) for what in Count}
        self.viewers = Cell(cells, next(names))
        self.viewers_most = Cell(cells, next(names))
        self.status = Cell(cells, next(names))
        self.status_ns = Cell(cells, next(names))
        self.reconnects = Cell(cells, next(names))
        self.away_ns = Cell(cells, next(names))
        self.beat_ns = Cell(cells, next(names))
        self.pulse_ns = Cell(cells, next(names))
        self.warming = Cell(cells, next(names))
        self.handling = Cell(cells, next(names))
        self.dropped: dict[Drop, Cell] = {r: Cell(cells, next(names)) for r in COUNTED}
        start = next(names)
        self.process = Histogram(cells[start : start + CELLS])
        self.age = Histogram(cells[start + CELLS : start + 2 * CELLS])

    @property
    def worked(self) -> bool:
        """Whether the node has ever made or delivered a picture; passing it on is no work."""
        made = self.emitted.value > self.counts[Count.PASSED].value
        return made or self.delivered.value > 0


class LinkBoard:
    """Cells of one link."""

    def __init__(self, cells: Cells) -> None:
        self.offered = Cell(cells, 0)
        self.received = Cell(cells, 1)
        self.on_gpu = Cell(cells, 2)
        self.dropped: dict[Drop, Cell] = {
            reason: Cell(cells, index)
            for index, reason in enumerate(COUNTED, start=len(_LINK_CELLS))
        }
        start = len(_LINK_CELLS) + len(COUNTED)
        self.hop = Histogram(cells[start : start + CELLS])


_NODE_SIZE: Final = len(_NODE_CELLS) + len(COUNTED) + 2 * CELLS
_LINK_SIZE: Final = len(_LINK_CELLS) + len(COUNTED) + CELLS


class Board:
    """Counters of all nodes and links of a run.

    Args:
        nodes: node names; the order decides the layout, so both ends pass the same.
        links: link keys, likewise.
        fd: descriptor of the shared memory; without it the board is private to the process.

    Attributes:
        nodes: cells by node name.
        links: cells by link key.
    """

    def __init__(
        self, nodes: Iterable[str], links: Iterable[str], *, fd: int | None = None
    ) -> None:
        nodes, links = tuple(nodes), tuple(links)
        size = len(nodes) * _NODE_SIZE + len(links) * _LINK_SIZE
        if fd is None:
            cells: Cells = np.zeros(size, dtype=np.int64)
        else:
            cells = np.frombuffer(mmap.mmap(fd, size * 8), dtype=np.int64)
        self.nodes: Mapping[str, NodeBoard] = {
            name: NodeBoard(cells[index * _NODE_SIZE : (index + 1) * _NODE_SIZE])
            for index, name in enumerate(nodes)
        }
        base = len(nodes) * _NODE_SIZE
        self.links: Mapping[str, LinkBoard] = {
            key: LinkBoard(cells[base + index * _LINK_SIZE : base + (index + 1) * _LINK_SIZE])
            for index, key in enumerate(links)
        }

    @staticmethod
    def share(nodes: Iterable[str], links: Iterable[str]) -> int:
        """A new shared memory of the right size, all 0: the descriptor to pass as `fd`.

        Raises:
            SlabError: it cannot be had.
        """
        size = 8 * (len(tuple(nodes)) * _NODE_SIZE + len(tuple(links)) * _LINK_SIZE)
        try:
            fd = os.memfd_create("streamer-board", os.MFD_CLOEXEC)
        except OSError as error:
            raise SlabError(f"no shared memory for counters: {error.strerror}") from error
        try:
            os.ftruncate(fd, size)
        except OSError as error:
            os.close(fd)
            raise SlabError(f"no {size} bytes for counters: {error.strerror}") from error
        return fd
