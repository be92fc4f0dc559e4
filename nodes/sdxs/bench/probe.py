"""A sink that writes down which pictures came when, and by which parameters they were made."""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple, TextIO

import streamer


class Arrival(NamedTuple):
    """A picture at the sink.

    Attributes:
        seq: its number at the source.
        generation: of the parameters that it was made by.
        when_ns: of the host's monotonic clock.
    """

    seq: int
    generation: int
    when_ns: int


class ProbeParams(streamer.Params):
    """Where to write."""

    path: str
    """a file, one line a picture"""


class Probe(streamer.Sink[ProbeParams]):
    """Writes down every picture."""

    Params = ProbeParams
    _file: TextIO | None = None

    def open(self) -> None:
        """Opens the file."""
        self._file = open(self.params.path, "w", buffering=1)  # noqa: SIM115

    def process(self, frame: streamer.Frame) -> None:
        """Writes a line; the pixels are waited for, as by whoever shows them."""
        frame.numpy()
        print(frame.seq, frame.header.generation, time.monotonic_ns(), file=self._file)

    def close(self) -> None:
        """Closes the file."""
        if self._file is not None:
            self._file.close()


def arrivals(path: Path) -> list[Arrival]:
    """What a probe has written until now."""
    whole = path.read_text().rpartition("\n")[0]
    return [Arrival(*map(int, line.split())) for line in whole.splitlines()]
