"""A transform that takes its time, and a sink that tells how far a stream has come."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import streamer


class Slow(streamer.Transform["Slow.Params"]):
    """Passes pictures on after `seconds`; of those that come meanwhile only the newest is seen."""

    class Params(streamer.Params):
        seconds: float = 0.08

    def process(self, frame: streamer.Frame) -> Any:
        time.sleep(self.params.seconds)
        out = self.context.allocate(frame.width, frame.height, frame.format, like=frame.header)
        out.numpy()[:] = frame.numpy()
        return out


class Ticker(streamer.Sink["Ticker.Params"]):
    """Writes the time of the last picture to a file."""

    class Params(streamer.Params):
        file: str

    def process(self, frame: streamer.Frame) -> None:
        file = Path(self.params.file)
        draft = file.with_suffix(".new")
        draft.write_text(f"{frame.header.time}")
        os.replace(draft, file)
