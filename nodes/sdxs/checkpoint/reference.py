"""diffusers' own pipeline over the same weights, to measure and to compare against."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from nodes.sdxs.checkpoint import parts, text
from nodes.sdxs.names import ModelName


def pipeline(
    name: ModelName,
    *,
    control: Sequence[str | Path] = (),
    vae: str = "tiny",
    device: torch.device,
    dtype: torch.dtype,
) -> Any:
    """The pipeline that `from_pretrained` would make, loaded anew, in diffusers' own layout.

    Raises:
        MissingFilesError: Files are not on this machine.
        ValueError: The files do not fit, or there is no such pipeline.
    """
    import diffusers
    import transformers

    # It complains that a picture processor, which is not used here, runs without torchvision.
    logs: Any = transformers.utils.logging
    logs.set_verbosity_error()
    found = parts.load(name, vae=vae)
    controls = [
        parts.load_control(ModelName.parse_part(one, "control"), unet=found.unet) for one in control
    ]
    encoders = text.load_encoders(found.name, found.source).pairs
    kind, values = found.scheduler
    scheduler = getattr(diffusers, kind)
    known = {key: value for key, value in values.items() if key in scheduler().config}
    made: dict[str, Any] = {
        "unet": found.unet,
        "vae": found.vae,
        "scheduler": scheduler.from_config({**known, "timestep_spacing": "trailing"}),
        "tokenizer": encoders[0][0],
        "text_encoder": encoders[0][1],
    }
    if len(encoders) > 1:
        made |= {"tokenizer_2": encoders[1][0], "text_encoder_2": encoders[1][1]}
        made["add_watermarker"] = False
        family = "StableDiffusionXL"
    else:
        made |= {"safety_checker": None, "feature_extractor": None}
        made["requires_safety_checker"] = False
        family = "StableDiffusion"
    if controls:
        made["controlnet"] = controls[0] if len(controls) == 1 else controls
    which = f"{family}{'ControlNet' if controls else ''}Pipeline"
    pipe: Any = getattr(diffusers, which)(**made)
    # Each part by torch's own `to`, since diffusers' warns of what must stay in float32: nothing.
    for part in (made["unet"], made["vae"], *controls, *(encoder for _, encoder in encoders)):
        torch.nn.Module.to(part, device=device, dtype=dtype)
    pipe.set_progress_bar_config(disable=True)
    return pipe
