"""Loading what a full training starts from, and refusing what it could not use."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch

from nodes.sdxs.checkpoint import lora as adapters
from nodes.sdxs.checkpoint.text import Encoders
from nodes.sdxs.distill.diffusion import TIMESTEPS, Diffusion
from nodes.sdxs.distill.full.models import Models
from nodes.sdxs.distill.full.settings import Full, Sources
from nodes.sdxs.distill.layouts import TEACHERS
from nodes.sdxs.names import Lora

_PARTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")


def load(settings: Full, *, device: torch.device) -> Models:
    """Loads everything from folders or repositories.

    Raises:
        ValueError: Something is missing, or does not fit the others; the message names its key.
    """
    from diffusers import AutoencoderKL

    sources = settings.sources
    pipeline = _pipeline(sources.teacher)
    schedule = dict(pipeline.scheduler.config)
    betas = _betas(sources.teacher, schedule)
    unet = pipeline.unet
    _check_layout(unet.config, settings)
    straight = unet
    if sources.straight != sources.teacher:
        straight = _network("UNet2DConditionModel", sources.straight, "straight", "unet")
        _check_straight(straight.config, unet.config, sources, schedule)
    elif sources.straight_lora is not None:
        straight = copy.deepcopy(unet)
    if straight.config.time_cond_proj_dim is not None and sources.straight_guidance <= 1:
        raise ValueError(
            f"sources.straight {sources.straight} has learnt guidance as an input: set "
            "sources.straight_guidance to what it was trained for, above 1 (8, say)"
        )
    for key, name, networks in (
        # Both where they fit: the samples that are matched have to be in the adapter's style, too.
        ("lora", sources.lora, (unet, straight) if straight is not unet else (unet,)),
        ("straight_lora", sources.straight_lora, (straight,)),
    ):
        if name is not None:
            _merge(name, key, networks)
    control = None
    if sources.controls is not None:
        control = _network("ControlNetModel", sources.controls, "controls", None)
        _check_width(control.config, unet.config, f"sources.controls {sources.controls}", sources)
    pairs = [(pipeline.tokenizer, pipeline.text_encoder)]
    if getattr(pipeline, "text_encoder_2", None) is not None:
        pairs.append((pipeline.tokenizer_2, pipeline.text_encoder_2))
    vae: AutoencoderKL = pipeline.vae
    models = Models(
        teacher=unet,
        straight=straight,
        vae=vae,
        encoders=Encoders(pairs),
        diffusion=Diffusion.scaled_linear(start=betas[0], end=betas[1]),
        betas=betas,
        velocity=schedule.get("prediction_type", "epsilon") == "v_prediction",
        control=control,
        pixels=settings.resolution,
        device=device,
    )
    for part in (models.teacher, models.straight, models.vae, models.control):
        if part is not None:
            # Some files are in half precision.
            part.to(device, torch.float32).eval().requires_grad_(False)
    for _, encoder in pairs:
        encoder.eval().requires_grad_(False)
    models.encoders.to(device, torch.float32)
    return models


def plain_teacher(settings: Full, models: Models) -> Any:
    """The teacher's U-Net without the adapter that its offline copy may have, to be trained."""
    if settings.sources.lora is None:
        network = copy.deepcopy(models.teacher)
    else:
        network = _network("UNet2DConditionModel", settings.sources.teacher, "teacher", "unet")
    return network.to(models.device, torch.float32).requires_grad_(True)


def _pipeline(teacher: str) -> Any:
    from diffusers import DiffusionPipeline

    kind: Any = DiffusionPipeline
    try:
        pipeline = kind.from_pretrained(teacher)
    except (OSError, ValueError, AttributeError, ImportError) as error:
        raise _absent("teacher", teacher, error) from error
    missing = [part for part in _PARTS if getattr(pipeline, part, None) is None]
    if missing:
        raise ValueError(
            f"sources.teacher {teacher} is a {type(pipeline).__name__} without "
            f"{', '.join(missing)}: it must be a Stable Diffusion 1, 2 or XL in diffusers' layout"
        )
    return pipeline


def _network(kind: str, name: str, key: str, subfolder: str | None) -> Any:
    import diffusers

    try:
        made = getattr(diffusers, kind).from_pretrained(name, **_below(subfolder))
    except (OSError, ValueError) as error:
        raise _absent(key, name, error) from error
    return made


def _below(subfolder: str | None) -> dict[str, str]:
    return {} if subfolder is None else {"subfolder": subfolder}


def _absent(key: str, name: str, error: Exception) -> ValueError:
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return ValueError(
        f"sources.{key} {name!r} cannot be loaded: it must be a folder in diffusers' layout or a "
        f"repository of the hub ({first[:300]})"
    )


def _merge(name: str, key: str, networks: tuple[Any, ...]) -> None:
    try:
        adapter = adapters.read(Lora(name))
        if not adapter.unet:
            raise ValueError(f"{name} holds nothing for a U-Net")
        # Into U-Nets alone: the prompts of the student are embedded by the plain text encoder.
        for network in networks:
            adapter.into_unet(network)
    except (ValueError, FileNotFoundError) as error:
        raise ValueError(f"sources.{key}: {error}") from error


def _check_layout(unet: Mapping[str, Any], settings: Full) -> None:
    wanted, teacher = TEACHERS[settings.layout].unet, settings.sources.teacher
    key = "cross_attention_dim"
    if unet[key] != wanted[key]:
        raise ValueError(
            f"sources.teacher {teacher} is not of layout {settings.layout}: its {key} is "
            f"{unet[key]}, and the layout's is {wanted[key]}"
        )


def _check_straight(
    straight: Mapping[str, Any],
    unet: Mapping[str, Any],
    sources: Sources,
    schedule: Mapping[str, Any],
) -> None:
    from diffusers import DDIMScheduler

    _check_width(straight, unet, f"sources.straight {sources.straight}", sources)
    kind: Any = DDIMScheduler
    own = schedule.get("prediction_type", "epsilon")
    try:
        its = kind.load_config(sources.straight, subfolder="scheduler")
    except (OSError, ValueError):
        # A repository of a U-Net alone says nothing of it.
        return
    found = its.get("prediction_type", "epsilon")
    if found != own:
        raise ValueError(
            f"sources.teacher {sources.teacher} predicts {own} and sources.straight "
            f"{sources.straight} predicts {found}: both must predict the same"
        )


def _check_width(
    config: Mapping[str, Any], unet: Mapping[str, Any], what: str, sources: Sources
) -> None:
    key = "cross_attention_dim"
    if config[key] != unet[key]:
        raise ValueError(
            f"{what} does not fit the teacher {sources.teacher}: its {key} is {config[key]}, "
            f"and the teacher's is {unet[key]}"
        )


def _betas(teacher: str, schedule: Mapping[str, Any]) -> tuple[float, float]:
    """First and last β of the teacher's forward process.

    Raises:
        ValueError: It is not Stable Diffusion's kind.
    """
    for key, known in (
        ("num_train_timesteps", TIMESTEPS),
        ("beta_schedule", "scaled_linear"),
        ("trained_betas", None),
        ("rescale_betas_zero_snr", False),
    ):
        if (found := schedule.get(key, known)) != known:
            raise ValueError(
                f"the scheduler of sources.teacher {teacher} says {key}: {found}, and it must be "
                f"{known}"
            )
    kind = schedule.get("prediction_type", "epsilon")
    if kind not in ("epsilon", "v_prediction"):
        raise ValueError(
            f"sources.teacher {teacher} predicts {kind}, and it must be epsilon or v_prediction"
        )
    return float(schedule.get("beta_start", 0.00085)), float(schedule.get("beta_end", 0.012))
