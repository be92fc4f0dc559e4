"""Crop, scale, convert and mirror one picture, with as few passes over the pixels as can be.

Red, green and blue are scaled by OpenCV, which works on them as they are. YUV is scaled and
converted by FFmpeg's swscale in one pass, with the right matrix and range, so that colours are
computed at the small size. Both write to the slot at once where nothing remains to be done. Slots
on a GPU are filled by kernels there, `on_gpu`, to the same effect.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import cv2
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter

from nodes.colour import RGB, Colour, guess_space, sws_range, sws_space
from nodes.planes import (
    NO_TURN,
    Array,
    Turn,
    av_frame,
    av_planes,
    lay,
    over,
    reformat,
    slot_planes,
)
from nodes.preprocess.geometry import Layout, layout
from nodes.sizes import Rect, parse_colour, parse_rect, parse_size
from streamer import Context, Frame, FrameError, NodeError, ParameterError
from streamer.formats import YUV_FORMATS

if TYPE_CHECKING:
    from nodes.preprocess import PreprocessParams
    from nodes.preprocess.on_gpu import Kernels

_MIRRORS: Final = {
    "none": NO_TURN,
    "horizontal": Turn(False, True, False),
    "vertical": Turn(False, False, True),
    "both": Turn(False, True, True),
}
_EXACT: Final = Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
_DOWN: Final = Interpolation.AREA | _EXACT
_UP: Final = Interpolation.BICUBIC | _EXACT

# OpenCV's conversions between interleaved formats; None where nothing is to be done.
_CONVERSIONS: Final[dict[tuple[str, str], int | None]] = {
    ("rgb24", "rgb24"): None,
    ("bgr24", "bgr24"): None,
    ("gray", "gray"): None,
    ("rgb24", "bgr24"): cv2.COLOR_RGB2BGR,
    ("bgr24", "rgb24"): cv2.COLOR_BGR2RGB,
    ("rgb24", "gray"): cv2.COLOR_RGB2GRAY,
    ("bgr24", "gray"): cv2.COLOR_BGR2GRAY,
    ("gray", "rgb24"): cv2.COLOR_GRAY2RGB,
    ("gray", "bgr24"): cv2.COLOR_GRAY2BGR,
}


class Shaper:
    """Makes pictures of the wanted shape and format.

    Args:
        params: the node's parameters.
        context: allocates the slots, and says which pixel formats are wanted.
        emits: pixel formats that can be made, best first.

    Raises:
        ParameterError: the next nodes do not take the format.
    """

    def __init__(
        self, params: PreprocessParams, context: Context, *, emits: tuple[str, ...]
    ) -> None:
        if params.format != "auto" and params.format not in context.wanted:
            raise ParameterError(
                f"format {params.format} is not taken by the next nodes; "
                f"they take {', '.join(context.wanted)}"
            )
        self._context = context
        self._wanted = tuple(name for name in context.wanted if name in emits)
        if params.format != "auto":
            self._wanted = (params.format,)
        self._size = parse_size(params.size) if params.size else None
        self._crop = parse_rect(params.crop) if params.crop else None
        self._fit = params.fit
        self._mirror = _MIRRORS[params.mirror]
        self._background = parse_colour(params.background)
        self._reformatter = VideoReformatter()
        self._kernels: Kernels | None = None
        self._seen = False

    def shaped(self, frame: Frame) -> Frame:
        """The picture in a new slot.

        Raises:
            NodeError: see `Preprocess.process`.
            FrameError: see `Preprocess.process`.
        """
        area = self._area(frame)
        self._seen = True
        width, height = self._size or (area.width, area.height)
        format = self._choose(frame.format, width, height)
        even = format in YUV_FORMATS
        pairs = frame.format in YUV_FORMATS
        plan = layout(area, self._size, self._fit, even=even, pairs=pairs)
        made = self._context.allocate(*plan.size, format, like=frame.header)
        try:
            self._fill(made, frame, plan)
        except BaseException:
            made.release()
            raise
        return made

    def _area(self, frame: Frame) -> Rect:
        crop, width, height = self._crop, frame.width, frame.height
        if crop is None:
            return Rect(0, 0, width, height)
        if crop.x + crop.width > width or crop.y + crop.height > height:
            message = f"crop {crop} reaches beyond the picture, which is of {width}x{height} pixels"
            # A picture that shrank in mid-stream may grow again; a wrong number stays wrong.
            raise FrameError(message) if self._seen else NodeError(message)
        return crop

    def _choose(self, source: str, width: int, height: int) -> str:
        even = not (width % 2 or height % 2)
        fits = [name for name in self._wanted if even or name not in YUV_FORMATS]
        if not fits:
            raise NodeError(
                f"pictures of {width}x{height} cannot be handed on as "
                f"{', '.join(self._wanted) or 'anything that the next nodes take'}: "
                "give an even size"
            )
        best = fits[0]
        if best in YUV_FORMATS:
            # YUV is passed on where it is liked best and there already; it is not made of RGB
            # for somebody who takes RGB as well.
            if source in YUV_FORMATS:
                return source if source in fits else best
            return next((name for name in fits if name not in YUV_FORMATS), best)
        return "rgb24" if "rgb24" in fits else best

    def _fill(self, made: Frame, frame: Frame, plan: Layout) -> None:
        source = target = RGB
        if frame.format in YUV_FORMATS:
            source = meaning(frame)
        if made.format in YUV_FORMATS:
            target = source if source != RGB else Colour(guess_space(made.height), False)
        made.header.colorspace, made.header.full_range = target
        if made.memory == "cuda":
            self._on_gpu().fill(made, frame, plan, source=source, target=target)
            return
        slot = slot_planes(made.numpy(), made.format, made.width, made.height)
        if plan.target[2:] != plan.size:
            paint(slot, made.format, self._background, target)
            slot = [part(plane, plan.target, plan.size) for plane in slot]
        if frame.format in YUV_FORMATS:
            picture = self._from_yuv(frame, plan, made.format, source, target)
        elif made.format in YUV_FORMATS:
            rgb = self._from_rgb(frame, plan, "rgb24", None)
            picture = self._converted(av_frame(rgb, "rgb24"), plan, made.format, RGB, target)
        else:
            direct = slot[0] if self._mirror == NO_TURN else None
            done = self._from_rgb(frame, plan, made.format, direct)
            if direct is None or not np.shares_memory(done, direct):
                lay(done, slot[0], self._mirror)
            return
        for one, plane in zip(av_planes(picture), slot, strict=True):
            lay(one, plane, self._mirror)

    def _on_gpu(self) -> Kernels:
        if self._kernels is None:
            from nodes.preprocess.on_gpu import Kernels
            from streamer import gpu

            assert self._context.gpu is not None, "else the slot would be in host memory"
            self._kernels = Kernels(
                gpu.device(self._context.gpu), mirror=self._mirror, background=self._background
            )
        return self._kernels

    def _from_yuv(
        self, frame: Frame, plan: Layout, format: str, source: Colour, target: Colour
    ) -> VideoFrame:
        picture = av_frame(frame.numpy(), frame.format)
        rect = plan.source
        if rect[2:] == (frame.width, frame.height):
            return self._converted(picture, plan, format, source, target)
        if not any(number % 2 for number in rect):
            cut = VideoFrame(rect.width, rect.height, frame.format)
            planes = slot_planes(frame.numpy(), frame.format, frame.width, frame.height)
            for one, plane in zip(planes, av_planes(cut), strict=True):
                lay(part(one, rect, (frame.width, frame.height)), plane)
            return self._converted(cut, plan, format, source, target)
        # Chroma cannot be cut at an odd pixel: colours first, for the whole picture.
        whole = reformat(
            self._reformatter,
            picture,
            "rgb24",
            (frame.width, frame.height),
            source=source,
            target=RGB,
            flags=Interpolation.BILINEAR,
        )
        rgb = np.ascontiguousarray(cut_out(av_planes(whole)[0], rect))
        scaled = scale(rgb, plan.target.width, plan.target.height)
        return self._converted(av_frame(scaled, "rgb24"), plan, format, RGB, target)

    def _converted(
        self, picture: VideoFrame, plan: Layout, format: str, source: Colour, target: Colour
    ) -> VideoFrame:
        width, height = plan.target[2:]
        smaller = width <= picture.width and height <= picture.height
        same = (width, height) == (picture.width, picture.height)
        flags = Interpolation.BILINEAR if same else _DOWN if smaller else _UP
        return reformat(
            self._reformatter,
            picture,
            format,
            (width, height),
            source=source,
            target=target,
            flags=flags,
        )

    def _from_rgb(self, frame: Frame, plan: Layout, format: str, target: Array | None) -> Array:
        """The part of an interleaved picture, scaled and converted; in `target` if it can be."""
        array, name = cut_out(frame.numpy(), plan.source), frame.format
        if name == "rgba":
            array, name = over(array, self._background), "rgb24"
        code = _CONVERSIONS[name, format]
        size = plan.target[2:]
        if code is None:
            return scale(array, *size, target=target)
        # The fewer pixels are converted the better.
        if size[0] * size[1] < plan.source.width * plan.source.height:
            return converted(scale(array, *size), code, target)
        return scale(converted(array, code, None), *size, target=target)


def meaning(frame: Frame) -> Colour:
    """What the samples of a YUV picture mean; the matrix is guessed if its header has none."""
    header = frame.header
    space = header.colorspace if header.colorspace != "rgb" else guess_space(frame.height)
    return Colour(space, header.full_range)


def cut_out(array: Array, rect: Rect) -> Array:
    """A part of an array of shape (h, w) or (h, w, channels), as a view."""
    return array[rect.y : rect.y + rect.height, rect.x : rect.x + rect.width]


def part(plane: Array, rect: Rect, size: tuple[int, int]) -> Array:
    """The part of a plane that belongs to a part of its picture, as a view.

    Args:
        plane: whole, of full or halved sides.
        rect: in pixels of the picture; even where the plane is halved.
        size: of the picture.
    """
    halved = plane.shape[1] != size[0]
    return cut_out(plane, Rect(*(number // 2 for number in rect)) if halved else rect)


def scale(array: Array, width: int, height: int, *, target: Array | None = None) -> Array:
    """An array of another size: averaged where it shrinks, cubic where it grows.

    Args:
        array: uint8 of shape (h, w) or (h, w, channels).
        width: of the result, in pixels.
        height: of the result, in pixels.
        target: where to write; a new array by default.

    Returns:
        the target, or the array itself if nothing is to be done and there is no target.
    """
    before = (array.shape[1], array.shape[0])
    if before == (width, height):
        if target is None:
            return array
        np.copyto(target, array)
        return target
    if (width < before[0]) != (height < before[1]) and width != before[0] and height != before[1]:
        # One side shrinks and the other grows: OpenCV's averaging would not average.
        array = scale(array, min(width, before[0]), min(height, before[1]))
        before = (array.shape[1], array.shape[0])
    shrinks = width <= before[0] and height <= before[1]
    how = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    return _written(cv2.resize(array, (width, height), target, interpolation=how), target)


def converted(array: Array, code: int, target: Array | None) -> Array:
    """An array after one of OpenCV's colour conversions, in the target if there is one."""
    return _written(cv2.cvtColor(array, code, target), target)


def _written(result: Any, target: Array | None) -> Array:
    if target is not None and not np.shares_memory(result, target):
        raise AssertionError("OpenCV wrote to memory of its own instead of the target")
    array: Array = result
    return array


def paint(planes: list[Array], format: str, colour: tuple[int, int, int], target: Colour) -> None:
    """Fills the planes of a picture with one colour."""
    rgb = np.array([[colour] * 2] * 2, dtype=np.uint8)
    if format == "rgb24":
        planes[0][:] = colour
    elif format in YUV_FORMATS:
        dot = VideoFrame.from_ndarray(rgb, format="rgb24").reformat(
            format=format,
            src_color_range=sws_range(RGB),
            dst_colorspace=sws_space(target),
            dst_color_range=sws_range(target),
            interpolation=_EXACT | Interpolation.BILINEAR,
        )
        for plane, one in zip(planes, av_planes(dot), strict=True):
            plane[:] = one[0, 0]
    else:
        code = _CONVERSIONS["rgb24", format]
        assert code is not None
        planes[0][:] = cv2.cvtColor(rgb, code)[0, 0]
