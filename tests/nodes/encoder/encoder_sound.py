"""Clips with flashes and beeps at known times, and where they are in an output."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from encoder_media import announced

from nodes.encoder import Encoder
from streamer import AudioFormat, Frame, Packet
from streamer.testing import SoloContext, solo

RATE = 48000
MARKS = (1.0, 2.0, 3.0)  # seconds of each flash and beep
LENGTH = 4.0
FPS = 25


def beeps(rate: int = RATE, *, offset: float = 0.0) -> np.ndarray:
    """Mono float samples: a tone of 1 kHz for 100 ms at each mark."""
    t = np.arange(int(LENGTH * rate)) / rate
    on = np.zeros_like(t)
    for mark in MARKS:
        on[(t >= mark) & (t < mark + 0.1)] = 0.8
    return (on * np.sin(2 * np.pi * 1000 * t)).astype(np.float32)


def compressed(
    codec: str, container: str, *, rate: int = RATE, layout: str = "stereo"
) -> list[Packet]:
    """The beeps as packets, made by a real encoder and read from a real container."""
    memory = io.BytesIO()
    with av.open(memory, "w", format=container) as output:
        stream = output.add_stream(codec, rate=rate)
        stream.layout = layout
        channels = av.AudioLayout(layout).nb_channels
        samples = (beeps(rate) * 32767).astype(np.int16)
        for at in range(0, len(samples), 1024):
            block = np.repeat(samples[at : at + 1024], channels)[None]
            frame = av.AudioFrame.from_ndarray(block, "s16", layout)
            frame.sample_rate, frame.pts, frame.time_base = rate, at, Fraction(1, rate)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    memory.seek(0)
    with av.open(memory) as source:
        stream = source.streams.audio[0]
        context = stream.codec_context
        audio = AudioFormat(
            codec=context.name,
            sample_rate=context.sample_rate,
            layout=context.layout.name,
            extradata=context.extradata or b"",
            frame_size=context.frame_size,
        )
        return [
            Packet(
                stream="s",
                pts=packet.pts,
                time_base=packet.time_base,
                duration=packet.duration or 0,
                data=bytes(packet),
                audio=audio,
            )
            for packet in source.demux(stream)
            if packet.pts is not None
        ]


def flashes(*, offset: int = 0, keep: int = 1) -> list[Frame]:
    """Dark pictures with a white one at each mark, in milliseconds; only every `keep`-th."""
    made = []
    for n in range(int(LENGTH * FPS)):
        white = any(abs(n / FPS - mark) < 0.5 / FPS for mark in MARKS)
        if n % keep and not white:
            continue
        pixels = np.full((64, 96, 3), 235 if white else 16, np.uint8)
        frame = Frame.of(pixels, pts=n * 1000 // FPS + offset, seq=n)
        frame.header.duration = 1000 // FPS
        made.append(frame)
    return made


def record(
    url: str | Path,
    pictures: list[Frame],
    packets: list[Packet],
    *,
    context: SoloContext | None = None,
    **params,
) -> SoloContext:
    """Encodes both, in order of time, as the runtime hands them over."""
    context = context or SoloContext()
    encoder = solo(Encoder, context=context, url=str(url), **params)
    assert encoder.takes_audio() is (params.get("audio") != "none")
    encoder.audio(announced(packets[0].audio))
    waiting = list(packets)
    for frame in pictures:
        while waiting and waiting[0].pts * waiting[0].time_base <= frame.header.time:
            encoder.audio(waiting.pop(0))
        with frame:
            encoder.process(frame)
    for packet in waiting:
        encoder.audio(packet)
    encoder.finish()
    encoder.close()
    return context


def seen(path: str | Path) -> list[float]:
    """Seconds at which a white picture follows a dark one."""
    times, before = [], 0.0
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            level = frame.to_ndarray(format="gray").mean()
            if level > 120 > before:
                times.append(float(frame.pts * frame.time_base))
            before = level
    return times


def heard(path: str | Path) -> list[float]:
    """Seconds at which a beep begins."""
    times: list[float] = []
    quiet_since = -1.0
    with av.open(str(path)) as container:
        resampler = av.AudioResampler("flt", "mono")
        for frame in container.decode(audio=0):
            for made in resampler.resample(frame):
                start = float(made.pts * made.time_base)
                loud = np.flatnonzero(np.abs(made.to_ndarray()[0]) > 0.2)
                for index in loud:
                    at = start + index / made.sample_rate
                    if at - quiet_since > 0.3:
                        times.append(at)
                    quiet_since = at
    return times


def sound_of(path: str | Path) -> tuple[str, int, int, list[bytes]]:
    """Codec, sample rate, channels and packets of the sound of an output."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        context = stream.codec_context
        packets = [bytes(p) for p in container.demux(stream) if p.pts is not None]
        return (
            context.codec.canonical_name,
            context.sample_rate,
            context.layout.nb_channels,
            packets,
        )
