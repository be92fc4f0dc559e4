"""AAC in ADTS frames, as in MPEG-TS: taken apart, because files want it bare."""

from __future__ import annotations

from typing import NamedTuple


class Adts(NamedTuple):
    """One frame of AAC.

    Attributes:
        config: AudioSpecificConfig, 2 bytes: what the decoder must know.
        frame: the frame without its header.
    """

    config: bytes
    frame: bytes


def strip_adts(data: bytes) -> Adts | None:
    """Takes the header off an ADTS frame (ISO/IEC 13818-7, 6.2); None if there is none."""
    if len(data) < 7 or data[0] != 0xFF or data[1] & 0xF6 != 0xF0:
        return None
    header = 7 if data[1] & 1 else 9
    profile = (data[2] >> 6) + 1
    frequency = data[2] >> 2 & 0xF
    channels = (data[2] & 1) << 2 | data[3] >> 6
    if frequency > 12 or channels == 0 or len(data) <= header:
        return None
    config = profile << 11 | frequency << 7 | channels << 3
    return Adts(config.to_bytes(2, "big"), data[header:])
