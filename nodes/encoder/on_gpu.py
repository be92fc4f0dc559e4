"""Pictures on a GPU for encoders: as surfaces for the GPU's own, or 1.5 bytes a pixel down.

Colours are converted on the GPU. For an encoder on the CPU the planes then come down through
pinned memory; the node waits for that copy alone, while the nodes before it make the next picture
on streams of their own, so a live picture is never a picture late.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

from nodes.colour import RGB, Colour
from nodes.on_gpu import pictures
from nodes.on_gpu.pictures import Picture
from nodes.on_gpu.scratch import Scratch
from nodes.sizes import Rect
from streamer import gpu
from streamer.errors import DeviceError
from streamer.formats import YUV_FORMATS, picture_shape
from streamer.gpu.staging import Staging

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from av.codec.hwaccel import HWAccel
    from av.video.frame import VideoFrame

    from nodes.encoder.pictures import Shape
    from streamer import Frame
    from streamer.gpu.device import Device

    Array = npt.NDArray[np.uint8]

_ALIGNMENT: Final = 256
"""bytes that lines of surfaces begin at a multiple of, as encoders want them"""


class Converter:
    """Makes encoder pictures of frames on a GPU.

    Args:
        shape: of all of them.
    """

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        self._device: Device | None = None
        self._context: Any = None

    def takes(self, frame: Frame, colour: Colour) -> bool:
        """Whether kernels make the encoder's picture of it.

        Args:
            frame: on a GPU.
            colour: what its samples mean.
        """
        size = (self._shape.width, self._shape.height)
        return self._shape.format in YUV_FORMATS and (
            frame.format not in YUV_FORMATS
            or (colour == self._shape.colour and (frame.width, frame.height) == size)
        )

    def download(self, frame: Frame) -> Array:
        """The picture in pinned memory, of the shape's format; it holds until the next one."""
        shape = self._shape
        array = frame.cupy()
        device = self._ready(array)
        sides = picture_shape(shape.format, shape.width, shape.height)
        if frame.format != shape.format:
            made = self._scratch.array("yuv", sides)
            self._convert(made, array, frame, pitch=shape.width)
            array = made
        pointer = device.pointer_of(array, sides)
        assert pointer is not None
        nbytes = sides[0] * sides[1]
        buffer = self._staging.take(nbytes)
        buffer.download(pointer, nbytes, device.stream())
        buffer.wait()
        return buffer.array(nbytes).reshape(sides)

    def surface(self, frame: Frame) -> VideoFrame:
        """The picture for the GPU's own encoder, in memory of its own until that is done with it.

        Written from the sources of PyAV 18.1 and FFmpeg 8.1; tests of it need a GPU that encodes.
        """
        from av.video.frame import CudaContext, VideoFrame

        width, height = self._shape.width, self._shape.height
        array = frame.cupy()
        device = self._ready(array)
        pitch = -(-width // _ALIGNMENT) * _ALIGNMENT
        made = device.empty((height * 3 // 2, pitch))
        self._convert(made, array, frame, pitch=pitch)
        # The encoder reads on a stream that does not wait for this one.
        device.stream_synchronize(device.stream())
        if self._context is None:
            self._context = CudaContext(device.ordinal, primary_ctx=False, current_ctx=True)
        return VideoFrame.from_dlpack(
            (made[:height, :width], made[height:, :width]),
            format="nv12",
            cuda_context=self._context,
        )

    def _convert(self, out: Any, array: Any, frame: Frame, *, pitch: int) -> None:
        source = Picture.of(array, frame.format, frame.width, frame.height)
        size = (self._shape.width, self._shape.height)
        format, colour = self._shape.format, self._shape.colour
        if source.format == "rgba":
            source = self._laid(source)
        if not source.is_yuv:
            pictures.convert_to_yuv(out, format, source, colour, size=size, pitch=pitch)
            return
        whole = Rect(0, 0, *size)
        pictures.scale(
            out, format, size, source, part=whole, target=whole, colour=colour, pitch=pitch
        )

    def _laid(self, source: Picture) -> Picture:
        """A picture over black, as no encoder here knows alpha."""
        sides = (source.width, source.height)
        laid = self._scratch.array("laid", picture_shape("rgb24", *sides))
        whole = Rect(0, 0, *sides)
        pictures.scale(laid, "rgb24", sides, source, part=whole, target=whole, colour=RGB)
        return Picture.of(laid, "rgb24", *sides)

    def _ready(self, array: Any) -> Device:
        """The device that an array is on."""
        if self._device is None:
            there = array.device  # CuPy numbers its devices by `id`
            self._device = gpu.device(there.ordinal if hasattr(there, "ordinal") else there.id)
            self._staging = Staging(self._device)
            self._scratch = Scratch(self._device)
        return self._device


def surfaces_of(ordinal: int | None) -> HWAccel | None:
    """For opening an encoder that reads pictures in a GPU's memory, in the thread that opens it.

    Args:
        ordinal: of the GPU; None for an encoder that reads host memory.

    Raises:
        DeviceError: there is no such GPU, or frames cannot lie on it.
    """
    if ordinal is None:
        return None
    from av.codec.hwaccel import HWAccel

    if os.environ.get(gpu.SIMULATED):
        raise DeviceError("a simulated GPU has no encoder")
    gpu.device(ordinal).memory()  # makes the context current that CuPy and torch use
    return HWAccel("cuda", device=str(ordinal), options={"primary_ctx": "0", "current_ctx": "1"})
