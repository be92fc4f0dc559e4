"""Pictures as planes: arrays for the planes of a slot, FFmpeg frames around a slot, turns.

Nothing here copies unless it says so. Arrays made from a frame of the graph must be gone before
the frame is given back, so callers keep them in local variables of a function that returns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from nodes.colour import RGB, Colour, sws_range, sws_space
from streamer.formats import YUV_FORMATS

if TYPE_CHECKING:
    from av.video.frame import VideoFrame
    from av.video.reformatter import VideoReformatter

Array = npt.NDArray[np.uint8]


class Turn(NamedTuple):
    """One of the eight ways to lay a picture on its grid: first swap axes, then flip.

    Attributes:
        swap: rows become columns.
        flip_x: left and right change places.
        flip_y: top and bottom change places.
    """

    swap: bool = False
    flip_x: bool = False
    flip_y: bool = False


NO_TURN = Turn()


def slot_planes(array: Array, format: str, width: int, height: int) -> list[Array]:
    """The planes of a whole picture of the graph, as views.

    Args:
        array: uint8, contiguous, of shape `streamer.formats.picture_shape`.
        format: one of `streamer.formats.FORMATS`.
        width: pixels.
        height: pixels.

    Returns:
        one array for each plane, of shape (h, w) or (h, w, channels).
    """
    if format not in YUV_FORMATS:
        return [array]
    flat, luma, half = array.reshape(-1), width * height, (height // 2, width // 2)
    planes = [flat[:luma].reshape(height, width)]
    if format == "nv12":
        return [*planes, flat[luma:].reshape(*half, 2)]
    quarter = luma // 4
    return [
        *planes,
        flat[luma : luma + quarter].reshape(half),
        flat[luma + quarter :].reshape(half),
    ]


_CHANNELS = {"rgb24": (3,), "bgr24": (3,), "rgba": (4,)}


def av_planes(frame: VideoFrame) -> list[Array]:
    """The planes of an FFmpeg frame as views, without the padding at the end of its lines.

    Args:
        frame: of one of the formats of the graph (`yuvj420p` counts as `yuv420p`).
    """
    views = []
    for index, plane in enumerate(frame.planes):
        channels = _CHANNELS.get(frame.format.name) or ((2,) if index else ())
        if frame.format.name in ("yuv420p", "yuvj420p"):
            channels = ()
        # Lines may be stored bottom up; then the first one lies at the end of the buffer.
        stride = abs(plane.line_size)
        lines = np.frombuffer(memoryview(plane), dtype=np.uint8).reshape(plane.height, stride)
        if plane.line_size < 0:
            lines = lines[::-1]
        size = plane.width * (channels[0] if channels else 1)
        views.append(lines[:, :size].reshape(plane.height, plane.width, *channels))
    return views


def av_frame(array: Array, format: str) -> VideoFrame:
    """An FFmpeg frame that shows a whole picture of the graph, without copying; only to be read.

    Args:
        array: uint8, contiguous, of shape `streamer.formats.picture_shape`.
        format: one of `streamer.formats.FORMATS`.
    """
    from av.video.frame import VideoFrame

    return VideoFrame.from_numpy_buffer(array, format=format)


def lay(source: Array, target: Array, turn: Turn = NO_TURN) -> None:
    """Copies a plane into another, turned.

    Args:
        source: uint8 of shape (h, w) or (h, w, channels).
        target: uint8 of the same shape, with sides swapped if the turn swaps them.
        turn: how the source is laid on the target.
    """
    if turn == NO_TURN:
        np.copyto(target, source)
        return
    import cv2

    code = {(True, False): 1, (False, True): 0, (True, True): -1}.get(turn[1:])
    laid: object
    if not turn.swap:
        assert code is not None  # else it would be NO_TURN
        laid = cv2.flip(source, code, target)
    else:
        laid = cv2.transpose(source, target)
        if code is not None:
            laid = cv2.flip(target, code, target)
    if not (isinstance(laid, np.ndarray) and np.shares_memory(laid, target)):
        raise AssertionError("OpenCV wrote to memory of its own instead of the target")


def reformat(
    reformatter: VideoReformatter,
    picture: VideoFrame,
    format: str,
    size: tuple[int, int],
    *,
    source: Colour,
    target: Colour,
    flags: int,
) -> VideoFrame:
    """A picture of another size and format, with the right matrix and range at both ends.

    Args:
        reformatter: kept from picture to picture, since it is costly to set up.
        picture: FFmpeg's frame; returned as it is where nothing is to be done.
        format: one of `streamer.formats.FORMATS`.
        size: width and height in pixels.
        source: what the picture's samples mean.
        target: what they shall mean; RGB for all but YUV.
        flags: swscale's, how to scale and how exactly.
    """
    before = sws_space(source)
    if format == "gray":
        # swscale would weight colours anew, by BT.601; luminance is to stay what it is.
        before = sws_space(RGB)
    return reformatter.reformat(
        picture,
        width=size[0],
        height=size[1],
        format=format,
        src_colorspace=before,
        dst_colorspace=before if target == RGB else sws_space(target),
        src_color_range=sws_range(source),
        dst_color_range=sws_range(target),
        interpolation=flags,
        # A picture of the usual sizes takes a millisecond; threads would cost others more.
        threads=1,
    )


def over(array: Array, background: tuple[int, int, int]) -> Array:
    """A picture with straight alpha laid over a colour.

    Args:
        array: rgba, uint8 of shape (h, w, 4).
        background: red, green, blue.

    Returns:
        rgb24, uint8 of shape (h, w, 3).
    """
    alpha = array[..., 3:].astype(np.uint16)
    behind = np.asarray(background, dtype=np.uint16)
    mixed = array[..., :3] * alpha + behind * (255 - alpha)
    return ((mixed + 127) // 255).astype(np.uint8)
