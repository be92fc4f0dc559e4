"""A clip of flashes and beeps, and where they are in what was received or recorded."""

from __future__ import annotations

import io
import socket
import threading
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

FPS = 30
BEEP = 0.1
"""seconds that flash and beep last"""
SAME = 0.25
"""seconds below which a flash and a beep are of the same mark"""


def make_flashing_clip(path: Path, *, seconds: int) -> None:
    """Dark pictures of 160x96 at 30 a second; every second begins with a flash and a beep."""
    t = np.arange(48000 * seconds) / 48000
    tone = np.where(t % 1 < BEEP, np.sin(2 * np.pi * 1000 * t) * 20000, 0).astype(np.int16)
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=FPS, options={"preset": "ultrafast"})
        video.width, video.height, video.pix_fmt = 160, 96, "yuv420p"
        audio = container.add_stream("aac", rate=48000)
        audio.layout = "mono"
        start = 0
        for number in range(seconds * FPS):
            light = number % FPS < BEEP * FPS
            frame = av.VideoFrame.from_ndarray(
                np.full((96, 160, 3), 235 if light else 16, np.uint8), "rgb24"
            )
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            container.mux(video.encode(frame))
            while len(tone) - 1023 > start and start / 48000 <= number / FPS:
                block = tone[None, start : start + 1024]
                sound = av.AudioFrame.from_ndarray(block, "s16", "mono")
                sound.sample_rate, sound.pts, sound.time_base = 48000, start, Fraction(1, 48000)
                container.mux(audio.encode(sound))
                start += 1024
        container.mux(audio.encode(None))
        container.mux(video.encode(None))


class Receiver:
    """Keeps what comes to a UDP port."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.settimeout(0.1)
        self.port = int(self._socket.getsockname()[1])
        self.data = io.BytesIO()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        while not self._ended.is_set():
            try:
                self.data.write(self._socket.recv(65536))
            except TimeoutError:
                continue

    @property
    def size(self) -> int:
        """Bytes so far."""
        return self.data.tell()

    def end(self) -> io.BytesIO:
        """What has come, from its beginning."""
        self._ended.set()
        self._thread.join()
        self._socket.close()
        self.data.seek(0)
        return self.data


def marks(source: Any) -> tuple[list[float], list[float]]:
    """Seconds at which flashes and beeps begin, in a file or in bytes of MPEG-TS."""
    flashes: list[float] = []
    beeps: list[float] = []
    dark, quiet_since = True, -1.0
    with av.open(source) as container:
        resampler = av.AudioResampler("flt", "mono")
        for packet in container.demux():
            for frame in packet.decode():
                if isinstance(frame, av.VideoFrame):
                    light = float(frame.to_ndarray(format="gray").mean()) > 120
                    if light and dark:
                        flashes.append(float(frame.time or 0))
                    dark = not light
                    continue
                for made in resampler.resample(frame):
                    start = float(made.time or 0)
                    for index in np.flatnonzero(np.abs(made.to_ndarray()[0]) > 0.2):
                        at = start + index / made.sample_rate
                        if at - quiet_since > 0.3:
                            beeps.append(at)
                        quiet_since = at
    return flashes, beeps


def offsets(source: Any) -> list[float]:
    """For each flash that has its beep: seconds that the flash is seen before it is heard."""
    flashes, beeps = marks(source)
    pairs = ((seen, min(beeps, key=lambda at: abs(at - seen))) for seen in flashes if beeps)
    return [heard - seen for seen, heard in pairs if abs(heard - seen) < SAME]
