"""A node whose parameters change while it runs."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field, field_validator

import streamer


class Dye(streamer.Transform["Dye.Params"]):
    """Paints every pixel in one value, which can change; `prepare` refuses 13.

    It prepares until the file `gate` is there; of `deadly` its process dies.
    """

    class Params(streamer.Params):
        value: int = Field(default=1, ge=0, le=255, json_schema_extra={"live": True})
        other: int = Field(default=0, ge=0, le=255, json_schema_extra={"live": True})
        deadly: bool = Field(default=False, json_schema_extra={"live": True})
        gate: str = ""
        fixed: int = 0
        stick: str = ""
        """a file that must be there whenever these are validated"""

        @field_validator("stick")
        @classmethod
        def _there(cls, stick: str) -> str:
            if stick:
                Path(stick).read_bytes()
            return stick

    def prepare(self, params: Any) -> bytes:
        gate = Path(self.params.gate)
        while self.params.gate and not gate.exists():
            time.sleep(0.01)
        if params.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        if params.value == 13:
            raise streamer.NodeError("13 brings bad luck")
        return bytes([params.value]) * 3

    def update(self, params: Any, prepared: bytes) -> None:
        super().update(params, prepared)
        self.colour = np.frombuffer(prepared, np.uint8)

    def open(self) -> None:
        self.colour = np.full(3, self.params.value, np.uint8)

    def process(self, frame: streamer.Frame) -> streamer.Frame:
        out = self.context.allocate(frame.width, frame.height, like=frame.header)
        out.numpy()[:] = self.colour
        return out
