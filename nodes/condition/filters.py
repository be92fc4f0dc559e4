"""Filters that the conditions are made of, in torch, exact where OpenCV's are.

Levels are float32 tensors of shape (N, 1, H, W) from 0 to 255. Eight-bit arithmetic is done on
whole numbers below 2^24, which float32 holds exactly in any order of summation: so the results
equal those of OpenCV's integers, on the CPU and on a GPU. Convolutions of a library are avoided
for the same reason: TF32 and Winograd would round.

Nothing here looks at a value from the host, so all of it can be captured into a CUDA graph;
what may change between two pictures is a tensor.
"""

from __future__ import annotations

from typing import Final

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

RADIUS: Final = 9
"""Largest distance in pixels over which `blur` reaches."""

# OpenCV's weights of red, green and blue (ITU-R BT.601), in units of 2^-15.
_RED, _GREEN, _BLUE = 9798.0, 19235.0, 3735.0


def levels(pixels: Tensor) -> Tensor:
    """The luminance of pictures in whole grey levels, as `cv2.COLOR_RGB2GRAY` gives it.

    Args:
        pixels: shape (N, 3, H, W), or (N, 1, H, W) for what is luminance already; uint8, or
            floating point from 0 to 1, which is rounded to eight bits.

    Returns:
        float32 of shape (N, 1, H, W), whole numbers from 0 to 255.

    Raises:
        ValueError: another shape or type.
    """
    if pixels.ndim != 4 or pixels.shape[1] not in (1, 3):
        raise ValueError(
            f"pictures have shape (N, 3, H, W) or (N, 1, H, W), not {tuple(pixels.shape)}"
        )
    if pixels.dtype == torch.uint8:
        whole = pixels.float()
    elif pixels.is_floating_point():
        whole = torch.round(pixels.float().clamp(0.0, 1.0) * 255.0)
    else:
        raise ValueError(f"pictures are uint8, or floating point from 0 to 1, not {pixels.dtype}")
    if whole.shape[1] == 1:
        return whole
    red, green, blue = whole[:, 0:1], whole[:, 1:2], whole[:, 2:3]
    total = red * _RED + green * _GREEN + blue * _BLUE
    return torch.floor((total + 16384.0) / 32768.0)


def blur(image: Tensor, taps: Tensor) -> Tensor:
    """A Gaussian blur, not rounded; `round_half_up` makes it `cv2.GaussianBlur` of eight bits.

    The border is repeated outwards (`cv2.BORDER_REPLICATE`).

    Args:
        image: levels, float32 of shape (N, 1, H, W).
        taps: float32 of shape (RADIUS + 1,), from `nodes.condition.taps`: the weight of the
            centre, then of the pixels at distance 1, 2 and so on to each side.

    Returns:
        float32 of the same shape.
    """
    return _weighted(_weighted(image, taps, dim=3), taps, dim=2)


def round_half_up(image: Tensor) -> Tensor:
    """The nearest whole numbers; halves go up."""
    return torch.floor(image + 0.5)


def gradient(image: Tensor) -> tuple[Tensor, Tensor]:
    """Sobel's derivatives with 3×3 pixels, unscaled, as `cv2.spatialGradient` gives them.

    Args:
        image: levels, float32 of shape (N, 1, H, W); the border is repeated outwards.

    Returns:
        Derivatives to the right and downwards, -1020 to 1020, of the same shape.
    """
    padded = F.pad(image, (1, 1, 1, 1), mode="replicate")
    above, at, below = padded[:, :, :-2], padded[:, :, 1:-1], padded[:, :, 2:]
    tall = above + 2.0 * at + below
    rise = below - above
    right = tall[..., 2:] - tall[..., :-2]
    down = rise[..., :-2] + 2.0 * rise[..., 1:-1] + rise[..., 2:]
    return right, down


def ramp(values: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Whole levels that rise from 0 at `low` to 255 at `high`, in a straight line.

    Args:
        values: float32.
        low: 0-dimensional float32.
        high: 0-dimensional float32 above `low`.

    Returns:
        float32 of the same shape, whole numbers from 0 to 255.
    """
    scale = 255.0 / (high - low)
    return torch.round(values * scale - low * scale).clamp(0.0, 255.0)


def _weighted(image: Tensor, taps: Tensor, *, dim: int) -> Tensor:
    reach = taps.shape[0] - 1
    size = image.shape[dim]
    sides = (reach, reach, 0, 0) if dim == 3 else (0, 0, reach, reach)
    padded = F.pad(image, sides, mode="replicate")
    total = image * taps[0]
    for step in range(1, reach + 1):
        before = padded.narrow(dim, reach - step, size)
        after = padded.narrow(dim, reach + step, size)
        total = torch.addcmul(total, before + after, taps[step])
    return total
