"""A context whose frames lie on a GPU, frames there, and pictures to compare."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from av.video.reformatter import Interpolation, VideoReformatter

from nodes.colour import RGB, Colour
from nodes.planes import av_frame, av_planes, reformat, slot_planes
from streamer import Frame
from streamer.formats import picture_shape
from streamer.gpu.device import Device
from streamer.gpu.pixels import DevicePixels
from streamer.lease import Lease
from streamer.testing import SoloContext

Array = npt.NDArray[np.uint8]


class OnGpu(SoloContext):
    """Gives a node a slot of device memory for each of its frames."""

    def __init__(self, device: Device, **given: Any) -> None:
        super().__init__(**given)
        self.gpu = device.ordinal
        self.device = device

    def allocate(self, *args: Any, **given: Any) -> Frame:
        on_host = super().allocate(*args, **given)
        return frame_on(self.device, on_host)


def frame_on(device: Device, frame: Frame, *, filled: bool = False) -> Frame:
    """A frame like another, on a GPU, with its pixels if `filled`."""
    nbytes = frame.numpy().nbytes
    pointer, event = device.malloc(nbytes), device.event_create()
    pixels = DevicePixels(device, pointer, nbytes, event, wait=False)

    def give_back() -> None:
        device.stream_synchronize(device.stream())
        device.event_destroy(event)
        device.free(pointer)

    made = Frame(frame.header, Lease(pixels, give_back, device=device))
    if filled:
        made.write(frame.numpy())
    return made


def waves(width: int, height: int) -> Array:
    """A smooth picture without symmetry: rgb24."""
    y, x = np.mgrid[0:height, 0:width] / max(width, height)
    parts = [np.sin(9 * x + 2 * y), np.sin(7 * y - x), np.sin(5 * x + 8 * y)]
    return np.stack([127 + 110 * part for part in parts], axis=-1).astype(np.uint8)


def yuv_of(rgb: Array, format: str, colour: Colour) -> Array:
    """A YUV picture of the graph, by swscale."""
    height, width = rgb.shape[:2]
    made = reformat(
        VideoReformatter(), av_frame(rgb, "rgb24"), format, (width, height),
        source=RGB, target=colour, flags=Interpolation.BILINEAR | Interpolation.ACCURATE_RND,
    )  # fmt: skip
    out = np.empty(picture_shape(format, width, height), np.uint8)
    planes = slot_planes(out, format, width, height)
    for one, plane in zip(av_planes(made), planes, strict=True):
        plane[...] = one
    return out


def made_of(rgb: Array, format: str, colour: Colour) -> Frame:
    """A frame of any format that shows a picture."""
    alpha = np.full((*rgb.shape[:2], 1), 170, np.uint8)
    if format in ("yuv420p", "nv12"):
        array = yuv_of(rgb, format, colour)
    else:
        array = {
            "rgb24": rgb,
            "bgr24": rgb[..., ::-1],
            "gray": rgb[..., 1],
            "rgba": np.concatenate([rgb, alpha], axis=-1),
        }[format]
    frame = Frame.of(np.ascontiguousarray(array), format=format, pts=7)
    if format in ("yuv420p", "nv12"):
        frame.header.colorspace, frame.header.full_range = colour
    return frame
