"""Sound for WebRTC: Opus, copied from the source or encoded, once for all viewers."""

from __future__ import annotations

import io
import logging
import time
from fractions import Fraction
from typing import Final

import av
from av.error import FFmpegError

from nodes.encoder.failures import reason
from nodes.encoder.outputs import Container
from nodes.encoder.sound import Sound, add_sound
from nodes.web.rtp import Payloads
from streamer import Packet, SinkError

RATE: Final = 48000
"""units of RTP's clock for Opus in a second, whatever the sound was sampled at"""

# Opus of more than two channels has a form of its own, which RTP does not carry.
_CHANNELS: Final = 2
_CONTAINER: Final = Container("matroska", (), (), frozenset({"opus"}), "libopus")


class Opus:
    """Makes payloads of Opus.

    Args:
        first: a packet of the sound with its format.
        log: for what a user should know.

    Raises:
        SinkError: the encoder does not open.
    """

    def __init__(self, first: Packet, *, log: logging.Logger) -> None:
        self._sound: Sound | None = None
        try:
            # The encoder is made by way of a container, which is never written.
            self._container = av.open(io.BytesIO(), "w", format=_CONTAINER.muxer)
            self._sound = add_sound(
                self._container, first, _CONTAINER, log=log, most_channels=_CHANNELS
            )
        except (FFmpegError, ValueError) as error:
            raise SinkError(f"Opus cannot be begun: {reason(error)}", retry=True) from error

    def payloads(self, packet: Packet, at: Fraction) -> list[Payloads]:
        """Payloads of one packet of the source that is heard from `at` seconds on.

        Raises:
            SinkError: the encoder failed.
        """
        if self._sound is None:
            return []
        try:
            return [
                Payloads(
                    "audio",
                    (bytes(made),),
                    round((made.pts or 0) * made.time_base * RATE),
                    False,
                    time.monotonic(),
                )
                for made in self._sound.packets(packet, at)
            ]
        except FFmpegError as error:
            raise SinkError(f"encoding Opus failed: {reason(error)}", retry=True) from error
