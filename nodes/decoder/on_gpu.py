"""Decoded pictures into slots on a GPU, by the way that copies the fewest bytes.

Planes that the CPU has decoded go up as they are, 1.5 bytes a pixel, through pinned memory; the
GPU makes of them what the next nodes want. Surfaces that the GPU has decoded never leave it. What
the kernels do not do (turning, square pixels, rare formats) the CPU does before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from nodes.colour import Colour
from nodes.decoder.render import form_of
from nodes.on_gpu import pictures
from nodes.on_gpu.pictures import Picture
from nodes.on_gpu.scratch import Scratch
from nodes.planes import Array, av_planes, lay
from nodes.sizes import Rect
from streamer.formats import YUV_FORMATS, picture_shape
from streamer.gpu import meter
from streamer.gpu.device import Copy
from streamer.gpu.nvdec import HARDWARE
from streamer.gpu.staging import Staging

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

    from streamer import Frame
    from streamer.gpu.device import Device

_PLANAR: Final = {"yuv420p": "yuv420p", "yuvj420p": "yuv420p", "nv12": "nv12"}
_SURFACES: Final = ("nv12", "p010le", "p016le")
_LEGACY_STREAM: Final = 0


class Uploader:
    """Fills slots on a GPU.

    Args:
        device: of the node.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self._staging = Staging(device)
        self._scratch = Scratch(device)

    def close(self) -> None:
        """Unpins the memory."""
        self._staging.close()

    def takes(self, picture: VideoFrame, format: str) -> bool:
        """Whether kernels make this of a picture; else it is to be `rendered` first."""
        known = form_of(picture).name in (_SURFACES if picture.format.name == HARDWARE else _PLANAR)
        return known and format in (*YUV_FORMATS, "rgb24", "bgr24", "gray")

    def fill(self, frame: Frame, picture: VideoFrame, colour: Colour) -> None:
        """Puts a picture into a slot of its size, converted where the formats differ.

        Args:
            frame: on the GPU, of the picture's size.
            picture: that `takes` is true of.
            colour: what its samples mean.
        """
        out = frame.cupy()
        if picture.format.name == HARDWARE:
            self._surfaces(out, frame.format, picture, colour)
            return
        planes = av_planes(picture)
        sizes = [plane.nbytes for plane in planes]
        if _PLANAR[picture.format.name] == frame.format:
            self._up(out, sum(sizes), lambda buffer: _lay(planes, buffer))
            return
        raw = self._scratch.array("planes", (sum(sizes),))
        self._up(raw, sum(sizes), lambda buffer: _lay(planes, buffer))
        interleaved = len(planes) == 2
        source = Picture(
            luma=raw,
            chroma=raw,
            width=picture.width,
            height=picture.height,
            format=_PLANAR[picture.format.name],
            pitch=planes[0].shape[1],
            chroma_pitch=planes[1].shape[1] * (2 if interleaved else 1),
            chroma_step=2 if interleaved else 1,
            u_at=sizes[0],
            v_at=sizes[0] + (1 if interleaved else sizes[1]),
        )
        _convert(out, frame.format, source, colour)

    def rendered(self, frame: Frame, render: Callable[[Array], None]) -> None:
        """Has a slot filled by the CPU, through pinned memory.

        Args:
            frame: on the GPU.
            render: writes a whole picture into a uint8 array of the slot's shape.
        """
        shape = picture_shape(frame.format, frame.width, frame.height)
        nbytes = int(np.prod(shape))
        self._up(frame.cupy(), nbytes, lambda buffer: render(buffer.reshape(shape)))

    def _up(self, out: Any, nbytes: int, fill: Callable[[Array], None]) -> None:
        buffer = self._staging.take(nbytes)
        fill(buffer.array(nbytes))
        pointer = self._device.pointer_of(out, tuple(out.shape))
        assert pointer is not None
        buffer.upload(pointer, nbytes, self._device.stream())

    def _surfaces(self, out: Any, format: str, picture: VideoFrame, colour: Colour) -> None:
        """From the surfaces of the GPU's decoder.

        FFmpeg puts its work on the device's legacy stream, and its planes refuse to be told of
        another; ours does not wait for that stream by itself. So events order the two on the
        device: ours behind the decoder's copy, the next use of the surface behind ours. Written
        from the sources of PyAV 18.1 and FFmpeg 8.1; tests of it need a GPU (`-m gpu`).
        """
        device, stream = self._device, self._device.stream()
        luma, chroma = (_plane(plane) for plane in picture.planes)
        event = device.event_create()
        device.event_record(event, _LEGACY_STREAM)
        device.stream_wait_event(stream, event)
        size = luma.dtype.itemsize
        source = Picture(
            luma=luma,
            chroma=chroma,
            width=picture.width,
            height=picture.height,
            format="nv12",
            pitch=luma.strides[0],
            chroma_pitch=chroma.strides[0],
            chroma_step=2 * size,
            v_at=size,
            wide=size == 2,
        )
        _convert(out, format, source, colour)
        device.event_record(event, stream)
        device.stream_wait_event(_LEGACY_STREAM, event)
        device.event_destroy(event)  # CUDA frees it when both have passed it


class _Exported:
    """A plane for CuPy, which names its stream when it asks; PyAV's planes take none."""

    def __init__(self, plane: Any) -> None:
        self._plane = plane

    def __dlpack_device__(self) -> Any:
        return self._plane.__dlpack_device__()

    def __dlpack__(self, **_: Any) -> Any:
        return self._plane.__dlpack__()


def _plane(plane: Any) -> Any:
    import cupy

    return cupy.from_dlpack(_Exported(plane))


def _convert(out: Any, format: str, source: Picture, colour: Colour) -> None:
    if format in ("rgb24", "bgr24"):
        pictures.convert_to_rgb(out, source, colour, blue_first=format == "bgr24")
        return
    size = (source.width, source.height)
    whole = Rect(0, 0, *size)
    pictures.scale(out, format, size, source, part=whole, target=whole, colour=colour)


def _lay(planes: list[Array], buffer: Array) -> None:
    """Copies planes one behind the other, without the padding of their lines."""
    at = 0
    for plane in planes:
        lay(plane, buffer[at : at + plane.nbytes].reshape(plane.shape))
        at += plane.nbytes


def on_host(picture: VideoFrame) -> VideoFrame:
    """A picture in host memory; of one that is on the GPU a copy, which is counted."""
    if picture.format.name != HARDWARE:
        return picture
    made = picture.reformat(format=form_of(picture).name)
    made.pts, made.dts, made.time_base = picture.pts, picture.dts, picture.time_base
    made.duration, made.opaque = picture.duration, picture.opaque
    meter.count(Copy.TO_HOST, sum(plane.buffer_size for plane in made.planes))
    return made
