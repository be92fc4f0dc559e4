"""A transform that writes the time of capture into the picture, and its reader.

The time survives lossy codecs and scaling: 24 bits of milliseconds and 8 of their sum, as black and
white cells along the upper edge.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import numpy.typing as npt

import streamer

CELLS = 32
_DATA = 24
_PART_OF_HEIGHT = 12
_WRAP = 1 << _DATA


def now_ms() -> int:
    """The present on the clock of the stamps."""
    return time.monotonic_ns() // 1_000_000 % _WRAP


class Stamp(streamer.Transform[streamer.Params]):
    """Writes the milliseconds of `capture_ns` along the upper edge."""

    def process(self, frame: streamer.Frame) -> streamer.Frame:
        """Copies the picture and stamps the copy."""
        out = self.context.allocate(frame.width, frame.height, like=frame.header)
        picture = out.numpy()
        np.copyto(picture, frame.numpy())
        write(picture, frame.header.capture_ns // 1_000_000 % _WRAP)
        return out


def write(picture: npt.NDArray[np.uint8], value: int) -> None:
    """Stamps a value of 24 bits into a picture of shape (height, width, 3)."""
    word = value | _sum(value) << _DATA
    height, width = picture.shape[:2]
    for cell in range(CELLS):
        left, right = cell * width // CELLS, (cell + 1) * width // CELLS
        picture[: height // _PART_OF_HEIGHT, left:right] = 255 if word >> cell & 1 else 0


def read(picture: npt.NDArray[Any]) -> int | None:
    """The value in a picture of shape (height, width, 3); None where there is none."""
    height, width = picture.shape[:2]
    word = 0
    band = picture[: height // _PART_OF_HEIGHT].mean(axis=2)
    for cell in range(CELLS):
        left, right = cell * width // CELLS, (cell + 1) * width // CELLS
        margin = max(1, (right - left) // 4)
        middle = band[band.shape[0] // 4 : -(band.shape[0] // 4), left + margin : right - margin]
        word |= int(middle.mean() > 127) << cell
    value, check = word & _WRAP - 1, word >> _DATA
    return value if check == _sum(value) else None


def age_ms(value: int) -> int:
    """Milliseconds since the capture of a stamped picture."""
    return (now_ms() - value) % _WRAP


def _sum(value: int) -> int:
    # Not 0 for a black picture, not 255 for a white one.
    return (sum(value >> shift & 255 for shift in (0, 8, 16)) + 0x5A) & 255
