"""What the network is shown and asked for, made from a batch of sources and operator pictures."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from nodes.sdxs.network import NOISE_CHANNELS

GRAIN = {"pencil": 0.09, "watercolor": 0.035, "ink": 0.02}
"""How strongly the paper's grain shows, per style; styles not named here have none.

The grain is a fixed function of the noise, so that another seed is another sheet of paper.
"""

SENSOR_NOISE = 8 / 255
"""Largest standard deviation of the noise put on the source.

The target is made from the clean source, so the network learns to draw the same picture whatever
the sensor's noise is, which is what keeps a video from flickering.
"""


def blended(tokens: Tensor, shares: Tensor) -> Tensor:
    """The tokens of styles and of blends, as the node mixes them by default: linearly.

    Args:
        tokens: The table, float styles × TOKENS × TOKEN_WIDTH.
        shares: Of each style, float N × styles, whose rows add up to 1.

    Returns:
        float N × TOKENS × TOKEN_WIDTH; gradients go into the table.
    """
    return (shares[:, :, None, None] * tokens).sum(1)


def grain(noise: Tensor) -> Tensor:
    """The sheet of paper that belongs to a noise: float N1HW, mean 0, deviation about 0.6."""
    if noise.shape[1] != NOISE_CHANNELS:
        raise ValueError(f"noise has {noise.shape[1]} channels, {NOISE_CHANNELS} are needed")
    return functional.interpolate(
        functional.pixel_shuffle(noise, 2), scale_factor=2, mode="bilinear", align_corners=False
    )


def textured(target: Tensor, sheet: Tensor, amount: Tensor) -> Tensor:
    """Lets the paper's grain show through the pigment; bare paper stays nearly plain."""
    pigment = 0.12 + (1 - target.mean(1, keepdim=True))
    # Where everything is covered, the grain is filled up again.
    room = pigment * (1.15 - pigment).clamp(min=0.15) * 2
    return (target + amount * sheet * room).clamp(0, 1)


def at_strength(source: Tensor, target: Tensor, strength: Tensor) -> Tensor:
    """The picture asked for when `strength` of the style is wanted: 0 source, 1 style, 2 beyond."""
    return (source + strength * (target - source)).clamp(0, 1)


def disturbed(source: Tensor, generator: torch.Generator) -> Tensor:
    """The source with a camera's noise: fine, and in part smeared as a codec does."""
    count = source.shape[0]
    sigma = torch.rand(count, 1, 1, 1, generator=generator) * SENSOR_NOISE
    sigma = sigma * (torch.rand(count, 1, 1, 1, generator=generator) < 0.7)
    fine = torch.randn(source.shape, generator=generator)
    half = torch.randn((count, 3, source.shape[2] // 2, source.shape[3] // 2), generator=generator)
    coarse = functional.interpolate(half, scale_factor=2, mode="nearest")
    return (source + sigma * (0.85 * fine + 0.5 * coarse)).clamp(0, 1)


def strengths(count: int, generator: torch.Generator) -> Tensor:
    """Strengths to train at, float N111: mostly 1, some anywhere from 0 to 2, a few just 0."""
    anywhere = torch.rand(count, 1, 1, 1, generator=generator) * 2
    choice = torch.rand(count, 1, 1, 1, generator=generator)
    return torch.where(choice < 0.8, 1.0, torch.where(choice < 0.95, anywhere, 0.0))
