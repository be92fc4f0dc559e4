"""Every exception that streamer raises on purpose.

::

    StreamerError
    ├── GraphError          the graph file or its parameters are wrong         exit status 2
    ├── ParameterError      a value that only the node itself could refuse     exit status 2
    ├── NodeError           a node cannot go on                                exit status 1
    │   ├── SourceError     an input cannot be opened or read
    │   └── SinkError       an output cannot be opened or written
    ├── FrameError          this one frame cannot be processed; it is dropped  (no exit)
    ├── LinkError           two nodes cannot pass frames                       exit status 1
    │   ├── ProtocolError   a peer sent bytes that are not of the protocol
    │   ├── LeaseError      a frame was used after it was given back
    │   └── SlabError       slots for frames cannot be had or reached
    │       └── DeviceError a GPU is not there, or refuses a call
    └── RunError            the run as a whole failed                          exit status 1

A message names the thing, the rule and the value, and what to do. `exit_status` is what the
command line returns; `retry` says whether starting the node again may help.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from streamer.runtime.report import Report


class StreamerError(Exception):
    """Base of all errors of streamer."""

    exit_status: int = 1
    retry: bool = False


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in a graph file.

    Attributes:
        file: path as the user gave it, or `--set` for an override.
        line: 1-based line, 0 where there is none.
        column: 1-based column, 0 where there is none.
        message: what is wrong, and what would be right.
    """

    file: str
    line: int
    column: int
    message: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        return f"{place}: {self.message}"


class GraphError(StreamerError):
    """A graph file is wrong; `problems` holds every mistake that was found, in file order."""

    exit_status = 2

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class ParameterError(StreamerError):
    """A parameter's value was refused by the node when it opened."""

    exit_status = 2


class NodeError(StreamerError):
    """A node cannot go on.

    Args:
        message: one sentence; the runtime puts the node's name in front.
        retry: whether starting the node again may help (a camera that is away, say).
    """

    def __init__(self, message: str, *, retry: bool = False) -> None:
        super().__init__(message)
        self.retry = retry


class SourceError(NodeError):
    """An input cannot be opened or read."""


class SinkError(NodeError):
    """An output cannot be opened or written."""


class FrameError(StreamerError):
    """This frame cannot be processed: it is dropped with reason `failed`, and the node goes on."""


class LinkError(StreamerError):
    """Two nodes cannot pass frames to each other."""


class ProtocolError(LinkError):
    """A peer sent bytes that are not of the link protocol."""


class LeaseError(LinkError):
    """A frame, or a view of its pixels, was used or kept after its lease ended."""


class SlabError(LinkError):
    """Memory for frames cannot be had, exported or attached."""


class DeviceError(SlabError):
    """A GPU is not there, or its runtime refuses a call.

    Args:
        message: one sentence.
        out_of_memory: whether it is its memory that is short, which may pass.
        lost: whether every call of this process fails from now on; another process may help.
    """

    def __init__(self, message: str, *, out_of_memory: bool = False, lost: bool = False) -> None:
        super().__init__(message)
        self.out_of_memory = out_of_memory
        self.lost = lost
        self.retry = lost


class RunError(StreamerError):
    """A run failed as a whole: a node gave up, or a worker could not be started.

    Attributes:
        report: what was done until then; None if nothing was started.
    """

    report: Report | None = None
