"""Control pictures of frames on a GPU, drawn there by torch: nothing comes down in between."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nodes.colour import Colour, guess_space
from nodes.on_gpu import pictures
from nodes.on_gpu.pictures import Picture
from nodes.on_gpu.scratch import Scratch
from streamer.formats import YUV_FORMATS

if TYPE_CHECKING:
    from torch import Tensor

    from nodes.condition.on_torch import TorchExtractor
    from streamer import Frame
    from streamer.gpu.device import Device


class Drawer:
    """Draws from slots into slots on one GPU, on the stream of the node's thread.

    Args:
        device: of the node.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self._scratch = Scratch(device)

    def draw(self, made: Frame, frame: Frame, extractor: TorchExtractor, *, colours: bool) -> None:
        """Puts the drawing of one picture into the stream.

        Args:
            made: on the GPU, rgb24 or gray.
            frame: on the GPU, or in host memory, from where it is copied as it is.
            extractor: of the same GPU.
            colours: whether it has to see red, green and blue, where the picture is YUV.
        """
        array: Any = frame.cupy()
        if colours and frame.format in YUV_FORMATS:
            header = frame.header
            space = header.colorspace if header.colorspace != "rgb" else guess_space(frame.height)
            rgb = self._scratch.array("rgb", (frame.height, frame.width, 3))
            source = Picture.of(array, frame.format, frame.width, frame.height)
            pictures.convert_to_rgb(rgb, source, Colour(space, header.full_range))
            seen = self._device.tensor(rgb)
        else:
            tensor = self._device.tensor(array)
            seen = seen_of(tensor, frame.format, full=frame.header.full_range)
        show(extractor.drawn(seen), made.torch())


def seen_of(pixels: Tensor, format: str, *, full: bool) -> Tensor:
    """What there is to draw from, in the memory that the pixels are in.

    Args:
        pixels: uint8 of shape `streamer.formats.picture_shape`.
        format: its pixel format; of YUV the luminance is taken.
        full: whether YUV uses 0 to 255 rather than 16 to 235.

    Returns:
        uint8: luminance of full range (H, W), or red, green and blue (H, W, 3).
    """
    if format == "bgr24":
        return pixels.flip(-1)
    if format not in YUV_FORMATS:
        return pixels
    luma = pixels[: pixels.shape[0] * 2 // 3]
    if full:
        return luma
    return ((luma.float() - 16.0) * (255.0 / 219.0)).clamp_(0.0, 255.0).round_().byte()


def show(drawn: Tensor, slot: Tensor) -> None:
    """Writes a picture of one channel, (H, W), into a slot of one or three."""
    slot.copy_(drawn if slot.ndim == 2 else drawn[..., None].expand_as(slot))
