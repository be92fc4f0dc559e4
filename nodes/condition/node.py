"""The `condition` node: from pictures to what a ControlNet shall hold on to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import streamer
from nodes.condition.params import ConditionParams

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from nodes.condition.depth import Depth
    from nodes.condition.on_opencv import OpenCvExtractor
    from nodes.condition.on_torch import TorchExtractor

    Bytes = npt.NDArray[np.uint8]

_EMITS = ("rgb24", "gray")


class Condition(streamer.Transform[ConditionParams]):
    """Draws control pictures for ControlNets: sketch, Canny, soft edges, luminance or depth."""

    Params = ConditionParams
    # Of YUV the luminance is there already. Depth sees colours, for which YUV is converted.
    accepts = ("yuv420p", "nv12", "rgb24", "bgr24", "gray")
    emits = _EMITS

    def open(self) -> None:
        """Gets ready; loads the depth model where there is one.

        Raises:
            ParameterError: the device is not there, or the depth model cannot be loaded.
        """
        params = self.params
        device = self._device()
        settings = params.settings()
        depth = self._depth(device)
        self._cpu: OpenCvExtractor | None = None
        self._gpu: TorchExtractor | None = None
        if device == "cpu":
            from nodes.condition.on_opencv import OpenCvExtractor

            self._cpu = OpenCvExtractor(settings, invert=params.invert, depth=depth)
        else:
            from nodes.condition.on_torch import TorchExtractor

            self._gpu = TorchExtractor(settings, invert=params.invert, device=device, depth=depth)
        self._target = device
        self._colours = depth is not None
        self._reformatter: Any = None
        self._format = next(name for name in self.context.wanted if name in _EMITS)

    def process(self, frame: streamer.Frame) -> streamer.Frame:
        """Draws one picture, of the same size, straight into the output slot.

        Args:
            frame: of any of the formats in `accepts`.
        """
        made = self.context.allocate(frame.width, frame.height, self._format, like=frame.header)
        try:
            _show(self._drawn(self._seen(frame)), made.numpy())
        except BaseException:
            made.release()
            raise
        return made

    def change(self, params: ConditionParams) -> None:
        """Takes new thresholds, weights, blur or polarity; the next picture is made with them.

        Raises:
            ParameterError: something else is to change, which takes a restart.
        """
        before = self.params
        fixed = [
            name
            for name in ("kind", "depth_model", "device")
            if getattr(before, name) != getattr(params, name)
        ]
        if list(before.kinds or ()) != list(params.kinds or ()):
            fixed.append("kinds")
        if fixed:
            raise streamer.ParameterError(
                f"{', '.join(fixed)} cannot change while the graph runs; stop it and start it again"
            )
        extractor = self._cpu or self._gpu
        assert extractor is not None, "open() comes first"
        extractor.change(params.settings(), invert=params.invert)
        self.params = params

    def close(self) -> None:
        """Frees the model and the GPU's memory."""
        self._cpu = self._gpu = None

    def _drawn(self, picture: Bytes) -> Bytes:
        """The control picture, uint8 of shape (H, W)."""
        if self._cpu is not None:
            return self._cpu(picture)
        import numpy as np
        import torch

        assert self._gpu is not None, "open() comes first"
        # The slot of a received frame is read-only, which torch would warn of.
        source = torch.from_numpy(np.require(picture, requirements=("C", "W")))
        pixels = source.to(self._target)
        pixels = pixels[None, None] if picture.ndim == 2 else pixels.permute(2, 0, 1)[None]
        drawn: Bytes = self._gpu(pixels)[0, 0].cpu().numpy()
        return drawn

    def _seen(self, frame: streamer.Frame) -> Bytes:
        """What there is to draw from: luminance (H, W) or red, green and blue (H, W, 3)."""
        import cv2
        import numpy as np

        pixels = frame.numpy()
        if frame.format == "bgr24":
            return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), dtype=np.uint8)
        if frame.format in ("rgb24", "gray"):
            return pixels
        if self._colours:
            return self._rgb(frame)
        luma = pixels[: frame.height]
        if frame.header.full_range:
            return luma
        return np.asarray(cv2.LUT(luma, _full_range()), dtype=np.uint8)

    def _rgb(self, frame: streamer.Frame) -> Bytes:
        from av.video.reformatter import Interpolation, VideoReformatter

        from nodes.colour import RGB, Colour
        from nodes.planes import av_frame, av_planes, reformat

        if self._reformatter is None:
            self._reformatter = VideoReformatter()
        size = (frame.width, frame.height)
        picture = reformat(
            self._reformatter,
            av_frame(frame.numpy(), frame.format),
            "rgb24",
            size,
            source=Colour(frame.header.colorspace, frame.header.full_range),
            target=RGB,
            flags=Interpolation.BILINEAR,
        )
        return av_planes(picture)[0].copy()

    def _depth(self, device: str) -> Depth | None:
        folder = self.params.depth_model
        if folder is None:
            return None
        from nodes.condition.depth import Depth

        self.context.note(f"loading the depth model {folder}")
        try:
            return Depth.load(folder, device=device)
        except (OSError, ValueError, ImportError) as error:
            raise streamer.ParameterError(str(error)) from error

    def _device(self) -> str:
        device, gpu = self.params.device, self.context.gpu
        if device == "auto":
            device = "cpu" if gpu is None else f"cuda:{gpu}"
        if device != "cpu":
            import torch

            if not torch.cuda.is_available():
                raise streamer.ParameterError(
                    f"device {device}: torch sees no GPU here; use device: cpu, or install a "
                    "torch for CUDA"
                )
        return device


def _show(drawn: Bytes, slot: Bytes) -> None:
    """Writes a picture of one channel into a slot of one or three."""
    import cv2
    import numpy as np

    if slot.ndim == 2:
        np.copyto(slot, drawn)
        return
    shown = cv2.cvtColor(drawn, cv2.COLOR_GRAY2RGB, slot)
    if not np.shares_memory(shown, slot):
        raise AssertionError("OpenCV wrote to memory of its own instead of the slot")


def _full_range() -> Bytes:
    """Luminance of 16 to 235 stretched to 0 to 255, as a table of 256 values."""
    import numpy as np

    levels = (np.arange(256, dtype=np.float64) - 16.0) * (255.0 / 219.0)
    table: Bytes = np.rint(levels.clip(0.0, 255.0)).astype(np.uint8)
    return table
