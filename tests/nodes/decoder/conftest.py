"""Real clips, made with real encoders, and a way to play them without a graph."""

from __future__ import annotations

import functools
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from nodes.decoder import Decoder
from streamer import Header, Packet, Status, StreamerError
from streamer.testing import SoloContext, solo

WANTED = ("yuv420p", "nv12", "rgb24", "bgr24", "gray")


def _texture(width: int, height: int, number: int) -> np.ndarray:
    """A picture that moves with its number: rgb, uint8 of shape (height, width, 3)."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack(
        [
            127 + 100 * np.sin((x + 3 * number) / 17),
            127 + 100 * np.sin((y + 2 * number) / 13),
            127 + 100 * np.sin((x + y) / 23),
        ],
        axis=-1,
    ).astype(np.uint8)


@dataclass
class Played:
    """What a decoder yielded, with its pixels copied."""

    context: SoloContext
    headers: list[Header] = field(default_factory=list)
    pictures: list[np.ndarray] = field(default_factory=list)
    packets: list[Packet] = field(default_factory=list)
    order: str = ""

    @property
    def times(self) -> list[float]:
        return [header.time for header in self.headers]

    @property
    def dropped(self) -> dict[str, int]:
        return {str(reason): number for reason, number in self.context.dropped.items()}


@pytest.fixture
def texture() -> Callable[[int, int, int], np.ndarray]:
    return _texture


@pytest.fixture
def play() -> Callable[..., Played]:
    def run(
        url: Any,
        *,
        most: int | None = None,
        wanted: tuple[str, ...] = WANTED,
        wants_audio: bool = False,
        **params: Any,
    ) -> Played:
        context = SoloContext(name="source", wanted=wanted, wants_audio=wants_audio)
        played = Played(context)
        decoder = solo(Decoder, context=context, url=str(url), **params)
        frames = decoder.frames()
        try:
            for item in frames:
                if isinstance(item, Packet):
                    played.packets.append(item)
                    played.order += "a"
                    continue
                with item:  # leaving it raises if the decoder kept a view of the slot
                    played.headers.append(item.header)
                    played.pictures.append(item.numpy().copy())
                    played.order += "v"
                if most is not None and len(played.headers) >= most:
                    break
        finally:
            frames.close()
            decoder.close()
        return played

    return run


@pytest.fixture
def clip(tmp_path: Path) -> Callable[..., Path]:
    """Makes a clip and returns its path."""

    def make(
        name: str,
        *,
        size: tuple[int, int] = (160, 120),
        count: int = 12,
        fps: int = 25,
        codec: str = "libx264",
        pix_fmt: str = "yuv420p",
        options: dict[str, str] | None = None,
        container: dict[str, str] | None = None,
        times: list[int] | None = None,
        audio: str | None = None,
        prepare: Callable[[Any], None] | None = None,
        picture: Callable[[int], np.ndarray] | None = None,
    ) -> Path:
        path = tmp_path / name
        draw = picture or (lambda number: _texture(*size, number))
        with av.open(str(path), "w", options=container or {}) as out:
            video = out.add_stream(codec, rate=fps, options=options or {})
            video.width, video.height, video.pix_fmt = *size, pix_fmt
            sound = out.add_stream(audio, rate=48000, layout="stereo") if audio else None
            if prepare is not None:
                prepare(video)
            if times is not None:
                video.codec_context.time_base = Fraction(1, 1000)
            per_picture = 48000 // fps
            heard = 0
            for number in range(count):
                frame = av.VideoFrame.from_ndarray(draw(number), format="rgb24")
                frame = frame.reformat(format=pix_fmt)
                frame.pts = number if times is None else times[number]
                frame.time_base = Fraction(1, fps) if times is None else Fraction(1, 1000)
                out.mux(video.encode(frame))
                while sound is not None and heard < (number + 1) * per_picture:
                    at = (np.arange(heard, heard + 1024) / 48000).astype(np.float32)
                    tone = np.tile(0.1 * np.sin(2 * np.pi * 440 * at), (2, 1)).astype(np.float32)
                    block = av.AudioFrame.from_ndarray(tone, format="fltp", layout="stereo")
                    block.sample_rate, block.pts, block.time_base = 48000, heard, Fraction(1, 48000)
                    out.mux(sound.encode(block))
                    heard += 1024
            out.mux(video.encode(None))
            if sound is not None:
                out.mux(sound.encode(None))
        return path

    return make


@pytest.fixture
def pictures(tmp_path: Path) -> Callable[..., Path]:
    """Writes a numbered sequence of PNG files and returns their folder."""

    def make(numbers: list[int], *, size: tuple[int, int] = (40, 30)) -> Path:
        folder = tmp_path / "frames"
        folder.mkdir(exist_ok=True)
        for number in numbers:
            flat = np.full((size[1], size[0], 3), number, dtype=np.uint8)
            assert cv2.imwrite(str(folder / f"{number:04d}.png"), flat)
        return folder

    return make


class Watch:
    """A live source that is watched in a thread of its own, until told to stop."""

    def __init__(self, url: str, *, wants_audio: bool = False, **params: Any) -> None:
        self.context = SoloContext(
            name="source", wanted=("yuv420p",), live=True, wants_audio=wants_audio
        )
        self.headers: list[Header] = []
        self.means: list[float] = []
        self.moments: list[float] = []
        self.packets: list[Packet] = []
        self.error: StreamerError | None = None
        self.decoder = solo(Decoder, context=self.context, url=url, **params)
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def _work(self) -> None:
        try:
            for item in self.decoder.frames():
                if isinstance(item, Packet):
                    self.packets.append(item)
                    continue
                self.moments.append(time.monotonic())
                with item:
                    self.means.append(float(item.numpy()[: item.height].mean()))
                    self.headers.append(item.header)
        except StreamerError as error:
            self.error = error
        finally:
            self.decoder.close()

    @property
    def statuses(self) -> list[Status]:
        """What the connection was, each once."""
        said = [status for status, _ in self.context.statuses]
        return [one for number, one in enumerate(said) if not number or said[number - 1] != one]

    @property
    def now(self) -> Status:
        return self.context.statuses[-1][0]

    def texts(self, status: Status) -> str:
        """All that was said about a state."""
        return "\n".join(text for said, text in self.context.statuses if said is status)

    def until(self, condition: Callable[[], Any], *, seconds: float = 60.0) -> None:
        """Waits for a condition; fails after a generous deadline."""
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end or not self._thread.is_alive():
                pytest.fail(f"it did not happen: {self.context.statuses[-5:]}, {self.error}")
            time.sleep(0.02)

    def more(self, count: int) -> None:
        """Waits for so many more pictures."""
        wanted = len(self.headers) + count
        self.until(lambda: len(self.headers) >= wanted)

    def ended(self) -> StreamerError | None:
        """Waits for the end, and returns the error that it was."""
        self._thread.join(60)
        assert not self._thread.is_alive()
        return self.error

    def stop(self) -> None:
        self.context.stopping.set()
        self._thread.join(60)
        assert not self._thread.is_alive()


@pytest.fixture
def watch() -> Iterator[Callable[..., Watch]]:
    """Watches a live source."""
    watching: list[Watch] = []

    def start(url: str, **params: Any) -> Watch:
        watching.append(Watch(url, **params))
        return watching[-1]

    yield start
    for one in watching:
        one.stop()


def free_port(kind: int = socket.SOCK_STREAM) -> int:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def port() -> Callable[[int], int]:
    """Finds a free port of this machine."""
    return free_port


PYTHON = "/usr/bin/python3"
PROBE = (
    "import gi; gi.require_version('GstRtspServer', '1.0'); gi.require_version('Gst', '1.0');"
    "from gi.repository import Gst, GstRtspServer; Gst.init(None);"
    "assert all(map(Gst.ElementFactory.find, ('x264enc', 'rtph264pay', 'alawenc')))"
)


@functools.cache
def has_server() -> bool:
    if shutil.which(PYTHON) is None:
        return False
    return not subprocess.run([PYTHON, "-c", PROBE], capture_output=True, check=False).returncode


class Camera:
    """A real RTSP server: GStreamer's, of the packages that `.ci/run` installs."""

    def __init__(self) -> None:
        self.port = free_port()
        self.host = f"127.0.0.1:{self.port}"
        self.url = f"rtsp://{self.host}/live"
        self._process: subprocess.Popen[str] | None = None

    def start(self, *options: str) -> Camera:
        script = str(Path(__file__).with_name("rtsp_camera.py"))
        self._process = subprocess.Popen(
            [PYTHON, script, str(self.port), *options], stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"
        return self

    def freeze(self) -> None:
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)

    def kill(self) -> str:
        """Ends it as a power cut does; returns what it had printed."""
        if self._process is None:
            return ""
        self._process.kill()
        said, _ = self._process.communicate()
        self._process = None
        return said


@pytest.fixture
def camera() -> Iterator[Camera]:
    """A camera, still switched off."""
    if not has_server():
        pytest.skip("needs GStreamer's RTSP server (gi)")
    one = Camera()
    yield one
    one.kill()
