"""A node that misbehaves when a file tells it to."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from pydantic import Field

import streamer


class Trouble(streamer.Transform["Trouble.Params"]):
    """Passes pictures on, until `trigger` names a trouble; each is made once."""

    class Params(streamer.Params):
        trigger: str = ""
        open_seconds: float = 0.0
        level: int = Field(default=0, json_schema_extra={"live": True})
        fatal_every: int = 0
        """every so many pictures one ends the process, whatever life it is in"""

    def open(self) -> None:
        time.sleep(self.params.open_seconds if self.context.incarnation > 1 else 0)

    def prepare(self, params: Any) -> None:
        if params.level < 0:
            raise streamer.ParameterError("level: must be at least 0")

    def process(self, frame: streamer.Frame) -> Any:
        file = Path(self.params.trigger)
        if self.params.trigger and file.exists():
            trouble = file.read_text()
            file.unlink()
            _make(trouble)
        if self.params.fatal_every and frame.seq % self.params.fatal_every == 1:
            ctypes.string_at(0)
        out = self.context.allocate(frame.width, frame.height, frame.format, like=frame.header)
        out.numpy()[:] = frame.numpy()
        return out


def _make(trouble: str) -> None:
    match trouble:
        case "raise":
            raise RuntimeError("nobody foresaw this")
        case "fail":
            raise streamer.NodeError("this node cannot go on")
        case "frame":
            raise streamer.FrameError("this picture is bad")
        case "hang":
            time.sleep(3600)
        case "lock":  # keeps Python's lock for ever
            ctypes.PyDLL(None).sleep(3600)
        case "exit":
            os._exit(0)
        case "memory":
            bytearray(sys.maxsize)
        case "abort":
            os.abort()
        case "children":  # a program that would outlive the process
            if os.fork() == 0:
                time.sleep(3600)
            os.kill(os.getpid(), signal.SIGKILL)
