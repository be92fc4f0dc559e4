"""Sizes, rectangles and colours as people write them in a graph."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from streamer.formats import MAX_SIDE

MIN_SIDE: Final = 16
"""Smallest side of a picture that a node makes, in pixels."""

_SIZE = re.compile(r"(\d{1,9})\s*[xX×]\s*(\d{1,9})")
_RECT = re.compile(r"(\d{1,9})\s*[xX×]\s*(\d{1,9})\s*\+\s*(\d{1,9})\s*\+\s*(\d{1,9})")
_HEX = re.compile(r"#([0-9a-fA-F]{6}|[0-9a-fA-F]{3})")
_NAMED: Final = {
    "black": (0, 0, 0),
    "white": (255, 255, 255),
    "gray": (128, 128, 128),
    "red": (255, 0, 0),
    "green": (0, 128, 0),
    "blue": (0, 0, 255),
}


class Rect(NamedTuple):
    """A part of a picture, in pixels."""

    x: int
    y: int
    width: int
    height: int

    def __str__(self) -> str:
        return f"{self.width}x{self.height}+{self.x}+{self.y}"


def parse_size(text: str) -> tuple[int, int]:
    """Width and height of `WIDTHxHEIGHT`.

    Raises:
        ValueError: it is not written so, or a side is not of 16 to `MAX_SIDE` pixels.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"a size is written WIDTHxHEIGHT, 512x512 say, not {text!r}")
    width, height = int(match[1]), int(match[2])
    if not (MIN_SIDE <= width <= MAX_SIDE and MIN_SIDE <= height <= MAX_SIDE):
        raise ValueError(f"a side has {MIN_SIDE} to {MAX_SIDE} pixels, not {width}x{height}")
    return width, height


def parse_rect(text: str) -> Rect:
    """The rectangle of `WIDTHxHEIGHT+X+Y`; X and Y count from the upper left corner.

    Raises:
        ValueError: it is not written so, or is empty, or lies beyond any picture.
    """
    match = _RECT.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"a crop is written WIDTHxHEIGHT+X+Y, 640x480+100+0 say, not {text!r}")
    width, height, x, y = (int(part) for part in match.groups())
    if not width or not height:
        raise ValueError(f"a crop has at least one pixel, not {width}x{height}")
    if x + width > MAX_SIDE or y + height > MAX_SIDE:
        raise ValueError(f"a picture has at most {MAX_SIDE} pixels a side, so {text!r} is beyond")
    return Rect(x, y, width, height)


def parse_colour(text: str) -> tuple[int, int, int]:
    """Red, green and blue, 0 to 255 each, of `#rrggbb`, `#rgb` or a name.

    Raises:
        ValueError: it is neither.
    """
    named = _NAMED.get(text.strip().lower())
    if named is not None:
        return named
    match = _HEX.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"a colour is #rrggbb or one of {', '.join(_NAMED)}, not {text!r}")
    digits = match[1] if len(match[1]) == 6 else "".join(digit * 2 for digit in match[1])
    red, green, blue = bytes.fromhex(digits)
    return red, green, blue
