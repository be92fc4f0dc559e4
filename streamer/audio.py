"""Sound beside the pictures: packets, compressed as the source has them."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction


@dataclass(slots=True, kw_only=True)
class AudioFormat:
    """What a decoder of a compressed audio stream must know.

    Attributes:
        codec: FFmpeg's codec name, `aac` or `opus` say.
        sample_rate: hertz.
        layout: FFmpeg's channel layout, `stereo` say.
        extradata: the codec's own header, at most 64 KiB.
        frame_size: samples of one packet, 0 if it varies.
    """

    codec: str
    sample_rate: int
    layout: str
    extradata: bytes = b""
    frame_size: int = 0


@dataclass(slots=True, kw_only=True)
class Packet:
    """One packet of compressed audio, beside the pictures on the same clock.

    Attributes:
        stream: name of the source node.
        pts: presentation time in units of `time_base`.
        time_base: seconds in one unit.
        duration: in units of `time_base`; 0 if unknown.
        data: the packet's bytes, at most 1 MiB.
        audio: the stream's format.
    """

    stream: str
    pts: int
    time_base: Fraction
    duration: int
    data: bytes
    audio: AudioFormat
