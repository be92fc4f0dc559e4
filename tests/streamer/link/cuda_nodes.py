"""Nodes for graphs on a simulated GPU."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np

import streamer
from streamer import gpu
from streamer.gpu import simulated


class Count(streamer.Source["Count.Params"]):
    """Grey pictures on the host, whose bytes all hold the low byte of their number."""

    class Params(streamer.Params):
        count: int = 60
        """pictures"""
        larger_from: int = 10_000
        """number of the first picture of twice the size"""
        live: bool = False
        """whether pictures come at their own pace"""

    @classmethod
    def is_live(cls, params: Any) -> bool:
        return bool(params.live)

    def frames(self) -> Iterator[streamer.Frame]:
        for seq in range(self.params.count):
            side = 128 if seq >= self.params.larger_from else 64
            frame = self.context.allocate(side, side, pts=seq, time_base=Fraction(1, 100))
            frame.numpy()[:] = seq % 256
            yield frame
            if self.params.live:
                time.sleep(0.01)


class Add(streamer.Transform["Add.Params"]):
    """Adds one to every byte, on the GPU."""

    memory = ("cuda", "host")

    class Params(streamer.Params):
        dies_at: int = -1
        """number of the picture at which its process is killed, the first time"""
        breaks_at: int = -1
        """number of the picture at which the GPU is lost to its process, the first time"""
        returns_array: bool = False
        """whether it returns memory of its own, which costs a copy"""

    def process(self, frame: streamer.Frame) -> Any:
        if 0 <= self.params.dies_at <= frame.seq and self.context.incarnation == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        if 0 <= self.params.breaks_at <= frame.seq and self.context.incarnation == 1:
            simulated.break_here(os.environ[gpu.SIMULATED])
        out = self.context.allocate(frame.width, frame.height, like=frame.header)
        if out.memory == "host":
            out.write(frame.numpy() + np.uint8(1))
            return out
        if self.params.returns_array:
            array = gpu.device(0).empty((frame.height, frame.width, 3))  # type: ignore[attr-defined]
            array.compute(lambda pixels: pixels + np.uint8(1), frame.cupy())
            out.release()
            return array
        out.cupy().compute(lambda pixels: pixels + np.uint8(1), frame.cupy())
        return out


class Bare(Add):
    """Returns memory of its own, and leaves it to the runtime to find room for it."""

    def process(self, frame: streamer.Frame) -> Any:
        array = gpu.device(0).empty((frame.height, frame.width, 3))  # type: ignore[attr-defined]
        array.compute(lambda pixels: pixels + np.uint8(1), frame.cupy())
        return array


class OnlyGpu(Add):
    """Takes frames on a GPU only."""

    memory = ("cuda",)


class Check(streamer.Sink["Check.Params"]):
    """Writes down the number of each picture, and whether its bytes are right."""

    class Params(streamer.Params):
        path: str
        """file to write to"""
        added: int
        """what nodes before have added"""

    def open(self) -> None:
        self.file = open(self.params.path, "a")  # noqa: SIM115

    def process(self, frame: streamer.Frame) -> None:
        expected = (frame.seq + self.params.added) % 256
        right = bool((frame.numpy() == expected).all())
        print(frame.seq, int(right), frame.memory, file=self.file, flush=True)

    def close(self) -> None:
        self.file.close()
