"""The networks of a model, built and filled: U-Net, decoder, ControlNets, text encoders.

Built on the meta device from the configuration, then given weights that must all fit, so that
nothing keeps a value of its own by mistake and nothing is in memory twice.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from nodes.sdxs.checkpoint import weights
from nodes.sdxs.checkpoint.files import DIFFUSERS_FILE, component_class, weight_files
from nodes.sdxs.checkpoint.layouts import LAYOUTS, control_for
from nodes.sdxs.checkpoint.memory import Budget
from nodes.sdxs.checkpoint.presence import control_files, model_files
from nodes.sdxs.checkpoint.schedule import Step, step
from nodes.sdxs.checkpoint.source import Source
from nodes.sdxs.names import ModelName

VAES = ("tiny", "large")


@dataclass
class Parts:
    """What makes up a text-to-image model, in float32 or as the files have it, on the CPU.

    Attributes:
        name: As it was asked for.
        source: Of its files; None where the weights are random.
        unet: `UNet2DConditionModel`.
        vae: `AutoencoderTiny` or `AutoencoderKL`.
        step: Of its scheduler.
        scheduler: The scheduler's class in diffusers, and its values.
    """

    name: ModelName
    source: Source | None
    unet: Any
    vae: Any
    step: Step
    scheduler: tuple[str, Mapping[str, Any]]


def load(
    name: ModelName,
    *,
    vae: str,
    budget: Budget | None = None,
    say: Callable[[str], None] = lambda stage: None,
) -> Parts:
    """Loads everything but the text encoders, which `text` loads when a prompt needs them.

    Args:
        name: Of a folder, a repository or `random`.
        vae: `"tiny"` or `"large"`.
        budget: Of memory; without one, nobody asks whether there is enough.
        say: Told of each of the two networks before it is loaded.

    Raises:
        MissingFilesError: Files are not on this machine.
        ValueError: Files are there, but not what this engine can run.
        MemoryError: The budget does not allow it.
    """
    if vae not in VAES:
        raise ValueError(f"unknown vae {vae!r}; known are tiny and large")
    if name.kind == "random":
        layout = LAYOUTS[name.id]
        say("drawing the U-Net")
        unet = build("UNet2DConditionModel", layout.unet)
        _take(budget, unet)
        weights.fill_random(unet, name="unet")
        kind, config = (
            ("AutoencoderTiny", layout.vae)
            if vae == "tiny"
            else ("AutoencoderKL", layout.vae_large)
        )
        say("drawing the decoder")
        decoder = build(kind, config)
        _take(budget, decoder)
        weights.fill_random(decoder, name=f"vae_{vae}")
        if vae == "tiny":
            # The decoder gives 0..1: its pictures lie around the middle grey.
            decoder.decoder.layers[-1].bias.fill_(0.5)
        return Parts(name, None, unet, decoder, step(*layout.scheduler), layout.scheduler)
    source = Source(name)
    index, folder = model_files(source, vae=vae)
    say("loading the U-Net")
    unet = _load(source, "unet", "UNet2DConditionModel", budget)
    say("loading the decoder")
    decoder = _load(
        source,
        folder,
        "AutoencoderTiny" if vae == "tiny" else "AutoencoderKL",
        budget,
        rename=_renamed_vae,
    )
    kind, values = _scheduler(source, index)
    try:
        found = step(kind, values)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error
    return Parts(name, source, unet, decoder, found, (kind, values))


def load_control(name: ModelName, *, unet: Any, budget: Budget | None = None) -> Any:
    """Loads a ControlNet for a U-Net.

    Raises:
        MissingFilesError: Files are not on this machine.
        ValueError: It does not fit the U-Net.
        MemoryError: The budget does not allow it.
    """
    if name.kind == "random":
        control = build("ControlNetModel", control_for(unet.config))
        _take(budget, control)
        weights.fill_random(control, name="control")
        return control
    source = Source(name)
    control_files(source)
    return _load(source, "", "ControlNetModel", budget)


def build(kind: str, config: Mapping[str, Any]) -> Any:
    """A network of diffusers on the meta device, without gradients.

    Raises:
        ValueError: diffusers refuses the configuration.
    """
    import diffusers

    made: Any = getattr(diffusers, kind)
    # Files carry what other versions know; what is of consequence shows in the weights' shapes.
    known = inspect.signature(made.__init__).parameters
    values = {key: value for key, value in config.items() if key in known}
    try:
        with torch.device("meta"):
            module: Any = made.from_config(values)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise ValueError(f"the configuration of {kind} is refused by diffusers: {error}") from error
    return module.eval().requires_grad_(False)


def _scheduler(source: Source, index: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    config = source.read("scheduler/scheduler_config.json")
    # As diffusers does it: the class of the index, the values of the file.
    return component_class(index, "scheduler") or str(config.get("_class_name")), config


def _load(
    source: Source, folder: str, kind: str, budget: Budget | None, *, rename: Any = str
) -> Any:
    start = f"{folder}/" if folder else ""
    config = source.read(f"{start}config.json")
    if config.get("_class_name", kind) != kind:
        raise ValueError(
            f"{source}: {start}config.json describes a {config['_class_name']}, not a {kind}"
        )
    module = build(kind, config)
    _take(budget, module)
    path = source.need(*weight_files(folder, DIFFUSERS_FILE))
    weights.fill(module, weights.read(path), what=str(path), rename=partial(rename))
    return module


def _take(budget: Budget | None, module: Any) -> None:
    if budget is not None:
        budget.take(module, _PLAIN[type(module).__name__])


_PLAIN = {
    "UNet2DConditionModel": "U-Net",
    "ControlNetModel": "ControlNet",
    "AutoencoderTiny": "decoder",
    "AutoencoderKL": "decoder",
}

# Autoencoders that were saved by early versions name their one attention otherwise.
_EARLY = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_EARLY_NAME = re.compile(r"(.*\.attentions\.\d+\.)(query|key|value|proj_attn)\.(weight|bias)")


def _renamed_vae(name: str) -> str:
    match = _EARLY_NAME.fullmatch(name)
    return name if match is None else f"{match[1]}{_EARLY[match[2]]}.{match[3]}"


def count(module: nn.Module) -> int:
    """Number of parameters."""
    return sum(parameter.numel() for parameter in module.parameters())
