"""The `sdxs` node: every picture through one step of an image-conditioned diffusion model."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

import streamer
from nodes.sdxs import vocabulary
from nodes.sdxs.bundle import Bundle


class SdxsParams(streamer.Params):
    """Parameters of the `sdxs` node."""

    model: Literal["bundled"] = "bundled"
    """which model: `bundled`, a small one that comes with streamer"""
    prompt: str = "ink"
    """style to paint in; `bundled` knows a fixed vocabulary"""
    conditioning_scale: float = Field(default=1.0, ge=0.0, le=2.0)
    """how strongly the picture steers the result"""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """of the noise, which is the same for every picture so that video stays still"""
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    """arithmetic of the network; `auto` is what the device does best"""
    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    """where it runs; `auto` takes the node's GPU, or the CPU where it has none"""
    backend: Literal["auto", "torch", "openvino"] = "auto"
    """what runs it; `auto` is the fastest for the device"""
    threads: int | None = Field(default=None, ge=1, le=256)
    """CPU threads; all cores by default"""

    @model_validator(mode="after")
    def _known_prompt(self) -> SdxsParams:
        bundle = Bundle.open(self.model)
        vocabulary.parse(self.prompt, known=bundle.styles, model=bundle.name)
        return self


class Sdxs(streamer.Transform[SdxsParams]):
    """Restyles pictures with SDXS, a one-step image-conditioned diffusion model."""

    Params = SdxsParams

    def open(self) -> None:
        """Loads the model."""
        from nodes.sdxs.engine import OneStep

        p = self.params
        self.context.note(f"loading the model {p.model}")
        try:
            self._engine = OneStep.load(
                p.model,
                device=self._device(),
                dtype=p.dtype,
                backend=p.backend,
                threads=p.threads,
            )
        except (ValueError, ImportError) as error:
            raise streamer.ParameterError(
                f"the model {p.model} cannot be loaded: {error}"
            ) from error
        except OSError as error:
            raise streamer.NodeError(f"model {p.model} cannot be read: {error}") from error
        self._engine.prompt = p.prompt
        self._engine.conditioning_scale = p.conditioning_scale
        self._engine.seed = p.seed
        self._size = (0, 0)

    def process(self, frame: streamer.Frame) -> streamer.Frame:
        """One picture in, one of the same size out, straight into the output slot."""
        size = (frame.width, frame.height)
        if size != self._size:
            self._check_size(*size)
            self._size = size
        out = self.context.allocate(*size, like=frame.header)
        self._engine(frame.numpy(), out=out.numpy())
        return out

    def _device(self) -> str:
        if self.params.device != "auto":
            return self.params.device
        return "cpu" if self.context.gpu is None else f"cuda:{self.context.gpu}"

    def _check_size(self, width: int, height: int) -> None:
        multiple = self._engine.multiple
        if width % multiple or height % multiple:
            near = "x".join(
                str(max(1, round(side / multiple)) * multiple) for side in (width, height)
            )
            raise streamer.NodeError(
                f"the model takes sides that are multiples of {multiple}, not {width}x{height}; "
                f"put a preprocess node with size {near} before it"
            )
