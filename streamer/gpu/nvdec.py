"""Whether a GPU decodes video (NVDEC), by having it decode a picture; needs PyAV."""

from __future__ import annotations

import ctypes
import os
from typing import TYPE_CHECKING, Any, Final

from av.codec.context import CodecContext
from av.codec.hwaccel import HWAccel
from av.error import FFmpegError
from av.packet import Packet

from streamer import gpu

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

    from streamer.gpu.device import Device

HARDWARE: Final = "cuda"
"""FFmpeg's name of the pixel format of pictures in a GPU's memory"""
KEYFRAME: Final = bytes.fromhex(
    "000000016764100dacb82010d0800000030080000019420000000168ee044b22c00000000165888404affef6c8ea"
    "a970ea97b7097e27eaff0c46f0cf0d0fc851732bedd956661a40000067c139bec5a96100000001650102221012bf"
    "fef6c8eaa970ea97b7097e27eaff0c46f0cf0d0fc851732bedd956661a40000067c139bec5a961"
)
"""A grey picture of 256 × 256 as H.264 High, with all that a decoder needs to begin."""
_DECODER: Final = "libnvcuvid.so.1"
"""the driver's library that FFmpeg decodes by"""


def settings(device: Device, *, required: bool) -> HWAccel:
    """What PyAV is to ask of FFmpeg, for opening a decoder in the thread that calls this.

    FFmpeg takes the CUDA context that is current in this thread, which is the one that CuPy and
    torch use: so surfaces can be read by the node's kernels. That context it would refuse to
    retain by itself, as PyAV would have it do, once others have made it with other flags.

    Args:
        device: whose decoder it is to be.
        required: whether the CPU may not decode what the GPU does not take.
    """
    device.memory()  # makes the context current here
    return HWAccel(
        "cuda",
        device=str(device.ordinal),
        allow_software_fallback=not required,
        options={"primary_ctx": "0", "current_ctx": "1"},
        is_hw_owned=True,
    )


def refusal(device: Device) -> str:
    """Why FFmpeg cannot decode on a device; empty if it has just decoded a picture there."""
    if os.environ.get(gpu.SIMULATED):
        return "a simulated GPU has no decoder"
    try:
        decoder = CodecContext.create("h264", "r", settings(device, required=True))
    except (FFmpegError, NotImplementedError, ValueError) as error:
        return f"CUDA does not open for FFmpeg ({_reason(error)})"
    # FFmpeg looks for it with the first picture only, and does not say what was wrong. Containers
    # are given the driver without it, unless they ask for it.
    try:
        ctypes.CDLL(_DECODER)
    except OSError:
        return (
            f"the driver's {_DECODER} is not here (for a container, NVIDIA_DRIVER_CAPABILITIES "
            "must name video)"
        )
    try:
        pictures = tried(decoder)
    except FFmpegError as error:
        return f"its decoder (NVDEC) does not decode ({_reason(error)})"
    if [picture.format.name for picture in pictures] != [HARDWARE]:
        return "its decoder (NVDEC) does not decode"
    return ""


def tried(decoder: Any) -> list[VideoFrame]:
    """What a new `CodecContext` of H.264 makes of `KEYFRAME`: one picture, if it works.

    Raises:
        FFmpegError: it does not.
    """
    decoder.thread_count = 1  # each thread would take surfaces of its own
    return [*decoder.decode(Packet(KEYFRAME)), *decoder.decode(None)]


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)
