"""A decoded picture written into a slot of the graph: upright, 8 bits, square pixels."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

from nodes.colour import RGB, Colour, guess_space, read_colour
from nodes.planes import NO_TURN, Turn, av_planes, lay, reformat, slot_planes
from streamer import Context, Frame, ParameterError, SourceError
from streamer.formats import MAX_SIDE, YUV_FORMATS

if TYPE_CHECKING:
    from av.video.format import VideoFormat
    from av.video.frame import VideoFrame

    from nodes.decoder.on_gpu import Uploader
    from nodes.planes import Array

_NATIVE: Final = {
    "yuv420p": "yuv420p",
    "yuvj420p": "yuv420p",
    "nv12": "nv12",
    "gray": "gray",
    "rgb24": "rgb24",
    "bgr24": "bgr24",
    "rgba": "rgba",
}
"""FFmpeg's pixel formats whose planes can be copied as they are, and their names in the graph."""

_FINE: Final = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT


@dataclass(slots=True)
class Shot:
    """A decoded picture and its time.

    Attributes:
        picture: FFmpeg's frame.
        pts: presentation time, in units of `time_base`.
        time_base: seconds.
        duration: how long it is shown, in units of `time_base`; 0 if unknown.
        capture_ns: CLOCK_MONOTONIC when it was read.
        ready_ns: CLOCK_MONOTONIC when the last packet was read that had to come before it could
            be shown; later than `capture_ns` where pictures are not sent in order.
        pixel_shape: width of a pixel by its height.
        stale: whether it had come before it could be shown, while the source was being opened.
    """

    picture: VideoFrame
    pts: int
    time_base: Fraction
    duration: int
    capture_ns: int
    ready_ns: int = 0
    pixel_shape: Fraction = Fraction(1)
    stale: bool = False

    @property
    def time(self) -> Fraction:
        """Presentation time in seconds."""
        return self.pts * self.time_base


class Renderer:
    """Writes decoded pictures into slots, in one pass where formats and sides allow.

    Args:
        context: allocates the slots, and says which pixel formats are wanted.
        format: pixel format to hand on, or `auto`.

    Raises:
        ParameterError: the next nodes do not take the format.
    """

    def __init__(self, context: Context, format: str) -> None:
        if format != "auto" and format not in context.wanted:
            raise ParameterError(
                f"format {format} is not taken by the next nodes; "
                f"they take {', '.join(context.wanted)}"
            )
        self._context = context
        self._wanted = context.wanted if format == "auto" else (format,)
        self._reformatter = VideoReformatter()
        self._log: logging.Logger = context.log
        self._askew = False
        self._uploader: Uploader | None = None

    def close(self) -> None:
        """Frees what is held on a GPU."""
        if self._uploader is not None:
            self._uploader.close()
            self._uploader = None

    def frame(self, shot: Shot) -> Frame:
        """The picture in a new slot of the graph.

        Raises:
            SourceError: no wanted format can hold a picture of this size.
        """
        picture = shot.picture
        turn = self._turn(picture)
        width, height = square_size(picture.width, picture.height, shot.pixel_shape)
        upright = (height, width) if turn.swap else (width, height)
        format = self._choose(picture, *upright)
        frame = self._context.allocate(
            *upright,
            format,
            pts=shot.pts,
            time_base=shot.time_base,
            capture_ns=shot.capture_ns,
        )
        try:
            self._fill(frame, picture, width, height, turn)
        except BaseException:
            frame.release()
            raise
        frame.header.duration = shot.duration
        return frame

    def _fill(self, frame: Frame, picture: VideoFrame, width: int, height: int, turn: Turn) -> None:
        colour = colour_of(picture)
        target = RGB if frame.format not in YUV_FORMATS else colour
        if frame.format in YUV_FORMATS and colour == RGB:
            target = Colour(guess_space(height), False)
        frame.header.colorspace, frame.header.full_range = target
        resized = (width, height) != (picture.width, picture.height)
        if frame.memory == "host":
            array = frame.numpy()
            self._render(array, frame.format, picture, (width, height), turn, colour, target)
            return
        uploader = self._on_gpu()
        if not resized and turn == NO_TURN and uploader.takes(picture, frame.format):
            uploader.fill(frame, picture, colour)
            return
        from nodes.decoder.on_gpu import on_host

        picture, size = on_host(picture), (width, height)
        uploader.rendered(
            frame,
            lambda array: self._render(array, frame.format, picture, size, turn, colour, target),
        )

    def _on_gpu(self) -> Uploader:
        if self._uploader is None:
            from nodes.decoder.on_gpu import Uploader
            from streamer import gpu

            assert self._context.gpu is not None, "else the slot would be in host memory"
            self._uploader = Uploader(gpu.device(self._context.gpu))
        return self._uploader

    def _render(
        self,
        array: Array,
        format: str,
        picture: VideoFrame,
        size: tuple[int, int],
        turn: Turn,
        colour: Colour,
        target: Colour,
    ) -> None:
        """Writes a picture into an array of the graph, turned after it was brought to `size`."""
        resized = size != (picture.width, picture.height)
        if (
            resized
            or _NATIVE.get(picture.format.name) != format
            or (
                # Limited luminance is no gray yet: black would be 16.
                format == "gray" and not colour.full
            )
        ):
            picture = reformat(
                self._reformatter,
                picture,
                format,
                size,
                source=colour,
                target=target,
                flags=_FINE if resized else Interpolation.BILINEAR,
            )
        width, height = (size[1], size[0]) if turn.swap else size
        slot = slot_planes(array, format, width, height)
        for source, plane in zip(av_planes(picture), slot, strict=True):
            lay(source, plane, turn)

    def _choose(self, picture: VideoFrame, width: int, height: int) -> str:
        even = not (width % 2 or height % 2)
        if not (width <= MAX_SIDE and height <= MAX_SIDE):
            raise SourceError(
                f"its pictures are of {width}x{height}; at most {MAX_SIDE} pixels a side are taken"
            )
        fits = [name for name in self._wanted if even or name not in YUV_FORMATS]
        if not fits:
            raise SourceError(
                f"its pictures are of {width}x{height}, and {', '.join(self._wanted)} need even "
                "sides; put a preprocess node with an even size behind it"
            )
        form = form_of(picture)
        native = _NATIVE.get(form.name)
        if native in fits:
            return native
        halved = form.name.startswith(("yuv420p", "yuvj420p", "p010", "p016", "nv21", "nv12"))
        if halved and "yuv420p" in fits:
            return "yuv420p"
        if form.is_rgb or form.name == "pal8":
            return next((name for name in ("rgb24", "bgr24") if name in fits), fits[0])
        return fits[0]

    def _turn(self, picture: VideoFrame) -> Turn:
        data: Any = picture.side_data.get("DISPLAYMATRIX")
        if data is None:
            return NO_TURN
        turn, exact = turn_of_matrix(np.frombuffer(memoryview(data), dtype=np.int32))
        if not exact and not self._askew:
            self._askew = True
            self._log.warning("the picture is to be turned by no multiple of 90 degrees: rounded")
        return turn


def form_of(picture: VideoFrame) -> VideoFormat:
    """The format of a decoded picture's samples, in whatever memory they are."""
    return picture.sw_format or picture.format


def colour_of(picture: VideoFrame) -> Colour:
    """What the samples of a decoded picture mean."""
    form = form_of(picture)
    return read_colour(
        space=picture.colorspace,
        range=picture.color_range,
        height=picture.height,
        is_rgb=form.is_rgb or form.name == "pal8",
        full_format=form.name.startswith(("yuvj", "gray", "mono", "ya")),
    )


def square_size(width: int, height: int, pixel_shape: Fraction) -> tuple[int, int]:
    """Size of a picture once its pixels are square: the height stays, the width follows.

    Args:
        width: pixels.
        height: pixels.
        pixel_shape: width of a pixel by its height.
    """
    # Less than one part in two hundred is not seen, and would cost a resampling.
    if abs(pixel_shape - 1) <= Fraction(1, 200):
        return width, height
    wide = width * pixel_shape
    return max(2, round(wide / 2) * 2 if width % 2 == 0 else round(wide)), height


def turn_of_matrix(matrix: np.ndarray[tuple[int], np.dtype[np.int32]]) -> tuple[Turn, bool]:
    """The turn that a display matrix asks for (ISO/IEC 14496-12, 8.2.2.2), and if it is exact.

    Args:
        matrix: nine int32, (a b u; c d v; x y w), by which (p, q, 1) is multiplied from the left.
    """
    a, b, c, d = (int(matrix[index]) for index in (0, 1, 3, 4))
    length = math.hypot(a, b) or 1.0
    swap = abs(b) > abs(a)
    turn = Turn(True, c < 0, b < 0) if swap else Turn(False, a < 0, d < 0)
    return turn, min(abs(a), abs(b)) / length < 0.02
