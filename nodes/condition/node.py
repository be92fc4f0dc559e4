"""The `condition` node: from pictures to what a ControlNet shall hold on to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import streamer
from nodes.condition.params import ConditionParams

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from nodes.condition.depth import Depth
    from nodes.condition.on_gpu import Drawer
    from nodes.condition.settings import Setting

    Bytes = npt.NDArray[np.uint8]

_EMITS = ("rgb24", "gray")


class Extractor(Protocol):
    """What draws: by OpenCV on the CPU, in torch on a GPU."""

    def change(self, settings: Sequence[Setting], *, invert: bool) -> None:
        """New values for the same kinds."""
        ...

    def picture(self, picture: Bytes) -> Bytes:
        """The control picture (H, W) of a picture (H, W, 3) or (H, W)."""
        ...


class Condition(streamer.Transform[ConditionParams]):
    """Draws control pictures for ControlNets: sketch, Canny, soft edges, luminance or depth."""

    Params = ConditionParams
    # Of YUV the luminance is there already. Depth sees colours, for which YUV is converted.
    accepts = ("yuv420p", "nv12", "rgb24", "bgr24", "gray")
    emits = _EMITS
    memory = ("cuda", "host")
    _extractor: Extractor | None = None
    _drawer: Drawer | None = None
    _depth: Depth | None = None

    def open(self) -> None:
        """Gets ready; loads the depth model where depth is drawn.

        Raises:
            ParameterError: the device is not there, or the depth model cannot be loaded.
        """
        self._device = self._chosen_device()
        self._extractor = self._made(self.params)
        self._ahead = _kinds(self.params)
        self._reformatter: Any = None
        self._format = next(name for name in self.context.wanted if name in _EMITS)

    def prepare(self, params: ConditionParams) -> Extractor | None:
        """Makes another extractor where other kinds are to be drawn."""
        # Not those of `self.params`: what was prepared before may not have been taken yet.
        made = None if _kinds(params) == self._ahead else self._made(params)
        self._ahead = _kinds(params)
        return made

    def update(self, params: ConditionParams, prepared: Extractor | None) -> None:
        """Takes other kinds, thresholds, weights, blur or polarity."""
        assert self._extractor is not None, "open() comes first"
        if prepared is None:
            self._extractor.change(params.settings(), invert=params.invert)
        else:
            self._extractor = prepared
            if self._device != "cpu":
                import torch

                # It was made in another thread, on the stream that is the default one there.
                default = torch.cuda.default_stream(self._device)
                torch.cuda.current_stream(self._device).wait_stream(default)
        super().update(params, prepared)

    def process(self, frame: streamer.Frame) -> streamer.Frame:
        """Draws one picture, of the same size, straight into the output slot.

        Args:
            frame: of any of the formats in `accepts`.
        """
        assert self._extractor is not None, "open() comes first"
        made = self.context.allocate(frame.width, frame.height, self._format, like=frame.header)
        try:
            if made.memory == "host":
                _show(self._extractor.picture(self._seen(frame)), made.numpy())
            elif self._device == f"cuda:{self.context.gpu}":
                self._draw_there(made, frame)
            else:
                self._send(made, self._extractor.picture(self._seen(frame)))
        except BaseException:
            made.release()
            raise
        return made

    def close(self) -> None:
        """Frees the model and the GPU's memory."""
        self._extractor = self._depth = self._drawer = None

    def _made(self, params: ConditionParams) -> Extractor:
        settings = params.settings()
        depth = None
        if "depth" in _kinds(params):
            depth = self._depth = self._depth or self._loaded(params)
        if self._device == "cpu":
            from nodes.condition.on_opencv import OpenCvExtractor

            return OpenCvExtractor(settings, invert=params.invert, depth=depth)
        from nodes.condition.on_torch import TorchExtractor

        return TorchExtractor(settings, invert=params.invert, device=self._device, depth=depth)

    def _draw_there(self, made: streamer.Frame, frame: streamer.Frame) -> None:
        from nodes.condition.on_gpu import Drawer
        from nodes.condition.on_torch import TorchExtractor
        from streamer import gpu

        assert self.context.gpu is not None, "else the slot would be in host memory"
        assert isinstance(self._extractor, TorchExtractor)
        if self._drawer is None:
            self._drawer = Drawer(gpu.device(self.context.gpu))
        self._drawer.draw(made, frame, self._extractor, colours="depth" in _kinds(self.params))

    def _send(self, made: streamer.Frame, drawn: Bytes) -> None:
        """Writes what was drawn elsewhere, as `device` has it, into a slot on the node's GPU."""
        import numpy as np

        shown = np.empty((*drawn.shape, 3) if made.format == "rgb24" else drawn.shape, np.uint8)
        _show(drawn, shown)
        made.write(shown)

    def _seen(self, frame: streamer.Frame) -> Bytes:
        """What there is to draw from: luminance (H, W) or red, green and blue (H, W, 3)."""
        import cv2
        import numpy as np

        pixels = frame.numpy()
        if frame.format == "bgr24":
            return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), dtype=np.uint8)
        if frame.format in ("rgb24", "gray"):
            return pixels
        if "depth" in _kinds(self.params):
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

    def _loaded(self, params: ConditionParams) -> Depth:
        from nodes.condition.depth import Depth

        folder = params.depth_model
        assert folder is not None, "the parameters' own check sees to it"
        self.context.note(f"loading the depth model {folder}")
        try:
            return Depth.load(folder, device=self._device)
        except (OSError, ValueError, ImportError) as error:
            raise streamer.ParameterError(str(error)) from error

    def _chosen_device(self) -> str:
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


def _kinds(params: ConditionParams) -> tuple[str, ...]:
    return tuple(one.kind for one in params.settings())


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
