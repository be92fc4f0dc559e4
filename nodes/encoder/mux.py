"""One container in this process, from its header to its trailer."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any, Final, Protocol

import av
from av.error import FFmpegError

from nodes.encoder.directives import is_numbered
from nodes.encoder.failures import failure
from nodes.encoder.outputs import Output
from nodes.paths import for_ffmpeg

FRAGMENT: Final = Fraction(1, 2)
"""seconds of a recording that a sudden death may take away, beside what the encoder holds"""


class Addable(Protocol):
    """A stream that can be added to a container: `Track` or `Encoding`."""

    def add_to(self, container: Any) -> Any:
        """Adds it, and returns FFmpeg's stream."""
        ...


class Mux:
    """Writes packets of one or two streams to one container.

    Args:
        output: where to.
        tracks: the video, then the sound if there is any.
        options: of the muxer, by FFmpeg's names.

    Raises:
        SinkError: the container cannot be opened.
    """

    def __init__(self, output: Output, tracks: list[Addable], options: dict[str, str]) -> None:
        self.output = output
        self._ended = False
        try:
            self._container = av.open(
                output.url if output.path is None else for_ffmpeg(output.url),
                "w",
                format=output.container.muxer,
                container_options=options,
            )
        except FFmpegError as error:
            raise failure(output, "open", error) from error
        try:
            self._streams = [track.add_to(self._container) for track in tracks]
            self._container.start_encoding()
        except (FFmpegError, ValueError) as error:
            self.abandon()
            raise failure(output, "open", error) from error
        except BaseException:
            self.abandon()
            raise

    def write(self, stream: int, packet: av.Packet[Any]) -> None:
        """Muxes one packet; its times become the container's.

        Raises:
            SinkError: the output cannot be written to.
        """
        packet.stream = self._streams[stream]
        try:
            self._container.mux_one(packet)
        except FFmpegError as error:
            raise failure(self.output, "write to", error) from error

    def close(self) -> None:
        """Writes the trailer.

        Raises:
            SinkError: the output cannot be written to.
        """
        if self._ended:
            return
        self._ended = True
        try:
            self._container.close()
        except FFmpegError as error:
            raise failure(self.output, "finish", error) from error

    def abandon(self) -> None:
        """Closes the output as well as can be, after an error; never raises."""
        if self._ended:
            return
        self._ended = True
        try:
            self._container.close()
        except (FFmpegError, ValueError):
            # The first error has been told; this one says the same.
            pass


def plays(path: Path) -> bool:
    """Whether a player finds a picture in a file."""
    try:
        with av.open(for_ffmpeg(str(path))) as container:
            return any(
                packet.size > 0 and not packet.is_corrupt
                for packet in container.demux(container.streams.video)
            )
    except (FFmpegError, ValueError):
        return False


def muxer_options(output: Output, *, start_number: int = 1) -> dict[str, str]:
    """Options that keep latency low, and what is written playable at any moment.

    Args:
        output: where to.
        start_number: of the first picture of an image sequence.
    """
    muxer = output.container.muxer
    # How long pictures wait for sound that does not come, in microseconds. Packets come in order,
    # so that this is for players' sake only.
    options = {"flush_packets": "1", "max_interleave_delta": "100000"}
    if muxer in ("mp4", "mov"):
        if output.kind == "file":
            # Fragments while it is written, an ordinary file in the end: playable after a sudden
            # death, and seekable everywhere. Delaying the header lets it hold the edit list.
            flags = "hybrid_fragmented+frag_keyframe+delay_moov+default_base_moof"
        else:
            flags = "frag_keyframe+empty_moov+default_base_moof"
        options |= {"movflags": flags, "frag_duration": str(int(FRAGMENT * 10**6))}
    elif muxer in ("matroska", "webm"):
        options["cluster_time_limit"] = str(int(FRAGMENT * 1000))
        if output.live:
            options["live"] = "1"
    elif muxer == "mpegts" and output.live:
        # Else sound is collected to packets of 2.9 kB, a third of a second of it, say.
        options["pes_payload_size"] = "0"
    elif muxer == "flv" and output.live:
        options["flvflags"] = "no_duration_filesize"
    elif muxer == "rtsp":
        options["rtsp_transport"] = "tcp"
    elif muxer == "image2":
        options = {"start_number": str(start_number)}
        if not is_numbered(output.url):
            options = {"update": "1", "atomic_writing": "1"}
    elif muxer == "v4l2":
        options = {}
    return options
