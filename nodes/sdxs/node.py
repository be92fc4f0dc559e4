"""The `sdxs` node: every picture through one step of an image-conditioned diffusion model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field, field_validator, model_validator

import streamer
from nodes.sdxs import texts, vocabulary
from nodes.sdxs.bundle import Bundle
from nodes.sdxs.names import Lora, ModelName

if TYPE_CHECKING:
    from nodes.sdxs.engine import OneStep


class LoraParams(streamer.Params):
    """An adapter and how much of it."""

    source: str = Field(min_length=1)
    """folder, file or repository of the hub"""
    scale: float = Field(default=1.0, ge=-4.0, le=4.0)
    """factor on what it adds to the weights; 1 is as it was trained"""


class SdxsParams(streamer.Params):
    """Parameters of the `sdxs` node."""

    model: str = Field(default="bundled", json_schema_extra={"live": True})
    """which model: `bundled`, a small one that comes with streamer; a repository of the hub as
    `IDKiro/sdxs-512-dreamshaper`, fetched before by `streamer pull`, with `@revision` if need be;
    a folder in diffusers' layout; or `random:tiny` and such, an architecture without training"""
    control: str | list[str] | None = None
    """ControlNet through which the picture steers a checkpoint: a repository as
    `IDKiro/sdxs-512-dreamshaper-sketch`, a folder, or `random`; several add up"""
    lora: list[str | LoraParams] = Field(default=[], max_length=16)
    """adapters merged into a checkpoint's weights, in this order"""
    vae: Literal["tiny", "large"] = "tiny"
    """a checkpoint's decoder: `large` is finer and many times slower"""
    text_encoder: Literal["auto", "keep", "release"] = "auto"
    """whether a checkpoint's text encoder stays in memory for other prompts; `auto` releases it
    where memory is short"""
    prompt: str = Field(default="ink", json_schema_extra={"live": True})
    """style to paint in: `bundled` knows a fixed vocabulary, others take any text, or several as
    `a castle:0.7 | a forest:0.3`"""
    conditioning_scale: float = Field(default=1.0, ge=0.0, le=2.0, json_schema_extra={"live": True})
    """how strongly the picture steers the result; of a checkpoint, through its ControlNet"""
    strength: float = 1.0
    """always 1: one step has no image-to-image of other strengths"""
    seed: int = Field(default=0, ge=0, lt=2**32, json_schema_extra={"live": True})
    """of the noise, which is the same for every picture so that video stays still"""
    feedback: float = Field(default=0.0, ge=0.0, le=0.35, json_schema_extra={"live": True})
    """share of the last result in the next, which calms what flickers"""
    similar: float = Field(
        default=0.0, ge=0.0, le=64.0, json_schema_extra={"live": True, "unit": "grey levels"}
    )
    """mean change of the source up to which the last result is shown again; 0 paints all"""
    drift: int = Field(
        default=0, ge=0, le=100_000, json_schema_extra={"live": True, "unit": "frames"}
    )
    """frames in which the noise turns from one seed's to the next's; 0 holds it fixed"""
    smaller: bool = False
    """where memory runs out, paint at half the size, or less, and enlarge"""
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    """arithmetic of the network; `auto` is what the device does best"""
    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    """where it runs; `auto` takes the node's GPU, or the CPU where it has none"""
    backend: Literal["auto", "torch", "openvino"] = "auto"
    """what runs it; `auto` is the fastest for the device"""
    threads: int | None = Field(default=None, ge=1, le=256)
    """CPU threads; all cores by default"""

    @field_validator("model")
    @classmethod
    def _known_model(cls, model: str) -> str:
        _parsed(model)
        return model

    @field_validator("control")
    @classmethod
    def _known_controls(cls, control: str | list[str] | None) -> str | list[str] | None:
        for one in _listed(control):
            _parsed(one, "control")
        return control

    @field_validator("strength")
    @classmethod
    def _whole_step(cls, strength: float) -> float:
        if strength != 1.0:
            raise ValueError(
                "one step begins from pure noise, so image to image has no strength but 1; let the "
                "picture steer by `control` and `conditioning_scale`, or calm it by `feedback`"
            )
        return strength

    @field_validator("lora")
    @classmethod
    def _known_adapters(cls, lora: list[str | LoraParams]) -> list[str | LoraParams]:
        for one in lora:
            _parsed(one if isinstance(one, str) else one.source, "lora")
        return lora

    @model_validator(mode="after")
    def _fitting(self) -> SdxsParams:
        if not ModelName.parse(self.model).is_bundle:
            texts.parse(self.prompt)
            if self.backend == "openvino":
                raise ValueError("backend: published checkpoints run on torch, not on openvino")
            return self
        for name in ("control", "lora"):
            if getattr(self, name):
                raise ValueError(
                    f"{name}: model {self.model} takes none, the picture itself is its condition; "
                    "name a published checkpoint as model"
                )
        bundle = Bundle.open(self.model)
        vocabulary.parse(self.prompt, known=bundle.styles, model=bundle.name)
        return self

    def adapters(self) -> list[Lora]:
        """The adapters of `lora`."""
        return [
            Lora(one) if isinstance(one, str) else Lora(one.source, one.scale) for one in self.lora
        ]


class Sdxs(streamer.Transform[SdxsParams]):
    """Restyles pictures with SDXS, a one-step image-conditioned diffusion model."""

    Params = SdxsParams

    def open(self) -> None:
        """Loads the model."""
        from nodes.sdxs.steady import Steady

        self._steady = Steady(self._loaded(self.params))
        self._set(self._steady.engine, self.params)
        self._size = (0, 0)
        self._spoiled = self._halvings = 0

    def prepare(self, params: SdxsParams) -> OneStep | None:
        """Loads another model beside the present one, or embeds another prompt."""
        if params.model != self.params.model:
            return self._loaded(params)
        try:
            self._steady.engine.prefetch(params.prompt)
        except ValueError as error:
            raise streamer.ParameterError(str(error)) from None
        return None

    def update(self, params: SdxsParams, prepared: OneStep | None) -> None:
        """Takes another prompt, scale, seed or model."""
        super().update(params, prepared)
        if prepared is not None:
            self._steady.engine, self._size = prepared, (0, 0)
            self._steady.forget()
        self._set(self._steady.engine, params)

    def _loaded(self, p: SdxsParams) -> OneStep:
        from nodes.sdxs.engine import OneStep

        self.context.note(f"loading the model {p.model}")
        try:
            engine = OneStep.load(
                p.model,
                control=_listed(p.control),
                lora=p.adapters(),
                vae=p.vae,
                text_encoder=p.text_encoder,
                device=self._device(),
                dtype=p.dtype,
                backend=p.backend,
                threads=p.threads,
                log=self.context.log,
            )
        except (ValueError, ImportError) as error:
            raise streamer.ParameterError(
                f"the model {p.model} cannot be loaded: {error}"
            ) from error
        except MemoryError as error:
            raise streamer.NodeError(f"there is no memory for the model {p.model}") from error
        except FileNotFoundError as error:
            # Its message names what is missing and how to get it.
            raise streamer.NodeError(str(error)) from error
        except OSError as error:
            raise streamer.NodeError(f"model {p.model} cannot be read: {error}") from error
        if not engine.sees_picture:
            self.context.log.warning(
                "model %s paints from its prompt alone: without `control` the video does not "
                "steer it",
                p.model,
            )
        return engine

    def _set(self, engine: OneStep, p: SdxsParams) -> None:
        steady = self._steady
        steady.feedback, steady.similar, steady.drift = p.feedback, p.similar, p.drift
        steady.smaller = p.smaller
        engine.prompt = p.prompt
        engine.conditioning_scale = p.conditioning_scale
        engine.seed = p.seed

    def process(self, frame: streamer.Frame) -> streamer.Frame:
        """One picture in, one of the same size out, straight into the output slot."""
        size = (frame.width, frame.height)
        if size != self._size:
            self._check_size(*size)
            self._size = size
        out = self.context.allocate(*size, like=frame.header)
        try:
            outcome = self._steady(frame.numpy(), out=out.numpy())
        except ArithmeticError as error:
            out.release()
            raise streamer.FrameError(f"{error}, and there is no good picture yet") from None
        except MemoryError as error:
            out.release()
            raise streamer.NodeError(f"{error}; give the node smaller pictures") from None
        if self._steady.halvings != self._halvings:
            self._halvings = self._steady.halvings
            self.context.log.warning(
                "memory has run out: pictures are painted at 1/%d of their sides from now on",
                2**self._halvings,
            )
        if outcome.name != "PAINTED":
            self.context.repeated(spoiled=outcome.name == "SPOILED")
        if outcome.name == "SPOILED":
            self._spoiled += 1
            if self._spoiled & (self._spoiled - 1) == 0:  # the 1st, 2nd, 4th, 8th ...
                self.context.log.warning(
                    "%s; the last good picture is shown (%d times so far)",
                    self._steady.trouble,
                    self._spoiled,
                )
        return out

    def _device(self) -> str:
        if self.params.device != "auto":
            return self.params.device
        return "cpu" if self.context.gpu is None else f"cuda:{self.context.gpu}"

    def _check_size(self, width: int, height: int) -> None:
        multiple = self._steady.engine.multiple
        if width % multiple or height % multiple:
            near = "x".join(
                str(max(1, round(side / multiple)) * multiple) for side in (width, height)
            )
            raise streamer.NodeError(
                f"the model takes sides that are multiples of {multiple}, not {width}x{height}; "
                f"put a preprocess node with size {near} before it"
            )


def _parsed(name: str, part: str | None = None) -> None:
    try:
        if part is None:
            ModelName.parse(name)
        else:
            ModelName.parse_part(name, part)
    except FileNotFoundError as error:
        # A graph's mistakes are told together; an error of the system would end the telling.
        raise ValueError(str(error)) from None


def _listed(control: str | Sequence[str] | None) -> list[str]:
    if control is None:
        return []
    return [control] if isinstance(control, str) else list(control)
