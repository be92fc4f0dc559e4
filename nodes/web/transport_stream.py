"""MPEG-TS muxed once for all viewers: pieces of bytes, some of which a viewer can begin with."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

import av
from av.error import FFmpegError

from nodes.encoder.failures import reason
from nodes.encoder.outputs import MPEGTS
from nodes.encoder.sound import Sound, add_sound
from nodes.web.video import TIME_BASE, Coded
from streamer import Packet, SinkError

_OPTIONS: Final = {
    # Tables before each picture, so that a viewer can begin with any keyframe.
    "mpegts_flags": "pat_pmt_at_frames",
    # Else sound is collected to packets of 2.9 kB, a third of a second of it, say.
    "pes_payload_size": "0",
    "flush_packets": "1",
    "max_delay": "0",
    # How long pictures wait for sound that does not come, in microseconds.
    "max_interleave_delta": "100000",
}


@dataclass(frozen=True, slots=True)
class Chunk:
    """A few packets of MPEG-TS.

    Attributes:
        data: whole packets of 188 bytes.
        entry: whether it begins with tables and a keyframe.
        made: `time.monotonic()`.
    """

    data: bytes
    entry: bool
    made: float

    def __len__(self) -> int:
        return len(self.data)


class _Collected:
    """A file that keeps what is written to it."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []

    def write(self, data: bytes) -> int:
        self.parts.append(bytes(data))
        return len(data)

    def take(self) -> bytes:
        data = b"".join(self.parts)
        self.parts.clear()
        return data


class TransportStream:
    """One MPEG-TS of pictures and, if the source has it, sound.

    Args:
        size: of the pictures, pixels.
        sound: a packet of the sound with its format, None for no sound.
        log: for what a user should know.

    Raises:
        SinkError: it cannot be begun.
    """

    def __init__(self, size: tuple[int, int], *, sound: Packet | None, log: logging.Logger) -> None:
        self._file = _Collected()
        try:
            self._container = av.open(self._file, "w", format="mpegts", container_options=_OPTIONS)
            # Pictures come encoded; only their sizes are told.
            self._video = self._container.add_mux_stream(
                "h264", rate=30, width=size[0], height=size[1]
            )
            self._video.time_base = TIME_BASE
            self._sound: Sound | None = None
            if sound is not None:
                self._sound = add_sound(self._container, sound, MPEGTS, log=log)
            self._container.start_encoding()
        except (FFmpegError, ValueError) as error:
            raise SinkError(f"MPEG-TS cannot be begun: {reason(error)}", retry=True) from error
        self._file.take()

    def picture(self, coded: Coded) -> Chunk:
        """Muxes a picture.

        Raises:
            SinkError: it cannot be muxed.
        """
        packet = av.Packet(coded.data)
        packet.pts = packet.dts = coded.pts
        packet.time_base = TIME_BASE
        packet.is_keyframe = coded.key
        packet.stream = self._video
        return self._muxed([packet], entry=coded.key)

    def sound(self, packet: Packet, at: Fraction) -> Chunk | None:
        """Muxes a packet of sound that is heard from `at` seconds on; None if nothing comes of it.

        Raises:
            SinkError: it cannot be muxed.
        """
        if self._sound is None:
            return None
        chunk = self._muxed(self._sound.packets(packet, at), entry=False)
        return chunk if chunk.data else None

    def _muxed(self, packets: Iterable[av.Packet[Any]], *, entry: bool) -> Chunk:
        try:
            for packet in packets:
                self._container.mux_one(packet)
        except FFmpegError as error:
            raise SinkError(f"muxing MPEG-TS failed: {reason(error)}", retry=True) from error
        return Chunk(self._file.take(), entry, time.monotonic())

    def close(self) -> None:
        """Ends it; never raises."""
        try:
            self._container.close()
        except (FFmpegError, ValueError):
            pass  # nobody reads the end of it
        self._file.take()
