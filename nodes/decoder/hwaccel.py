"""Decoding on the GPU (NVDEC): whether it can be had, and what was chosen, said once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamer import Context, Count, ParameterError, gpu
from streamer.errors import DeviceError
from streamer.gpu import nvdec

if TYPE_CHECKING:
    from av.codec.context import CodecContext
    from av.codec.hwaccel import HWAccel
    from av.video.frame import VideoFrame

    from streamer.gpu.device import Device


class Acceleration:
    """The GPU's decoder for one source.

    Args:
        device: whose decoder it is.
        context: of the node.
        required: whether a picture that the CPU has to decode is a failure.

    Attributes:
        required: as given.
    """

    def __init__(self, device: Device, context: Context, *, required: bool) -> None:
        self._device = device
        self._context = context
        self.required = required
        self._said = ""

    def settings(self) -> HWAccel:
        """For opening a container, in the thread that calls it."""
        return nvdec.settings(self._device, required=self.required)

    def decoded(self, picture: VideoFrame, decoder: CodecContext) -> None:
        """Counts a picture, and says by what it was decoded when that is new."""
        if picture.format.name == nvdec.HARDWARE:
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
        refusal = nvdec.refusal(device)
    except DeviceError as error:
        refusal = str(error)
    if device is not None and not refusal:
        return Acceleration(device, context, required=required)
    if required:
        raise ParameterError(f"hwaccel cuda cannot be had: {refusal}; hwaccel auto does without")
    context.log.info("the CPU decodes: %s", refusal)
    return None
