"""Outputs of one container that is not divided: image sequences and virtual cameras."""

from __future__ import annotations

from nodes.encoder.mux import Addable, Mux, muxer_options
from nodes.encoder.order import Due
from nodes.encoder.outputs import Output
from nodes.encoder.video import VideoEncoder
from streamer import Header


class Single:
    """See the module.

    Args:
        output: where to.
        options: of the muxer, by FFmpeg's names; they win over the usual ones.
        start_number: of the first picture of an image sequence.
    """

    def __init__(self, output: Output, options: dict[str, str], *, start_number: int = 1) -> None:
        self._output = output
        self._options = {**muxer_options(output, start_number=start_number), **options}
        self._mux: Mux | None = None

    def start(self, tracks: list[Addable], video: VideoEncoder) -> None:
        """Opens the container."""
        self._mux = Mux(self._output, tracks, self._options)

    def write(self, due: Due, header: Header | None) -> bool:
        """Writes a packet."""
        assert self._mux is not None
        self._mux.write(due.stream, due.packet)
        return True

    def close(self) -> None:
        """Closes the container."""
        if self._mux is not None:
            self._mux.close()

    def abandon(self) -> None:
        """Closes the container as well as can be."""
        if self._mux is not None:
            self._mux.abandon()
