"""What the kernels must know of a matrix and a range: sums of products (ITU-T H.273, 8.3)."""

from __future__ import annotations

from typing import Final, NamedTuple

from nodes.colour import Colour

# Shares of red and blue in luminance.
_SHARES: Final = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722), "bt2020": (0.2627, 0.0593)}


class ToRgb(NamedTuple):
    """Factors from 8-bit YUV to red, green and blue of 0 to 255.

    With `l = (y - black) * gain`, and u and v less 128: red is `l + r_v * v`, green
    `l + g_u * u + g_v * v`, blue `l + b_u * u`.
    """

    black: float
    gain: float
    r_v: float
    g_u: float
    g_v: float
    b_u: float


class ToYuv(NamedTuple):
    """Factors from red, green and blue of 0 to 255 to 8-bit YUV; 128 is added to U and V."""

    black: float
    y_r: float
    y_g: float
    y_b: float
    u_r: float
    u_g: float
    u_b: float
    v_r: float
    v_g: float
    v_b: float


def to_rgb(colour: Colour) -> ToRgb:
    """The factors for YUV of a matrix and a range; BT.601 where the matrix is none."""
    red, blue = _SHARES.get(colour.space, _SHARES["bt601"])
    green = 1 - red - blue
    black, gain, spread = (0.0, 1.0, 1.0) if colour.full else (16.0, 255 / 219, 255 / 224)
    r_v, b_u = 2 * (1 - red) * spread, 2 * (1 - blue) * spread
    return ToRgb(black, gain, r_v, -b_u * blue / green, -r_v * red / green, b_u)


def to_yuv(colour: Colour) -> ToYuv:
    """The factors for YUV of a matrix and a range; BT.601 where the matrix is none."""
    red, blue = _SHARES.get(colour.space, _SHARES["bt601"])
    green = 1 - red - blue
    black, gain, spread = (0.0, 1.0, 1.0) if colour.full else (16.0, 219 / 255, 224 / 255)
    u, v = spread / (2 * (1 - blue)), spread / (2 * (1 - red))
    return ToYuv(
        black,
        *(red * gain, green * gain, blue * gain),
        *(-red * u, -green * u, (1 - blue) * u),
        *((1 - red) * v, -green * v, -blue * v),
    )


def of_rgb(rgb: tuple[int, int, int], colour: Colour) -> tuple[int, int, int]:
    """One colour as Y, U and V of a matrix and a range."""
    f, (red, green, blue) = to_yuv(colour), rgb
    y = f.black + f.y_r * red + f.y_g * green + f.y_b * blue
    u = 128 + f.u_r * red + f.u_g * green + f.u_b * blue
    v = 128 + f.v_r * red + f.v_g * green + f.v_b * blue
    y, u, v = (min(255, max(0, round(level))) for level in (y, u, v))
    return y, u, v
