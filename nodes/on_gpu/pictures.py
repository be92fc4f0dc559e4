"""Pictures on a GPU: where their samples lie, and what the kernels make of them.

All functions put work into this thread's stream and return at once. `Picture` describes arrays
that already are on the device: a slot of the graph, or the surfaces of a video decoder.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

from nodes.colour import Colour
from nodes.on_gpu.colour import of_rgb, to_rgb, to_yuv
from nodes.on_gpu.launch import launch
from nodes.planes import NO_TURN, Turn
from nodes.sizes import Rect
from streamer.formats import YUV_FORMATS

_CHANNELS: Final = {"rgb24": 3, "bgr24": 3, "rgba": 4, "gray": 1}
# Offsets of red, green and blue in a pixel.
_ORDER: Final = {"rgb24": (0, 1, 2), "bgr24": (2, 1, 0), "rgba": (0, 1, 2), "gray": (0, 0, 0)}
Growth = Literal["nearest", "linear", "cubic"]
_MODES: Final = {"nearest": 0, "linear": 1, "cubic": 2}
OPENCV_CUBIC: Final = -0.75
"""the cubic's parameter as OpenCV has it"""
SWSCALE_CUBIC: Final = -0.6
"""and as swscale has it"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A picture in a device's memory.

    Attributes:
        luma: array that holds Y, or the interleaved pixels; its first byte is the first sample's.
        chroma: array that U and V are found in; `luma` where they follow it.
        width: pixels.
        height: pixels.
        format: `nv12`, `yuv420p`, `rgb24`, `bgr24`, `rgba` or `gray`.
        pitch: bytes of a line of `luma`.
        chroma_pitch: bytes of a line of U and V.
        chroma_step: bytes from one sample of U to the next.
        u_at: bytes from the start of `chroma` to the first sample of U.
        v_at: likewise of V.
        wide: whether samples are of 16 bits, the worth in the upper ones (P010).
    """

    luma: Any
    chroma: Any
    width: int
    height: int
    format: str
    pitch: int
    chroma_pitch: int = 0
    chroma_step: int = 0
    u_at: int = 0
    v_at: int = 0
    wide: bool = False

    @classmethod
    def of(cls, array: Any, format: str, width: int, height: int) -> Picture:
        """A whole contiguous picture of the graph.

        Args:
            array: on the device, uint8, of shape `streamer.formats.picture_shape`.
            format: one of `streamer.formats.FORMATS`.
            width: pixels.
            height: pixels.
        """
        if format not in YUV_FORMATS:
            pitch = width * _CHANNELS[format]
            return cls(
                luma=array, chroma=array, width=width, height=height, format=format, pitch=pitch
            )
        _, chroma_pitch, step, u_at, v_at = _layout(format, width, height)
        return cls(
            luma=array,
            chroma=array,
            width=width,
            height=height,
            format=format,
            pitch=width,
            chroma_pitch=chroma_pitch,
            chroma_step=step,
            u_at=u_at,
            v_at=v_at,
        )

    @property
    def is_yuv(self) -> bool:
        """Whether it has halved chroma."""
        return self.format in YUV_FORMATS


def _layout(format: str, pitch: int, height: int) -> tuple[int, int, int, int, int]:
    """Pitch of luma, pitch and step of chroma, and where U and V begin, in a YUV picture."""
    luma = pitch * height
    if format == "nv12":
        return pitch, pitch, 2, luma, luma + 1
    return pitch, pitch // 2, 1, luma, luma + luma // 4


def convert_to_rgb(out: Any, source: Picture, colour: Colour, *, blue_first: bool = False) -> None:
    """YUV to red, green and blue of the same size, one chroma sample for four pixels.

    Args:
        out: uint8 of shape (height, width, 3).
        source: YUV; its sides may be odd.
        colour: what its samples mean.
        blue_first: whether `out` is bgr24.
    """
    launch(
        "yuv_to_rgb",
        _half(source.width, source.height),
        out,
        (source.luma, source.chroma),
        (
            *(source.width, source.height, source.pitch, source.chroma_pitch),
            *(source.chroma_step, source.u_at, source.v_at, source.wide, blue_first),
            *to_rgb(colour),
        ),
    )


def convert_to_yuv(
    out: Any,
    format: str,
    source: Picture,
    colour: Colour,
    *,
    size: tuple[int, int] | None = None,
    pitch: int | None = None,
) -> None:
    """Red, green and blue, or gray, to YUV; chroma is the mean of four pixels.

    Args:
        out: uint8 of shape (height * 3 / 2, pitch).
        format: of `out`: `nv12` or `yuv420p`.
        source: not YUV; alpha is left out.
        colour: what the samples of `out` shall mean.
        size: of `out`, even; the source's own by default. What is beyond the source repeats its
            last column and row.
        pitch: bytes of a line of `out`, even; its width by default.
    """
    width, height = size or (source.width, source.height)
    launch(
        "rgb_to_yuv",
        _half(width, height),
        out,
        (source.luma,),
        (
            *(source.width, source.height, _CHANNELS[source.format], *_ORDER[source.format]),
            *(width, height, *_layout(format, pitch or width, height)),
            *to_yuv(colour),
        ),
    )


def scale(
    out: Any,
    format: str,
    size: tuple[int, int],
    source: Picture,
    *,
    part: Rect,
    target: Rect,
    colour: Colour,
    mirror: Turn = NO_TURN,
    background: tuple[int, int, int] = (0, 0, 0),
    chroma: Growth = "linear",
    pitch: int | None = None,
) -> None:
    """A part of a picture, scaled to a part of the result, mirrored, on a background.

    Where a side shrinks each sample is the mean of what it covers; where it grows it is cubic, with
    the parameter of the library that does the same on the CPU.

    Args:
        out: uint8 of the result's shape.
        format: of the result; YUV only from YUV, and its positions are even then.
        size: of the result: width and height in pixels.
        source: any; of YUV the part is even.
        part: of the source, in its pixels.
        target: of the result, in its pixels.
        colour: what the samples of YUV mean, before and after.
        mirror: left and right, top and bottom; no swapped sides.
        background: red, green and blue around the target, and behind what can be seen through.
        chroma: how chroma grows where it does.
        pitch: bytes of a line of luma in YUV, even; the width by default.
    """
    a = SWSCALE_CUBIC if source.is_yuv else OPENCV_CUBIC
    place = (*target, *part, mirror.flip_x, mirror.flip_y)
    halves = (source.chroma_pitch, source.chroma_step, source.u_at, source.v_at, source.wide)
    if format in YUV_FORMATS:
        halved = (
            *(*size, *_layout(format, pitch or size[0], size[1]), *place, source.pitch, *halves),
            *(_MODES[chroma], a, *of_rgb(background, colour)),
        )
        launch("scale_yuv", _half(*size), out, (source.luma, source.chroma), halved)
        return
    channels = 0 if source.is_yuv else _CHANNELS[source.format]
    scalars = (
        *(*size, _CHANNELS[format], format == "bgr24", *place),
        *(channels, source.format == "bgr24", source.pitch, *halves),
        *(_MODES[chroma], a, *to_rgb(colour), *background),
    )
    launch("scale", size, out, (source.luma, source.chroma), scalars)


def _half(width: int, height: int) -> tuple[int, int]:
    return -(-width // 2), -(-height // 2)
