"""Half precision against float32, within a bound that follows from the number format.

A number of p significant bits is rounded by at most u = 2⁻ᵖ of itself: 2⁻⁸ in bfloat16, 2⁻¹¹ in
float16. Every layer rounds its output, each by an error of its own, so that after L layers whose
gain is about 1 the prediction is off by √L·u of its size (root mean square; one error never adds
to all others in the worst way). The step multiplies that by its factor of 14.6. The combination
itself is computed in float32 and adds nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from nodes.sdxs import OneStep
from nodes.sdxs.checkpoint.engine import CheckpointOneStep

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

Write = Callable[..., Path]

BITS = {"bfloat16": 8, "float16": 11}
SIZE = 128


def load(folder: Path, control: Path, dtype: str) -> CheckpointOneStep:
    engine = OneStep.load(folder, control=control, dtype=dtype)
    assert isinstance(engine, CheckpointOneStep)
    engine.prompt = "a castle"
    return engine


def rms(tensor: Tensor) -> float:
    return float(tensor.detach().float().square().mean().sqrt())


def bound(exact: CheckpointOneStep, latents: Tensor, dtype: str) -> float:
    """Root mean square error of the latents that the number format explains."""
    step = exact.network.step
    noise = exact.noise(SIZE, SIZE)
    prediction = (latents - step.noise * noise) / step.prediction
    layers = sum(not list(one.children()) for one in exact.network.unet.modules())
    return abs(step.prediction) * layers**0.5 * 2.0 ** -BITS[dtype] * rms(prediction)


@pytest.mark.parametrize("dtype", list(BITS))
@pytest.mark.parametrize("layout", ["1", "2", "xl"])
def test_half_precision_stays_within_its_bound(
    write: Write, control: Write, layout: str, dtype: str
) -> None:
    folder, net = write(layout, "EulerDiscreteScheduler"), control(layout)
    exact, half = load(folder, net, "float32"), load(folder, net, dtype)
    assert half.dtype == dtype
    guide = np.random.default_rng(0).integers(0, 256, (1, SIZE, SIZE, 3), np.uint8)
    latents = exact.latents(SIZE, SIZE, control=torch.from_numpy(guide))
    own = half.latents(SIZE, SIZE, control=torch.from_numpy(guide))
    assert own.dtype == torch.float32
    limit = bound(exact, latents, dtype)
    assert limit < 0.1 * rms(latents) * 2.0 ** (11 - BITS[dtype])
    assert 0 < rms(own - latents) < limit
    # As much as an error of that size, in any direction, changes the picture: the decoder is
    # smooth, and rounds less than the U-Net, whose errors are multiplied by 14.6.
    generator = torch.Generator().manual_seed(1)
    error = torch.randn(latents.shape, generator=generator) * limit
    expected = exact.decode(latents).float()
    allowed = rms(exact.decode(latents + error).float() - expected)
    assert rms(half.decode(own).float() - expected) < allowed + 1


@pytest.mark.parametrize("dtype", list(BITS))
def test_the_pipeline_in_half_precision_is_as_near(
    write: Write, control: Write, dtype: str
) -> None:
    """diffusers draws its noise in half precision, so it is given the engine's."""
    import diffusers
    from PIL import Image

    folder, net = write("1", "PNDMScheduler"), control("1")
    exact, half = load(folder, net, "float32"), load(folder, net, dtype)
    arithmetic = getattr(torch, dtype)
    made: Any = diffusers.StableDiffusionControlNetPipeline.from_pretrained(
        folder, controlnet=diffusers.ControlNetModel.from_pretrained(net)
    ).to(arithmetic)
    made.set_progress_bar_config(disable=True)
    guide = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), np.uint8)
    found = made(
        "a castle",
        image=Image.fromarray(guide),
        num_inference_steps=1,
        guidance_scale=0.0,
        width=SIZE,
        height=SIZE,
        latents=half.noise(SIZE, SIZE).to(arithmetic),
        output_type="latent",
    ).images.float()
    control_picture = torch.from_numpy(guide)[None]
    own = half.latents(SIZE, SIZE, control=control_picture)
    latents = exact.latents(SIZE, SIZE, control=control_picture)
    limit = bound(exact, latents, dtype)
    # diffusers rounds both large terms and what is left of them: three roundings of that size.
    step = exact.network.step
    terms = 3 * 2.0 ** -BITS[dtype] * abs(step.prediction) * rms(half.noise(SIZE, SIZE))
    assert rms(found - latents) < limit + terms
    assert rms(own - found) < 2 * limit + terms
    # What the combination in float32 is for.
    assert rms(own - latents) < rms(found - latents)
