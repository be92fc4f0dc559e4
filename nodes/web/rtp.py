"""H.264 and Opus as payloads of RTP: made once, sent to every viewer under its own header."""

from __future__ import annotations

import struct
import time
from dataclasses import dataclass
from typing import Final

LONGEST: Final = 1180
"""bytes of one payload: with the headers of RTP, SRTP, UDP and IPv6 it fits into 1280"""

MOST_WAITING: Final = 1 << 20
"""bytes that may wait for the system to take them before a viewer skips to the next keyframe"""

_FU_A: Final = 28
_HEADER: Final = struct.Struct("!BBHII")


@dataclass(frozen=True, slots=True)
class Payloads:
    """What is sent at one time of the stream.

    Attributes:
        media: `video` or `audio`.
        parts: payloads, in order; the last one is marked.
        pts: in units of the media's clock, 1/90000 s or 1/48000 s.
        entry: whether a viewer can begin with it.
        made: `time.monotonic()`.
    """

    media: str
    parts: tuple[bytes, ...]
    pts: int
    entry: bool
    made: float

    def __len__(self) -> int:
        return sum(map(len, self.parts))


def payloads_of_h264(data: bytes, pts: int, *, key: bool) -> Payloads:
    """The payloads of one picture, by RFC 6184 in mode 1: whole units, or parts of one.

    Args:
        data: H.264 with start codes.
        pts: in units of 1/90000 s.
        key: whether it is a keyframe with its parameter sets.
    """
    parts: list[bytes] = []
    for unit in units_of(data):
        if len(unit) <= LONGEST:
            parts.append(unit)
        else:
            parts += _fragments(unit)
    return Payloads("video", tuple(parts), pts, key, time.monotonic())


def units_of(data: bytes) -> list[bytes]:
    """The NAL units of a byte stream, without start codes and the zeros around them."""
    starts = []
    at = data.find(b"\0\0\1")
    while at >= 0:
        starts.append(at)
        at = data.find(b"\0\0\1", at + 3)
    ends = [*starts[1:], len(data)]
    units = (data[start + 3 : end].rstrip(b"\0") for start, end in zip(starts, ends, strict=False))
    return [unit for unit in units if unit]


def _fragments(unit: bytes) -> list[bytes]:
    """FU-A: a unit in parts of nearly equal size."""
    header, body = unit[0], unit[1:]
    count = -(-len(body) // (LONGEST - 2))
    size = -(-len(body) // count)
    indicator, kind = header & 0xE0 | _FU_A, header & 0x1F
    parts = []
    for start in range(0, len(body), size):
        end = start + size >= len(body)
        flags = (0x80 if start == 0 else 0) | (0x40 if end else 0)
        parts.append(bytes((indicator, flags | kind)) + body[start : start + size])
    return parts


def header(*, marker: bool, payload_type: int, number: int, ticks: int, ssrc: int) -> bytes:
    """The fixed header of RTP (RFC 3550), 12 bytes.

    Args:
        marker: whether this is the last packet of its picture.
        payload_type: 0 to 127, as negotiated.
        number: of the packet; its lowest 16 bits are taken.
        ticks: time in units of the media's clock; its lowest 32 bits are taken.
        ssrc: of the stream.
    """
    return _HEADER.pack(
        0x80, (0x80 if marker else 0) | payload_type, number & 0xFFFF, ticks & 0xFFFFFFFF, ssrc
    )
