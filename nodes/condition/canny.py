"""Canny's edge detector in torch, equal to OpenCV's, without looking at a value from the host.

J. Canny, "A Computational Approach to Edge Detection", IEEE PAMI 8(6), 1986; the arithmetic is
that of OpenCV's `canny.cpp`: Sobel's derivatives with 3×3 pixels, directions in four sectors by
integer tangents, ties broken towards the upper left, edges linked in eight directions.

OpenCV follows weak edges from strong ones with a stack. A captured graph cannot ask whether
anything is left to do, so here the connected parts of the weak edges are found in a fixed number
of rounds of FastSV (Y. Zhang, A. Azad, Z. Hu, "FastSV: A Distributed-Memory Connected Component
Algorithm with Fast Convergence", SIAM PP 2020), each of which about doubles the length of the
edges that are followed to their ends.
"""

from __future__ import annotations

from typing import Final

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from nodes.condition.filters import gradient

ROUNDS: Final = 12
"""Rounds of linking: all edges of photographs take 10, an edge of 66,000 pixels takes 14."""

MAX_PIXELS: Final = 2**24 - 1
"""Largest picture: float32 counts no further without gaps."""

_TAN_22 = 13573.0  # tan(22.5 degrees) in units of 2^-15, as OpenCV rounds it


def canny(
    image: Tensor,
    low: Tensor,
    high: Tensor,
    *,
    l2: bool = False,
    rounds: int = ROUNDS,
) -> Tensor:
    """Edges one pixel wide, white on black: `cv2.Canny(..., apertureSize=3, L2gradient=l2)`.

    Args:
        image: luminance in whole levels, float32 of shape (N, 1, H, W), 0 to 255.
        low: 0-dimensional float32 tensor; a gradient above it goes on with an edge.
        high: likewise; a gradient above it begins an edge. The two may come in either order.
        l2: measure gradients by sqrt(dx² + dy²), rather than |dx| + |dy|.
        rounds: of linking; see `link`.

    Returns:
        float32 of the same shape, 0 or 255.

    Raises:
        ValueError: a picture has more than `MAX_PIXELS` pixels.
    """
    right, down = gradient(image)
    strength = right * right + down * down if l2 else right.abs() + down.abs()
    least, most = torch.minimum(low, high), torch.maximum(low, high)
    if l2:
        least, most = least * least, most * most
    thin = _thin(strength, right, down) & (strength > torch.floor(least))
    strong = thin & (strength > torch.floor(most))
    return 255.0 * link(strong.to(image.dtype), thin.to(image.dtype), rounds=rounds)


def link(strong: Tensor, weak: Tensor, *, rounds: int = ROUNDS) -> Tensor:
    """The connected parts of `weak`, in eight directions, that have a pixel of `strong`.

    A part that is longer than the rounds reach is kept where it was reached, and else left out.

    Args:
        strong: float32 of shape (N, 1, H, W), 0 or 1.
        weak: likewise, 1 wherever `strong` is.
        rounds: of FastSV.

    Returns:
        Like `strong`.

    Raises:
        ValueError: a picture has more than `MAX_PIXELS` pixels.
    """
    count, _, height, width = weak.shape
    if height * width > MAX_PIXELS:
        raise ValueError(f"edges are linked in up to {MAX_PIXELS} pixels, not {width}x{height}")
    # Pixels are numbered from 1; 0 stands for all that is no edge. Each points to one of the
    # largest number that it knows in its own part, in the end the same for the whole part.
    own = torch.arange(1, height * width + 1, dtype=torch.float32, device=weak.device)
    parent = _flat(weak * own.reshape(1, 1, height, width)).long()
    grand = parent
    for _ in range(rounds):
        numbers = grand[:, 1:].reshape(count, 1, height, width).float()
        best = _flat(F.max_pool2d(numbers, 3, stride=1, padding=1) * weak).long()
        known = torch.maximum(torch.maximum(parent, best), grand)
        parent = known.scatter_reduce(1, parent, best, "amax")
        grand = parent.gather(1, parent)
    begun = _flat(strong)
    held = torch.zeros_like(begun).scatter_reduce(1, grand, begun, "amax")
    return held.gather(1, grand)[:, 1:].reshape(weak.shape) * weak


def _flat(image: Tensor) -> Tensor:
    """Pixels in one line, behind a 0."""
    return F.pad(image.flatten(1), (1, 0))


def _thin(strength: Tensor, right: Tensor, down: Tensor) -> Tensor:
    """Where the gradient is largest among its neighbours along its own direction."""
    height, width = strength.shape[2:]
    padded = F.pad(strength, (1, 1, 1, 1))

    def beside(dy: int, dx: int) -> Tensor:
        return padded[:, :, 1 + dy : 1 + dy + height, 1 + dx : 1 + dx + width]

    across, along = right.abs(), down.abs()
    # tan(67.5°) = 2 + tan(22.5°): written so that every number stays below 2^24 or is a power
    # of two times one that does, and so is exact.
    flat = along * 32768.0 < across * _TAN_22
    steep = (along - 2.0 * across) * 32768.0 > across * _TAN_22
    falling = (right < 0) == (down < 0)
    kept_flat = (strength > beside(0, -1)) & (strength >= beside(0, 1))
    kept_steep = (strength > beside(-1, 0)) & (strength >= beside(1, 0))
    before = torch.where(falling, beside(-1, -1), beside(-1, 1))
    after = torch.where(falling, beside(1, 1), beside(1, -1))
    kept_slanted = (strength > before) & (strength > after)
    return torch.where(flat, kept_flat, torch.where(steep, kept_steep, kept_slanted))
