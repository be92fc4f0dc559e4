"""How YUV relates to RGB: names of matrices, FFmpeg's numbers for them, and what to assume.

The names are those of `streamer.Header.colorspace`. swscale is told the matrix and the range of
both ends every time, because its own guess is BT.601 whatever the picture says.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Colour(NamedTuple):
    """What the samples of a picture mean.

    Attributes:
        space: `bt601`, `bt709`, `bt2020`, or `rgb` for pictures that are not YUV.
        full: whether samples use 0 to 255 rather than 16 to 235.
    """

    space: str
    full: bool


RGB: Final = Colour("rgb", True)

# swscale's SWS_CS_* numbers (libswscale/swscale.h).
_SWS: Final = {"bt601": 5, "bt709": 1, "bt2020": 9}
# AVCOL_SPC_* numbers (libavutil/pixfmt.h, ITU-T H.273 table 4). FCC and SMPTE 240M are taken for
# the nearest of the three: their coefficients differ from it by less than 0.02.
_FROM_AVCOL: Final = {1: "bt709", 4: "bt601", 5: "bt601", 6: "bt601", 7: "bt709"} | {
    9: "bt2020",
    10: "bt2020",
}
_LIMITED, _FULL = 1, 2
HD_HEIGHT: Final = 720


def guess_space(height: int) -> str:
    """The matrix of a picture that does not say: BT.709 from 720 lines on, else BT.601."""
    return "bt709" if height >= HD_HEIGHT else "bt601"


def read_colour(*, space: int, range: int, height: int, is_rgb: bool, full_format: bool) -> Colour:
    """What a decoded picture's tags say, with the usual guesses where they say nothing.

    Args:
        space: FFmpeg's AVCOL_SPC number.
        range: FFmpeg's AVCOL_RANGE number: 0 unknown, 1 limited, 2 full.
        height: lines of the picture.
        is_rgb: whether the pixel format is red, green and blue.
        full_format: whether the pixel format by itself means full range (`yuvj420p`, `gray`).
    """
    if is_rgb:
        return RGB
    full = range == _FULL or (range != _LIMITED and full_format)
    return Colour(_FROM_AVCOL.get(space) or guess_space(height), full)


def sws_space(colour: Colour) -> int:
    """Number that swscale gives the matrix; of BT.601 for RGB, where it means nothing."""
    return _SWS.get(colour.space, _SWS["bt601"])


def sws_range(colour: Colour) -> int:
    """Number that swscale gives the range."""
    return _FULL if colour.full else _LIMITED
