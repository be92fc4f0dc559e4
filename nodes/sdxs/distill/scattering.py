"""Features of a picture by fixed filters: nothing to download, and nobody's training favours it.

Two layers of rectified oriented filters, as in a scattering network (Bruna and Mallat, "Invariant
Scattering Convolution Networks", 2013), over luma and two opponent colours.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

ORIENTATIONS = 6
SCALES = 3
_SIDE = 9


def features(pictures: Tensor) -> list[Tensor]:
    """One stack of maps for each scale, each halved from the one before.

    Args:
        pictures: float N3HW of 0..1; sides of at least 64.

    Returns:
        float N × C × H/2ˢ × W/2ˢ: the smoothed picture, then the strength of the edges in each
        direction, then that of the changes of those.
    """
    level = _opponent(pictures)
    found = []
    for _ in range(SCALES):
        first = _strength(level)
        edges = first[:, :ORIENTATIONS]
        second = _strength(functional.avg_pool2d(edges.mean(1, keepdim=True), 2))
        second = functional.interpolate(second, scale_factor=2, mode="nearest")
        found.append(torch.cat([level, first, second], 1))
        level = functional.avg_pool2d(level, 2)
    return found


def distance(one: Tensor, other: Tensor) -> float:
    """Mean over scales of the L1 distance of features in units of `other`'s own spread.

    Both are pictures, float N3HW of 0..1. 0 for equals; 1 is about as far as another picture.
    """
    total = 0.0
    for mine, its in zip(features(one), features(other), strict=True):
        spread = its.std((0, 2, 3), keepdim=True).clamp(min=1e-3)
        total += float(((mine - its).abs() / spread).mean())
    return total / SCALES


def style_distance(one: Tensor, other: Tensor) -> float:
    """How far apart the styles are, wherever things stand in the picture.

    Mean over scales of ‖G − G'‖ / ‖G'‖ with the Gram matrices of the features (Gatys et al.,
    "Image Style Transfer Using Convolutional Neural Networks", 2016).
    """
    total = 0.0
    for mine, its in zip(features(one), features(other), strict=True):
        wanted = _gram(its)
        total += float((_gram(mine) - wanted).norm() / wanted.norm())
    return total / SCALES


def _gram(maps: Tensor) -> Tensor:
    flat = maps.transpose(0, 1).flatten(1)
    return flat @ flat.T / flat.shape[1]


def _opponent(pictures: Tensor) -> Tensor:
    red, green, blue = pictures.unbind(1)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    return torch.stack([luma, (red - green) / 2, (blue - (red + green) / 2) / 2], 1)


def _strength(maps: Tensor) -> Tensor:
    """Magnitude of each map's response to a pair of filters in each direction."""
    bank = _bank().to(maps)
    count, channels, height, width = maps.shape
    padded = functional.pad(maps, (_SIDE // 2,) * 4, mode="reflect")
    flat = padded.reshape(count * channels, 1, *padded.shape[2:])
    even, odd = functional.conv2d(flat, bank).chunk(2, 1)
    strength = (even**2 + odd**2 + 1e-8).sqrt()
    return strength.reshape(count, channels * ORIENTATIONS, height, width)


@lru_cache(maxsize=1)
def _bank() -> Tensor:
    """Gabor filters of zero mean, cosines then sines: 2·ORIENTATIONS × 1 × side × side."""
    reach = torch.arange(_SIDE, dtype=torch.float32) - _SIDE // 2
    rows, columns = torch.meshgrid(reach, reach, indexing="ij")
    window = torch.exp(-(rows**2 + columns**2) / (2 * 1.6**2))
    filters = []
    for wave in (torch.cos, torch.sin):
        for index in range(ORIENTATIONS):
            angle = math.pi * index / ORIENTATIONS
            along = columns * math.cos(angle) + rows * math.sin(angle)
            kernel = window * wave(along * 2 * math.pi / 4.5)
            kernel = kernel - window * kernel.sum() / window.sum()
            filters.append(kernel / kernel.abs().sum())
    return torch.stack(filters)[:, None]
