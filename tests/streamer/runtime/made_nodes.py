"""Small real nodes for tests of the runtime: they count, wait, crash and fail on purpose."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

import streamer


class Ticks(streamer.Source["Ticks.Params"]):
    """Pictures whose pixels all hold the low byte of their number."""

    class Params(streamer.Params):
        count: int = 50
        fps: float = 0
        """pace in pictures a second; 0 as fast as possible"""
        live: bool = False
        width: int = 32
        height: int = 24
        grow_at: int = -1
        """picture from which on both sides are doubled"""
        corrupt_every: int = 0
        fail_at: int = -1
        hang_at: int = -1
        sound: bool = False

    @classmethod
    def is_live(cls, params: Any) -> bool:
        return bool(params.live)

    def frames(self) -> Iterator[streamer.Frame | streamer.Packet]:
        p = self.params
        audio = streamer.AudioFormat(codec="pcm_s16le", sample_rate=8000, layout="mono")

        def packet(pts: int, data: bytes) -> streamer.Packet:
            return streamer.Packet(
                stream=self.context.name,
                pts=pts,
                time_base=Fraction(1, 30),
                duration=1,
                data=data,
                audio=audio,
            )

        if p.sound and self.context.wants_audio:
            yield packet(0, b"")
        start = time.monotonic()
        for number in range(p.count):
            if p.fps:
                delay = start + number / p.fps - time.monotonic()
                if delay > 0 and self.context.stopping.wait(delay):
                    return
            if number == p.fail_at:
                raise streamer.SourceError("the source broke as asked")
            if number == p.hang_at:
                time.sleep(3600)
            if p.corrupt_every and number % p.corrupt_every == 0:
                self.context.drop(streamer.Drop.CORRUPT)
                continue
            scale = 2 if 0 <= p.grow_at <= number else 1
            frame = self.context.allocate(
                p.width * scale, p.height * scale, pts=number, time_base=Fraction(1, 30)
            )
            frame.header.duration = 1
            frame.numpy()[:] = number % 256
            yield frame
            if p.sound and self.context.wants_audio:
                yield packet(number, bytes([number % 256]))


class Work(streamer.Transform["Work.Params"]):
    """Adds to every pixel, slowly if asked, and misbehaves at a given picture."""

    class Params(streamer.Params):
        add: int = 0
        seconds: float = 0
        mode: str = "slot"
        """slot, copy, same, none, keep_view, float"""
        skip_every: int = 0
        kill_at: int = -1
        raise_at: int = -1
        fail_at: int = -1
        bad_every: int = 0
        open_seconds: float = 0
        fail_open: str = ""

    kept: Any = None

    def open(self) -> None:
        self.context.note("getting ready")
        time.sleep(self.params.open_seconds)
        if self.params.fail_open:
            raise streamer.ParameterError(self.params.fail_open)

    def process(self, frame: streamer.Frame) -> Any:
        p = self.params
        first_life = self.context.incarnation == 1
        if frame.seq == p.kill_at and first_life:
            os.kill(os.getpid(), signal.SIGKILL)
        if frame.seq == p.raise_at and first_life:
            raise RuntimeError("an error that nobody foresaw")
        if frame.seq == p.fail_at:
            raise streamer.NodeError("the work cannot go on")
        if p.bad_every and frame.seq % p.bad_every == 0:
            raise streamer.FrameError("this picture is bad")
        if p.seconds:
            time.sleep(p.seconds)
        if p.skip_every and frame.seq % p.skip_every == 0:
            return None
        pixels = frame.numpy()
        if p.mode == "copy":
            return pixels + np.uint8(p.add)
        if p.mode == "same":
            return frame
        if p.mode == "float":
            return pixels / 2
        if p.mode == "keep_view":
            self.kept = pixels
            return pixels.copy()
        out = self.context.allocate(frame.width, frame.height, like=frame.header)
        np.add(pixels, np.uint8(p.add), out=out.numpy())
        return out


class Pair(streamer.Join["Pair.Params"]):
    """Stacks its inputs, one above the other."""

    class Params(streamer.Params):
        pass

    def process(self, frames: Mapping[str, streamer.Frame | None]) -> Any:
        return np.vstack([frame.numpy() for frame in frames.values() if frame is not None])


class Tape(streamer.Sink["Tape.Params"]):
    """Writes a line for each picture: number, pts, size, lowest and highest pixel; then `end`."""

    class Params(streamer.Params):
        path: str
        seconds: float = 0
        kill_at: int = -1
        sound: bool = False
        last: int = Field(default=0, ge=0)

    def open(self) -> None:
        self.file = Path(self.params.path).open("a", encoding="utf-8", buffering=1)

    def takes_audio(self) -> bool:
        return self.params.sound

    def audio(self, packet: streamer.Packet) -> None:
        print("audio", packet.pts, len(packet.data), file=self.file)

    def process(self, frame: streamer.Frame) -> None:
        if frame.seq == self.params.kill_at and self.context.incarnation == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.params.seconds:
            time.sleep(self.params.seconds)
        pixels = frame.numpy()
        height, width = pixels.shape[:2]
        low, high = pixels.min(), pixels.max()
        print(frame.seq, frame.pts, f"{width}x{height}", low, high, file=self.file)

    def finish(self) -> None:
        print("end", file=self.file)

    def close(self) -> None:
        if hasattr(self, "file"):
            self.file.close()
