"""Pictures of the graph as pictures for the encoder: pixel format, colours, even sides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from av.video.format import VideoFormat
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter

from nodes.colour import RGB, Colour, guess_space, sws_range, sws_space
from nodes.planes import over
from streamer import Frame, Header
from streamer.formats import YUV_FORMATS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from av.video.codeccontext import VideoCodecContext

    from nodes.encoder import on_gpu

# Numbers of ITU-T H.273 for matrix, primaries and transfer, which FFmpeg uses for its tags.
_TAGS: Final = {"bt601": (6, 6, 6), "bt709": (1, 1, 1), "bt2020": (9, 9, 14)}
_RGB_TAGS: Final = (0, 1, 13)  # identity matrix, and the primaries and curve of sRGB
_BEHIND: Final = (0, 0, 0)  # what is transparent, where an encoder has no alpha
# Chroma of these is halved both ways, so that odd sides have no last sample; JPEG allows it.
_NEEDS_EVEN: Final = ("yuv420p", "nv12", "yuv420p10le")


@dataclass(frozen=True, slots=True)
class Shape:
    """What an encoder is opened for.

    Attributes:
        width: pixels, even where the format needs it.
        height: pixels, even where the format needs it.
        format: FFmpeg's name of the pixel format.
        colour: meaning of the samples.
        surfaces: whether the encoder reads them in a GPU's memory.
    """

    width: int
    height: int
    format: str
    colour: Colour
    surfaces: bool = False

    @classmethod
    def of(
        cls, header: Header, formats: Sequence[str], *, codec: str, surfaces: bool = False
    ) -> Shape:
        """The shape to encode pictures like this one in.

        YUV pictures keep their format where the encoder takes it, and their colours. RGB and gray
        pictures become YUV of limited range, BT.709 from 720 lines on and else BT.601, which is
        what players assume; where the encoder takes RGB and no YUV they stay as they are. JPEG
        has full range by definition.

        Args:
            header: of a picture.
            formats: pixel formats of the encoder, best first; empty if it takes any.
            codec: name of the encoder.
            surfaces: whether it reads pictures in a GPU's memory.
        """
        format = _pick(header.format, formats)
        if format in ("rgb24", "rgba", "bgr24", "gray"):
            colour = RGB
        elif header.format in YUV_FORMATS:
            known = header.colorspace in _TAGS
            # The colour space "rgb" on a YUV picture means that nobody said.
            colour = (
                Colour(header.colorspace, header.full_range)
                if known
                else Colour(guess_space(header.height), False)
            )
        else:
            colour = Colour(guess_space(header.height), False)
        if codec == "mjpeg":
            colour = Colour("bt601", True)
        # JPEG has no chroma samples of its own to lose at an odd side: it pads by itself.
        pad = format in _NEEDS_EVEN and codec not in ("mjpeg", "rawvideo")
        return cls(
            header.width + (header.width % 2 if pad else 0),
            header.height + (header.height % 2 if pad else 0),
            format,
            colour,
            surfaces,
        )

    def tag(self, context: VideoCodecContext) -> None:
        """Writes the colours into an encoder that is not open yet."""
        matrix, primaries, curve = _TAGS.get(self.colour.space, _RGB_TAGS)
        if self.format == "gray":
            matrix = 2  # unspecified: there is no chroma
        context.colorspace = matrix
        context.color_primaries = primaries
        context.color_trc = curve
        context.color_range = sws_range(self.colour)


def _pick(format: str, formats: Sequence[str]) -> str:
    if format in YUV_FORMATS and format in formats:
        return format
    if not formats or "yuv420p" in formats:
        return "yuv420p"
    if format in formats:
        return format
    return "rgb24" if "rgb24" in formats else formats[0]


class Converter:
    """Makes encoder pictures of one shape.

    Args:
        shape: of all of them.
        frees: whether the encoder has read a picture when it returns, so that it may be handed
            the frame's own memory; else it gets a copy.
    """

    def __init__(self, shape: Shape, *, frees: bool) -> None:
        self.shape = shape
        self._frees = frees
        self._reformatter = VideoReformatter()
        self._on_gpu: on_gpu.Converter | None = None

    def convert(self, frame: Frame) -> VideoFrame:
        """The picture for the encoder, without times.

        It may show the frame's memory, and must then be gone before the frame is given back.
        """
        shape, header = self.shape, frame.header
        colour = _colour_of(header)
        if frame.memory == "cuda" and self._kernels().takes(frame, colour):
            if shape.surfaces:
                return self._kernels().surface(frame)
            return self._shown(self._kernels().download(frame), shape.format)
        pixels, format = frame.numpy(), header.format
        if format == "rgba" and not _has_alpha(shape.format) and pixels[..., 3].min() < 255:
            # FFmpeg would show what lies under what is transparent.
            pixels, format = over(pixels, _BEHIND), "rgb24"
        fits = (header.width, header.height) == (shape.width, shape.height)
        if fits and format == shape.format and colour == shape.colour:
            return self._shown(pixels, format)
        if not fits:
            pixels = _padded(pixels, shape.width - header.width, shape.height - header.height)
        view = VideoFrame.from_numpy_buffer(pixels, format)
        return self._reformatter.reformat(
            view,
            shape.width,
            shape.height,
            shape.format,
            src_colorspace=sws_space(colour),
            dst_colorspace=sws_space(shape.colour),
            src_color_range=sws_range(colour),
            dst_color_range=sws_range(shape.colour),
        )

    def _shown(self, pixels: np.ndarray, format: str) -> VideoFrame:
        """Pixels as they are, in memory of their own where the encoder goes on reading them."""
        if self._frees:
            return VideoFrame.from_numpy_buffer(pixels, format)
        return VideoFrame.from_ndarray(pixels, format)

    def _kernels(self) -> on_gpu.Converter:
        if self._on_gpu is None:
            from nodes.encoder.on_gpu import Converter

            self._on_gpu = Converter(self.shape)
        return self._on_gpu


def _has_alpha(format: str) -> bool:
    return any(component.is_alpha for component in VideoFormat(format).components)


def _colour_of(header: Header) -> Colour:
    if header.format not in YUV_FORMATS:
        return RGB
    if header.colorspace in _TAGS:
        return Colour(header.colorspace, header.full_range)
    return Colour(guess_space(header.height), False)


def _padded(pixels: np.ndarray, right: int, below: int) -> np.ndarray:
    """An odd picture with its last column and row repeated."""
    widths = [(0, below), (0, right), (0, 0)][: pixels.ndim]
    return np.ascontiguousarray(np.pad(pixels, widths, mode="edge"))
