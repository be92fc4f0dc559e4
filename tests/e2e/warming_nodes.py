"""Nodes for runs in which a model loads while pictures flow."""

from __future__ import annotations

import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

import streamer
from nodes.sdxs.node import Sdxs
from nodes.sdxs.params import SdxsParams

SIDE = 64


def picture(number: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """What the source shows at a time."""
    return np.random.default_rng(number).integers(0, 256, (SIDE, SIDE, 3), np.uint8)


class Ticker(streamer.Source["Ticker.Params"]):
    """Different pictures at a pace of its own, for ever, or so many at once."""

    class Params(streamer.Params):
        count: int = 0

    @classmethod
    def is_live(cls, params: Any) -> bool:
        return params.count == 0

    def frames(self) -> Iterator[streamer.Frame]:
        number = 0
        while number < self.params.count or not self.params.count:
            frame = self.context.allocate(SIDE, SIDE, pts=number, time_base=Fraction(1, 50))
            frame.numpy()[...] = picture(number)
            yield frame
            number += 1
            if not self.params.count and self.context.stopping.wait(0.02):
                return


class GatedSdxs(Sdxs):
    """Its first process does not get on with the model until a file is there."""

    class Params(SdxsParams):
        gate: str

    def _loaded(self, params: Any, stages: Any) -> Any:
        stages("waiting for the gate", of=1)
        while self.context.incarnation == 1 and not Path(self.params.gate).exists():
            time.sleep(0.01)
        return super()._loaded(params, stages)


class Tape(streamer.Sink["Tape.Params"]):
    """A line for each picture: its time, generation, whether marked, whether it is the source's."""

    class Params(streamer.Params):
        path: str

    def open(self) -> None:
        self._file = open(self.params.path, "a", buffering=1)  # noqa: SIM115

    def process(self, frame: streamer.Frame) -> None:
        header = frame.header
        same = np.array_equal(frame.numpy(), picture(header.pts))
        marked, raw = int(header.passed), int(same)
        self._file.write(f"{header.pts} {header.generation} {marked} {raw}\n")

    def close(self) -> None:
        self._file.close()
