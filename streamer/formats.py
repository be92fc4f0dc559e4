"""Pixel formats: the shape and the size of a picture of each.

All formats are 8 bits a sample and contiguous, so one array holds a whole picture:

=========  =====================  ==========================================================
format     array shape            layout
=========  =====================  ==========================================================
rgb24      (height, width, 3)     interleaved red, green, blue
bgr24      (height, width, 3)     interleaved blue, green, red
rgba       (height, width, 4)     interleaved, straight alpha
gray       (height, width)        luminance
yuv420p    (height*3/2, width)    planes Y, U, V, chroma halved both ways; even sides only
nv12       (height*3/2, width)    plane Y, then interleaved UV, halved; even sides only
=========  =====================  ==========================================================
"""

from __future__ import annotations

from typing import Final

MAX_SIDE: Final = 16384
"""Largest width or height of a picture, in pixels."""

_CHANNELS: Final = {"rgb24": 3, "bgr24": 3, "rgba": 4, "gray": 1}
YUV_FORMATS: Final = ("yuv420p", "nv12")
"""Formats of luminance and halved chrominance."""

FORMATS: Final = (*_CHANNELS, *YUV_FORMATS)
"""Names of all pixel formats that a link carries."""


def picture_shape(pixel_format: str, width: int, height: int) -> tuple[int, ...]:
    """Shape of the uint8 array that holds one picture.

    Args:
        pixel_format: one of `FORMATS`.
        width: pixels, 1 to `MAX_SIDE`.
        height: pixels, 1 to `MAX_SIDE`.

    Raises:
        ValueError: an unknown format, a side out of range, or an odd side where the format
            halves its chroma.
    """
    if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE):
        raise ValueError(f"a picture is 1 to {MAX_SIDE} pixels a side, not {width}x{height}")
    if pixel_format in YUV_FORMATS:
        if width % 2 or height % 2:
            raise ValueError(f"{pixel_format} needs even sides, not {width}x{height}")
        return (height * 3 // 2, width)
    channels = _CHANNELS.get(pixel_format)
    if channels is None:
        raise ValueError(f"unknown pixel format {pixel_format!r}; known: {', '.join(FORMATS)}")
    return (height, width) if channels == 1 else (height, width, channels)


def picture_bytes(pixel_format: str, width: int, height: int) -> int:
    """Bytes of one picture; raises as `picture_shape` does."""
    size = 1
    for side in picture_shape(pixel_format, width, height):
        size *= side
    return size
