"""Decoding on the GPU (NVDEC): whether it can be had, and what was chosen, said once."""

from __future__ import annotations

import ctypes
import os
from typing import TYPE_CHECKING, Final

from av.codec.codec import Codec
from av.codec.hwaccel import HWAccel
from av.error import FFmpegError

from streamer import Context, Count, ParameterError, gpu
from streamer.errors import DeviceError

if TYPE_CHECKING:
    from av.codec.context import CodecContext
    from av.video.frame import VideoFrame

    from streamer.gpu.device import Device

HARDWARE: Final = "cuda"
"""FFmpeg's name of the pixel format of pictures in a GPU's memory"""
_DECODER: Final = "libnvcuvid.so.1"
"""the driver's library that FFmpeg decodes by"""


class Acceleration:
    """The GPU's decoder for one source.

    Args:
        device: whose decoder it is.
        context: of the node.
        required: whether a picture that the CPU has to decode is a failure.
    """

    def __init__(self, device: Device, context: Context, *, required: bool) -> None:
        self._device = device
        self._context = context
        self._required = required
        self._said = ""

    def settings(self) -> HWAccel:
        """For opening a container, in the thread that calls it."""
        return _settings(self._device, required=self._required)

    def decoded(self, picture: VideoFrame, decoder: CodecContext) -> None:
        """Counts a picture, and says by what it was decoded when that is new."""
        if picture.format.name == HARDWARE:
            self._context.count(Count.HARDWARE)
            said = f"{decoder.name} is decoded by gpu {self._device.ordinal}"
        else:
            what = f"{decoder.name} {picture.format.name} of {picture.width}x{picture.height}"
            said = f"{what} is decoded by the CPU: the GPU's decoder does not take it"
        if said != self._said:
            self._said = said
            self._context.log.info("%s", said)


def choose(mode: str, context: Context) -> Acceleration | None:
    """The GPU's decoder where it can be had; None where the CPU is to decode.

    Args:
        mode: the parameter `hwaccel`: `auto`, `cuda` or `none`.
        context: of the node; says which GPU it has.

    Raises:
        ParameterError: `cuda` is asked for and cannot be had.
    """
    if mode == "none" or (mode == "auto" and context.gpu is None):
        return None
    required = mode == "cuda"
    if context.gpu is None:
        raise ParameterError(
            "hwaccel cuda needs a GPU: give the node `gpu: 0` in the graph, or leave hwaccel out"
        )
    refusal, device = "", None
    try:
        device = gpu.device(context.gpu)
        refusal = _refusal(device)
    except DeviceError as error:
        refusal = str(error)
    if device is not None and not refusal:
        return Acceleration(device, context, required=required)
    if required:
        raise ParameterError(f"hwaccel cuda cannot be had: {refusal}; hwaccel auto does without")
    context.log.info("the CPU decodes: %s", refusal)
    return None


def _settings(device: Device, *, required: bool) -> HWAccel:
    """What PyAV is to ask of FFmpeg.

    FFmpeg takes the CUDA context that is current in this thread, which is the one that CuPy and
    torch use: so surfaces can be read by the node's kernels. That context it would refuse to
    retain by itself, as PyAV would have it do, once others have made it with other flags.
    """
    device.memory()  # makes the context current here
    return HWAccel(
        "cuda",
        device=str(device.ordinal),
        allow_software_fallback=not required,
        options={"primary_ctx": "0", "current_ctx": "1"},
        is_hw_owned=True,
    )


def _refusal(device: Device) -> str:
    """Why FFmpeg cannot decode on a device; empty if it can."""
    if os.environ.get(gpu.SIMULATED):
        return "a simulated GPU has no decoder"
    try:
        _settings(device, required=True).create(Codec("h264", "r"))
    except (FFmpegError, NotImplementedError, ValueError) as error:
        return f"CUDA does not open for FFmpeg ({getattr(error, 'strerror', None) or error})"
    # FFmpeg looks for it with the first picture only. Containers are given the driver without it,
    # unless they ask for it.
    try:
        ctypes.CDLL(_DECODER)
    except OSError:
        return (
            f"the driver's {_DECODER} is not here (for a container, NVIDIA_DRIVER_CAPABILITIES "
            "must name video)"
        )
    return ""
