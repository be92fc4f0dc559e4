"""Real clips, made with real encoders, and a way to play them without a graph."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from nodes.decoder import Decoder
from streamer import Header, Packet
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
