"""The engine against diffusers' own pipelines on the same folders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from nodes.sdxs import OneStep
from nodes.sdxs.checkpoint.engine import CheckpointOneStep

# diffusers' Euler scheduler asks numpy for what torch does not give; it is theirs to mend.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

Write = Callable[..., Path]

SIZE = 128
PROMPT = "a Castle at sea, no. 12"
SCHEDULERS = ("EulerDiscreteScheduler", "PNDMScheduler", "DEISMultistepScheduler")

CLOSE = 1e-4
"""Largest difference of latents in float32."""


def pipeline(folder: Path, *, controls: list[Path] | None = None, dtype: Any = None) -> Any:
    import diffusers

    kinds = ("StableDiffusionPipeline", "StableDiffusionControlNetPipeline")
    if (folder / "text_encoder_2").is_dir():
        kinds = ("StableDiffusionXLPipeline", "StableDiffusionXLControlNetPipeline")
    more: dict[str, Any] = {}
    if controls:
        nets = [diffusers.ControlNetModel.from_pretrained(one) for one in controls]
        more["controlnet"] = nets[0] if len(nets) == 1 else nets
    made = getattr(diffusers, kinds[bool(controls)]).from_pretrained(folder, **more)
    made.set_progress_bar_config(disable=True)
    return made if dtype is None else made.to(dtype)


def reference(
    made: Any, *, seed: int = 7, width: int = SIZE, height: int = SIZE, **more: Any
) -> Any:
    """Latents and the picture, as float32 and uint8."""
    found = {}
    for kind in ("latent", "np"):
        found[kind] = made(
            PROMPT,
            num_inference_steps=1,
            guidance_scale=0.0,
            width=width,
            height=height,
            generator=torch.Generator().manual_seed(seed),
            output_type=kind,
            **more,
        ).images
    return found["latent"], np.round(found["np"][0] * 255).astype(np.uint8)


def load(folder: Path, **more: Any) -> CheckpointOneStep:
    engine = OneStep.load(folder, **more)
    assert isinstance(engine, CheckpointOneStep)
    engine.prompt = PROMPT
    engine.seed = 7
    return engine


def same(engine: CheckpointOneStep, expected: tuple[Any, NDArray[np.uint8]], **more: Any) -> None:
    latents, picture = expected
    height, width = picture.shape[:2]
    own = engine.latents(width, height, **more)
    assert own.dtype == torch.float32
    # The reference is not all alike, so that the comparison says something.
    assert latents.std() > 1
    assert float((own - latents).abs().max()) < CLOSE
    levels = engine.decode(own)[0].numpy()
    assert picture.std() > 5
    assert np.abs(levels.astype(int) - picture).max() <= 1


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("layout", ["1", "2", "xl"])
def test_latents_and_pictures_equal_those_of_the_pipeline(
    write: Write, layout: str, scheduler: str
) -> None:
    folder = write(layout, scheduler)
    same(load(folder), reference(pipeline(folder)))
