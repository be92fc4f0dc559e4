"""A process that holds one connection to a server: packets come in by a pipe, and are muxed.

FFmpeg connects, writes headers and says goodbye while it holds PyAV's interpreter lock, without a
limit of time; a server that hangs would stop everything in the process. So a connection has a
process of its own, which can be killed at any moment. Messages are arrays of msgpack:

====================================================  =========================================
to the sender                                         from the sender
====================================================  =========================================
(when it has started)                                 `ready`, 0
`open`, number, url, muxer, options, tracks           `opened`, number
`packet`, stream, data, pts, dts, duration, key, tb   `muxed`, number
`close`                                               `closed`, number
any                                                   `failed`, number, doing, kind, errno, text
====================================================  =========================================

The number is that of the connection, so that late words of a former one are not misunderstood.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from fractions import Fraction
from typing import Any, Final

import av
import msgpack

from nodes.encoder.certificate import new_certificate
from nodes.encoder.tracks import Track

MOST_BYTES: Final = 64 << 20
"""of one message"""
LAST_WORDS: Final = 5
"""seconds to end a connection in when the node itself has gone"""
_DEATH_SIGNAL: Final = 1  # PR_SET_PDEATHSIG


class Sender:
    """Obeys messages until the pipe is closed."""

    def __init__(self, source: int, target: int) -> None:
        self._source, self._target = source, target
        self._container: Any = None
        self._streams: list[Any] = []
        self._number = 0

    def run(self) -> None:
        """Reads messages to the end of the pipe."""
        self._tell("ready")
        unpacker = msgpack.Unpacker(max_buffer_size=2 * MOST_BYTES, max_bin_len=MOST_BYTES)
        while data := os.read(self._source, 1 << 20):
            unpacker.feed(data)
            for message in unpacker:
                getattr(self, f"_{message[0]}")(*message[1:])
        # SIGALRM's default ends the process even inside a call that does not return.
        signal.alarm(LAST_WORDS)
        self._close()

    def _open(
        self, number: int, url: str, muxer: str, options: dict[str, str], tracks: list[Any]
    ) -> None:
        self._abandon()
        self._number = number
        try:
            if muxer == "whip" and "cert_file" not in options:
                # It is read while the connection is made, and never again.
                with new_certificate() as mine:
                    self._connect(url, muxer, {**options, **mine}, tracks)
            else:
                self._connect(url, muxer, options, tracks)
        except Exception as error:
            self._failed("open", error)
        else:
            self._tell("opened")

    def _connect(self, url: str, muxer: str, options: dict[str, str], tracks: list[Any]) -> None:
        self._container = av.open(url, "w", format=muxer, container_options=options)
        self._streams = [Track.from_dict(plain).add_to(self._container) for plain in tracks]
        self._container.start_encoding()

    def _packet(
        self,
        stream: int,
        data: bytes,
        pts: int | None,
        dts: int | None,
        duration: int,
        key: bool,
        time_base: tuple[int, int],
    ) -> None:
        if self._container is None:
            return  # lost while this was under way
        packet = av.Packet(data)
        packet.pts, packet.dts, packet.duration = pts, dts, duration
        packet.time_base = Fraction(*time_base)
        packet.is_keyframe = key
        packet.stream = self._streams[stream]
        try:
            self._container.mux_one(packet)
        except Exception as error:
            self._failed("write to", error)
        else:
            self._tell("muxed")

    def _close(self) -> None:
        container, self._container = self._container, None
        if container is not None:
            try:
                container.close()
            except Exception as error:
                self._failed("finish", error)
                return
        self._tell("closed")

    def _failed(self, doing: str, error: Exception) -> None:
        number = getattr(error, "errno", None) or 0
        text = getattr(error, "strerror", None) or str(error)
        self._tell("failed", doing, type(error).__name__, number, str(text))
        self._abandon()

    def _abandon(self) -> None:
        container, self._container = self._container, None
        if container is not None:
            try:
                container.close()
            except Exception:  # the first error has been told; this one says the same
                pass

    def _tell(self, what: str, *more: Any) -> None:
        data = memoryview(msgpack.packb([what, self._number, *more]))
        try:
            while data:
                data = data[os.write(self._target, data) :]
        except BrokenPipeError:
            sys.exit(0)


def main() -> None:
    """Entry point of `python -m nodes.encoder.sender PARENT`."""
    # What Ctrl-C means is the node's to decide; it dies with the node, however that dies.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != int(sys.argv[1]):
        sys.exit(0)
    Sender(sys.stdin.fileno(), sys.stdout.fileno()).run()


if __name__ == "__main__":
    main()
