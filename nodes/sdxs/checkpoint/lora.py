"""Low-rank adapters, merged into the weights when a model is loaded.

W ← W + scale · (α / r) · B · A, after which nothing is left of the adapter to slow the network
down. Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models" (2021).

Two layouts are read:

- PEFT: `adapter_config.json` beside `adapter_model.safetensors` or `.bin`; names as in
  `base_model.model.down_blocks.1.….to_q.lora_A.weight`, of the U-Net.
- diffusers: `pytorch_lora_weights.safetensors` or `.bin`; names start with `unet.`,
  `text_encoder.` or `text_encoder_2.`; α stands beside the weights, in the file's metadata, or is
  the rank.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nodes.sdxs.checkpoint import weights
from nodes.sdxs.checkpoint.files import LORA_FILES, PEFT_CONFIG, PEFT_FILES
from nodes.sdxs.checkpoint.source import Source, read_object
from nodes.sdxs.names import Lora, ModelName

_DOWN = re.compile(r"(?P<layer>.+)\.(lora_A|lora\.down|lora_down)(\.default)?\.weight")
_UP = re.compile(r"(?P<layer>.+)\.(lora_B|lora\.up|lora_up)(\.default)?\.weight")
_ALPHA = re.compile(r"(?P<layer>.+)\.alpha")
# diffusers' attention processors of old: `….attn1.processor.to_q_lora.down.weight`.
_PROCESSOR = re.compile(r"(.+)\.processor\.(to_q|to_k|to_v|to_out)_lora\.(down|up)\.weight")


@dataclass
class Pair:
    """What one layer gets.

    Attributes:
        down: A, r × inputs (× kernel).
        up: B, outputs × r (× 1 × 1).
        alpha: Or None for the rank.
        rank_stabilised: Whether α is divided by √r instead of r.
    """

    down: Tensor
    up: Tensor
    alpha: float | None
    rank_stabilised: bool = False

    def delta(self) -> Tensor:
        """(α / r) · B · A in float32, of the shape of the layer's weight."""
        rank = self.down.shape[0]
        alpha = rank if self.alpha is None else self.alpha
        factor = alpha / (math.sqrt(rank) if self.rank_stabilised else rank)
        product = self.up.float().flatten(1) @ self.down.float().flatten(1)
        return product.mul_(factor).reshape(self.up.shape[0], *self.down.shape[1:])


@dataclass
class Adapter:
    """One adapter, read.

    Attributes:
        name: Its file, for messages.
        scale: Factor on everything that it adds.
        unet: Of the U-Net, by layer.
        text: Of the text encoders, by layer.
    """

    name: str
    scale: float
    unet: dict[str, Pair] = field(default_factory=dict)
    text: tuple[dict[str, Pair], dict[str, Pair]] = field(default_factory=lambda: ({}, {}))

    def into_unet(self, unet: nn.Module) -> None:
        """Adds it to the U-Net's weights.

        Raises:
            ValueError: A layer is not there or has another shape.
        """
        _merge(unet, self.unet, self.scale, f"{self.name} and the U-Net")

    def into_text(self, encoders: Sequence[nn.Module]) -> None:
        """Adds it to the text encoders' weights.

        Raises:
            ValueError: A layer is not there or has another shape.
        """
        for number, layers in enumerate(self.text):
            if not layers:
                continue
            if number >= len(encoders):
                raise ValueError(f"{self.name} is for two text encoders, and the model has one")
            encoder = encoders[number]
            prefixed = any(name.startswith("text_model.") for name, _ in encoder.named_modules())
            named = {_text_layer(layer, prefixed): pair for layer, pair in layers.items()}
            _merge(encoder, named, self.scale, f"{self.name} and text encoder {number + 1}")


def read(lora: Lora) -> Adapter:
    """Reads an adapter.

    Raises:
        MissingFilesError: It is not on this machine.
        ValueError: It is in no known layout.
    """
    name = ModelName.parse_part(lora.source, "lora")
    if not math.isfinite(lora.scale):
        raise ValueError(f"the scale of lora {lora.source} must be a number, not {lora.scale}")
    path = Path(name.id)
    if name.kind == "folder" and path.is_file():
        config = path.with_name(PEFT_CONFIG)
        if path.name in PEFT_FILES and config.is_file():
            return _peft(path, read_object(config), lora.scale)
        return _diffusers(path, lora.scale)
    source = Source(name)
    if source.find(PEFT_CONFIG) is not None:
        return _peft(source.need(*PEFT_FILES), source.read(PEFT_CONFIG), lora.scale)
    if (found := source.find(*LORA_FILES)) is not None:
        return _diffusers(found, lora.scale)
    raise source.missing([(PEFT_CONFIG, *LORA_FILES)])


def _peft(path: Path, config: Mapping[str, Any], scale: float) -> Adapter:
    kind = config.get("peft_type", "LORA")
    if kind != "LORA" or config.get("use_dora"):
        raise ValueError(f"{path} is a {kind if kind != 'LORA' else 'DoRA'} adapter, not LoRA")
    if config.get("bias", "none") != "none" or config.get("fan_in_fan_out"):
        raise ValueError(f"{path} trains biases or transposed weights, which cannot be merged")
    rank, alpha = (_number(path, key, config.get(key, 8)) for key in ("r", "lora_alpha"))
    ranks, alphas = (_numbers(path, config, key) for key in ("rank_pattern", "alpha_pattern"))
    pairs = _pairs(path, weights.read(path), prefix="base_model.model.")
    for layer, pair in pairs.items():
        pair.rank_stabilised = bool(config.get("use_rslora"))
        wanted = _pattern(ranks, layer, rank)
        if pair.down.shape[0] != wanted:
            raise ValueError(
                f"{path}: {layer} has rank {pair.down.shape[0]}, {PEFT_CONFIG} says {wanted:g}"
            )
        pair.alpha = _pattern(alphas, layer, alpha)
    return Adapter(str(path), scale, unet=pairs)


def _diffusers(path: Path, scale: float) -> Adapter:
    tensors = weights.read(path)
    if any(name.startswith(("lora_unet_", "lora_te")) for name in tensors):
        raise ValueError(
            f"{path} has the layout of kohya's scripts; load it into diffusers and save it with "
            "save_lora_weights, then give the folder"
        )
    split: dict[str, dict[str, Tensor]] = {"unet": {}, "text_encoder": {}, "text_encoder_2": {}}
    strangers = []
    for name, tensor in tensors.items():
        part, dot, rest = name.partition(".")
        if dot and part in split:
            split[part][rest] = tensor
        else:
            strangers.append(name)
    if strangers:
        raise ValueError(
            f"{path}: {len(strangers)} tensors are of no part that is known "
            f"({', '.join(strangers[: weights.SHOWN])}); names start with unet., text_encoder. or "
            "text_encoder_2."
        )
    told = _metadata(path)
    found = {
        part: _pairs(path, given, told={k.removeprefix(f"{part}."): v for k, v in told.items()})
        for part, given in split.items()
    }
    return Adapter(
        str(path),
        scale,
        unet=found["unet"],
        text=(found["text_encoder"], found["text_encoder_2"]),
    )


def _pairs(
    path: Path,
    tensors: Mapping[str, Tensor],
    *,
    prefix: str = "",
    told: Mapping[str, Any] | None = None,
) -> dict[str, Pair]:
    downs: dict[str, Tensor] = {}
    ups: dict[str, Tensor] = {}
    alphas: dict[str, float] = {}
    strangers = []
    for given, tensor in tensors.items():
        name = _PROCESSOR.sub(_modern, given.removeprefix(prefix))
        if match := _DOWN.fullmatch(name):
            downs[match["layer"]] = tensor
        elif match := _UP.fullmatch(name):
            ups[match["layer"]] = tensor
        elif match := _ALPHA.fullmatch(name):
            if tensor.numel() != 1:
                raise ValueError(f"{path}: {given} must be one number, not {tuple(tensor.shape)}")
            alphas[match["layer"]] = float(tensor)
        else:
            strangers.append(given)
    halves = sorted(downs.keys() ^ ups.keys()) + sorted(alphas.keys() - downs.keys())
    if strangers or halves:
        names = strangers or halves
        what = "are no LoRA weights" if strangers else "lack their other half"
        raise ValueError(
            f"{path}: {len(names)} tensors {what} ({', '.join(names[: weights.SHOWN])})"
        )
    for layer, down in downs.items():
        if down.dim() < 2 or ups[layer].dim() < 2 or ups[layer][0].numel() != len(down):
            shapes = " and ".join("×".join(map(str, one.shape)) for one in (down, ups[layer]))
            raise ValueError(f"{path}: the halves of {layer:.100} do not fit together: {shapes}")
    told = told or {}
    default = told.get("lora_alpha")
    if default is not None:
        default = _number(path, "lora_alpha", default)
    if told.get("use_dora"):
        raise ValueError(f"{path} is a DoRA adapter, not LoRA")
    patterns = _numbers(path, told, "alpha_pattern")
    return {
        layer: Pair(
            down,
            ups[layer],
            alphas.get(layer, _pattern(patterns, layer, default)),
            rank_stabilised=bool(told.get("use_rslora")),
        )
        for layer, down in downs.items()
    }


def _modern(match: re.Match[str]) -> str:
    layer = "to_out.0" if match[2] == "to_out" else match[2]
    return f"{match[1]}.{layer}.lora.{match[3]}.weight"


def _merge(module: nn.Module, layers: Mapping[str, Pair], scale: float, what: str) -> None:
    found = {name: layer for name, layer in module.named_modules() if hasattr(layer, "weight")}
    unmatched = [layer for layer in layers if layer not in found]
    if unmatched:
        raise ValueError(
            f"{what} do not fit: {len(unmatched)} of {len(layers)} layers are not there "
            f"({', '.join(unmatched[: weights.SHOWN])}); it was trained for another model"
        )
    for name, pair in layers.items():
        weight: Tensor = found[name].weight
        delta = pair.delta()
        if delta.shape[:2] != weight.shape[:2] or delta.numel() != weight.numel():
            raise ValueError(
                f"{what} do not fit: {name} is {'×'.join(map(str, weight.shape))}, the adapter's "
                f"{'×'.join(map(str, delta.shape))}"
            )
        with torch.no_grad():
            merged = weight.float() + scale * delta.reshape(weight.shape)
            # Not in place: the weight may be the mapped file.
            found[name].weight = nn.Parameter(merged.to(weight.dtype), requires_grad=False)


def _text_layer(layer: str, prefixed: bool) -> str:
    bare = layer.removeprefix("text_model.")
    return f"text_model.{bare}" if prefixed and bare != "text_projection" else bare


def _number(path: Path, key: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{path}: {key} must be a number, not {value!r:.80}")
    return float(value)


def _numbers(path: Path, config: Mapping[str, Any], key: str) -> dict[str, float]:
    found = config.get(key) or {}
    if not isinstance(found, Mapping):
        raise ValueError(f"{path}: {key} must give numbers by layer, not {found!r:.80}")
    return {layer: _number(path, f"{key} of {layer:.80}", value) for layer, value in found.items()}


def _pattern(patterns: Mapping[str, float], layer: str, default: Any) -> Any:
    """The value of the first key that means a layer: an expression for its end, as PEFT has it."""
    for pattern, value in patterns.items():
        plain = pattern.removeprefix("^").removesuffix("$")
        if layer == plain or layer.endswith(f".{plain}") or fnmatchcase(layer, plain):
            return value
        with contextlib.suppress(re.error):
            if re.match(rf"(?:.*\.)?(?:{pattern})$", layer):
                return value
    return default


def _metadata(path: Path) -> dict[str, Any]:
    """What diffusers says of the adapter in the file: keys as in `unet.lora_alpha`."""
    if path.suffix != ".safetensors":
        return {}
    from safetensors import safe_open

    opened: Any = safe_open(path, framework="pt")
    with opened as file:
        text = (file.metadata() or {}).get("lora_adapter_metadata")
    try:
        value = json.loads(text) if text else {}
    except ValueError as error:
        raise ValueError(f"{path}: its lora_adapter_metadata is not JSON: {error}") from error
    return value if isinstance(value, dict) else {}
