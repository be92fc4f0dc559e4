"""Parameters of the `sdxs` node; importing this loads nothing heavy."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

import streamer
from nodes.sdxs import seeds, texts, vocabulary
from nodes.sdxs.bundle import Bundle
from nodes.sdxs.names import Lora, ModelName


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
    control: str | list[str] | None = Field(default=None, json_schema_extra={"live": True})
    """ControlNet through which the picture steers a checkpoint: a repository as
    `IDKiro/sdxs-512-dreamshaper-sketch`, a folder, or `random`; several add up"""
    lora: list[str | LoraParams] = Field(
        default=[], max_length=16, json_schema_extra={"live": True}
    )
    """adapters merged into a checkpoint's weights, in this order"""
    vae: Literal["tiny", "large"] = Field(default="tiny", json_schema_extra={"live": True})
    """a checkpoint's decoder: `large` is finer and many times slower"""
    loading: Literal["auto", "pass", "hold"] = "auto"
    """what comes out while the model loads: `pass` is the pictures as they came in, each marked and
    counted; `hold` is nothing; `auto` passes at the first start where the input is live and gives
    the newest picture alone, and holds elsewhere and after a crash"""
    text_encoder: Literal["auto", "keep", "release"] = "auto"
    """whether a checkpoint's text encoder stays in memory for other prompts; `auto` releases it
    where memory is short"""
    prompt: str = Field(default="ink", validate_default=True, json_schema_extra={"live": True})
    """style to paint in: `bundled` knows a fixed vocabulary, others take any text, or several as
    `a castle:0.7 | a forest:0.3`"""
    blend: Literal["linear", "spherical"] = Field(
        default="linear", json_schema_extra={"live": True}
    )
    """how the parts of a prompt, and `seeds`, are mixed: along straight lines or along arcs"""
    conditioning_scale: float = Field(default=1.0, ge=0.0, le=2.0, json_schema_extra={"live": True})
    """how strongly the picture steers the result; of a checkpoint, through its ControlNet"""
    strength: float = 1.0
    """always 1: one step has no image-to-image of other strengths"""
    seed: int = Field(default=0, ge=0, lt=2**32, json_schema_extra={"live": True})
    """of the noise, which is the same for every picture so that video stays still"""
    seeds: str | None = Field(default=None, json_schema_extra={"live": True})
    """several with weights in place of `seed`, as `7:0.7 42:0.3`, whose noises are mixed"""
    feedback: float = Field(default=0.0, ge=0.0, le=0.35, json_schema_extra={"live": True})
    """share of the last result in the next, which calms what flickers"""
    similar: float = Field(
        default=0.0, ge=0.0, le=64.0, json_schema_extra={"live": True, "unit": "grey levels"}
    )
    """mean change of the source up to which the last result is shown again; 0 paints all"""
    drift: int = Field(
        default=0, ge=0, le=100_000, json_schema_extra={"live": True, "unit": "frames"}
    )
    """frames in which the noise turns from one seed's to the next's; 0 holds it where it is"""
    batch: Literal["auto", "off"] = "auto"
    """whether pictures are painted in one pass with those of other such nodes in its worker that
    wait at the same time; nodes of one model load it once in any case"""
    smaller: bool = False
    """where memory runs out, paint at half the size, or less, and enlarge"""
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    """arithmetic of the network; `auto` is what the device does best"""
    device: str = "auto"
    """where it runs; `auto` takes the node's GPU, or the CPU where it has none"""
    backend: Literal["auto", "torch", "openvino"] = "auto"
    """what runs it; `auto` is the fastest for the device"""
    capture: Literal["auto", "off"] = "auto"
    """whether a checkpoint's work for pictures of a size is recorded once, and replayed from then
    on; `auto` does on a GPU"""
    compile: Literal["off", "on"] = "off"
    """whether a checkpoint's networks are compiled for the size of the pictures, which takes
    minutes, in which they flow uncompiled; kept for the next start"""
    threads: int | None = Field(default=None, ge=1, le=256)
    """CPU threads; all cores by default"""

    @field_validator("model")
    @classmethod
    def _known_model(cls, model: str) -> str:
        _parsed(model)
        return model

    @field_validator("control")
    @classmethod
    def _known_controls(
        cls, control: str | list[str] | None, info: ValidationInfo
    ) -> str | list[str] | None:
        _for_checkpoints(control, info)
        for one in _listed(control):
            _parsed(one, "control")
        return control

    @field_validator("seeds")
    @classmethod
    def _known_seeds(cls, given: str | None) -> str | None:
        if given is not None:
            seeds.parse(given)
        return given

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
    def _known_adapters(
        cls, lora: list[str | LoraParams], info: ValidationInfo
    ) -> list[str | LoraParams]:
        _for_checkpoints(lora, info)
        for one in lora:
            _parsed(one if isinstance(one, str) else one.source, "lora")
        return lora

    @field_validator("prompt")
    @classmethod
    def _known_prompt(cls, prompt: str, info: ValidationInfo) -> str:
        model = _model_of(info)
        if model is None:
            return prompt
        if model.is_bundle:
            bundle = Bundle.open(model.id)
            vocabulary.parse(prompt, known=bundle.styles, model=bundle.name)
        else:
            texts.parse(prompt)
        return prompt

    @field_validator("device")
    @classmethod
    def _known_device(cls, device: str) -> str:
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
            raise ValueError("must be auto, cpu, cuda or cuda:N")
        return device

    @field_validator("backend")
    @classmethod
    def _fitting_backend(cls, backend: str, info: ValidationInfo) -> str:
        model = _model_of(info)
        if backend == "openvino" and model is not None and not model.is_bundle:
            raise ValueError("published checkpoints run on torch, not on openvino")
        return backend

    def controls(self) -> list[str]:
        """The ControlNets of `control`."""
        return _listed(self.control)

    def adapters(self) -> list[Lora]:
        """The adapters of `lora`."""
        return [
            Lora(one) if isinstance(one, str) else Lora(one.source, one.scale) for one in self.lora
        ]


def _model_of(info: ValidationInfo) -> ModelName | None:
    """The model that stands beside a parameter; None where its name is a mistake itself."""
    model = info.data.get("model")
    return None if model is None else ModelName.parse(model)


def _for_checkpoints(given: object, info: ValidationInfo) -> None:
    model = _model_of(info)
    if given and model is not None and model.is_bundle:
        raise ValueError(
            f"model {info.data['model']} takes none, the picture itself is its condition; name a "
            "published checkpoint as model"
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
