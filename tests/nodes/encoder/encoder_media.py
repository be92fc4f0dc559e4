"""Pictures and sound with known content, and what a player finds in an output."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from nodes.encoder import Encoder
from streamer import AudioFormat, Frame, Packet
from streamer.formats import picture_shape
from streamer.testing import SoloContext, solo

MILLI = Fraction(1, 1000)
NINETY = Fraction(1, 90000)


def picture(
    number: int, *, size: tuple[int, int] = (160, 96), format: str = "yuv420p", level: int = 90
) -> np.ndarray:
    """A picture that moves with its number: a bright bar on a textured ground."""
    width, height = size
    shape = picture_shape(format, width, height)
    ground = np.random.default_rng(7).integers(level - 20, level + 20, shape, dtype=np.uint8)
    at = (number * 5) % (width - 12)
    ground[:height, at : at + 12] = 220
    return ground


def frames(
    times: Iterable[int],
    *,
    time_base: Fraction = NINETY,
    durations: Iterable[int] | None = None,
    size: tuple[int, int] = (160, 96),
    format: str = "yuv420p",
    colorspace: str = "bt601",
) -> Iterator[Frame]:
    """Frames of these times, each on memory of its own."""
    lasting = iter(durations) if durations is not None else None
    for number, pts in enumerate(times):
        frame = Frame.of(
            picture(number, size=size, format=format),
            format=format,
            pts=pts,
            time_base=time_base,
            seq=number,
        )
        if lasting is not None:
            frame.header.duration = next(lasting)
        if format in ("yuv420p", "nv12"):
            frame.header.colorspace, frame.header.full_range = colorspace, False
        yield frame


def feed(encoder: Encoder, pictures: Iterable[Frame]) -> None:
    """Passes pictures as the runtime does: the slot is given back after each."""
    for frame in pictures:
        with frame:
            encoder.process(frame)


def encode(
    url: str | Path, pictures: Iterable[Frame], *, context: SoloContext | None = None, **params
) -> SoloContext:
    """Encodes pictures to an output from beginning to end."""
    context = context or SoloContext()
    encoder = solo(Encoder, context=context, url=str(url), **params)
    feed(encoder, pictures)
    encoder.finish()
    encoder.close()
    return context


@dataclass
class Found:
    """What a player finds: times in seconds, as fractions."""

    pts: list[Fraction]
    dts: list[Fraction]
    keys: list[Fraction]
    duration: float
    codec: str
    bframes: bool
    stream: dict[str, int]


def look(path: str | Path) -> Found:
    """Reads an output back, packet by packet."""
    with av.open(str(path)) as container:
        video = container.streams.video[0]
        packets = [p for p in container.demux(video) if p.pts is not None]
        pts = [p.pts * p.time_base for p in packets]
        dts = [p.dts * p.time_base for p in packets if p.dts is not None]
        keys = [p.pts * p.time_base for p in packets if p.is_keyframe]
        context = video.codec_context
        return Found(
            pts=sorted(pts),
            dts=dts,
            keys=keys,
            duration=(container.duration or 0) / 1e6,
            codec=video.codec.canonical_name,
            bframes=pts != sorted(pts),
            stream={
                "width": context.width,
                "height": context.height,
                "colorspace": int(context.colorspace),
                "range": int(context.color_range),
                "primaries": int(context.color_primaries),
            },
        )


def decoded(path: str | Path, format: str = "rgb24") -> list[np.ndarray]:
    """All pictures of an output."""
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format=format) for frame in container.decode(video=0)]


def announced(audio: AudioFormat) -> Packet:
    """The packet that announces sound."""
    return Packet(
        stream="s",
        pts=0,
        time_base=Fraction(1, audio.sample_rate),
        duration=0,
        data=b"",
        audio=audio,
    )
