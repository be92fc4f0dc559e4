"""What `shape` does on the CPU, by kernels on the node's GPU; nothing but the source is copied."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nodes.colour import RGB, Colour
from nodes.on_gpu import pictures
from nodes.on_gpu.pictures import Growth, Picture
from nodes.on_gpu.scratch import Scratch
from streamer.formats import YUV_FORMATS

if TYPE_CHECKING:
    from nodes.planes import Turn
    from nodes.preprocess.geometry import Layout
    from nodes.sizes import Rect
    from streamer import Frame
    from streamer.gpu.device import Device


class Kernels:
    """Fills slots on a GPU.

    Args:
        device: of the node.
        mirror: what changes places.
        background: red, green and blue, 0 to 255.
    """

    def __init__(self, device: Device, *, mirror: Turn, background: tuple[int, int, int]) -> None:
        self._scratch = Scratch(device)
        self._mirror = mirror
        self._background = background

    def fill(
        self, made: Frame, frame: Frame, plan: Layout, *, source: Colour, target: Colour
    ) -> None:
        """Puts all that makes a picture of another into this thread's stream.

        Args:
            made: on the GPU; YUV only where `plan` has even positions.
            frame: on the GPU, or in host memory, from where it is copied as it is.
            plan: which part goes where.
            source: what the samples of `frame` mean.
            target: what those of `made` shall mean: `source` where both are YUV.
        """
        picture = Picture.of(frame.cupy(), frame.format, frame.width, frame.height)
        out = made.cupy()
        if picture.is_yuv and any(number % 2 for number in plan.source):
            # Chroma cannot be cut at an odd pixel: colours first, for the whole picture.
            shape = (frame.height, frame.width, 3)
            whole = self._scratch.array("whole", shape)
            pictures.convert_to_rgb(whole, picture, source)
            picture = Picture.of(whole, "rgb24", frame.width, frame.height)
        if made.format in YUV_FORMATS and not picture.is_yuv:
            size = plan.size
            rgb = picture
            if not self._is_plain(picture, plan):
                laid = self._scratch.array("laid", (size[1], size[0], 3))
                self._scale(laid, "rgb24", picture, plan, RGB)
                rgb = Picture.of(laid, "rgb24", *size)
            pictures.convert_to_yuv(out, made.format, rgb, target)
            return
        self._scale(out, made.format, picture, plan, source)

    def _scale(self, out: Any, format: str, picture: Picture, plan: Layout, colour: Colour) -> None:
        pictures.scale(
            out,
            format,
            plan.size,
            picture,
            part=plan.source,
            target=plan.target,
            colour=colour,
            mirror=self._mirror,
            background=self._background,
            chroma=growth(plan.source, plan.target),
        )

    def _is_plain(self, picture: Picture, plan: Layout) -> bool:
        """Whether nothing but the colours is to be changed."""
        size = (picture.width, picture.height)
        same = plan.source[2:] == plan.target[2:] == plan.size == size
        return same and not any(self._mirror) and picture.format != "rgba"


def growth(part: Rect, target: Rect) -> Growth:
    """How chroma grows to the target's size: as swscale does with the flags of the CPU's path."""
    if part[2:] == target[2:]:
        return "nearest"
    smaller = target.width <= part.width and target.height <= part.height
    return "linear" if smaller else "cubic"
