"""Control pictures from pictures, in torch: sketch, soft edges, luminance, and several in one.

Every condition is made as marks: white on black, whole levels from 0 to 255, float32 of shape
(N, 1, H, W). `canny` has a module of its own, `depth` too, since it takes a model.

All functions take tensors where a value may change between two pictures, and look at none of
them from the host: they can be captured into a CUDA graph, and a change takes no new capture.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nodes.condition.filters import blur, gradient, ramp

__all__ = ["combine", "luminance", "sketch", "soft_edges"]


def sketch(image: Tensor, surround: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Lines where a picture is darker than what surrounds it: a difference of Gaussians.

    A line that is drawn gives one line, where a gradient would give one along each side; a step
    from bright to dark gives a line on its dark side, as an ink drawing has it. H. Winnemöller,
    J. E. Kyprianidis, S. C. Olsen, "XDoG", Computers & Graphics 36(6), 2012, with a straight ramp
    in place of their hyperbolic tangent.

    Args:
        image: levels, blurred to the width of the lines, not rounded.
        surround: weights of the blur that makes the surroundings; see `filters.blur`.
        low: grey levels of darkness at which a line begins to show, 0-dimensional.
        high: grey levels at which it is solid, above `low`.

    Returns:
        Marks: white lines on black. The sketch ControlNet takes them inverted.
    """
    return ramp(blur(image, surround) - image, low, high)


def soft_edges(image: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """The strength of edges without a decision: the length of Sobel's gradient.

    Args:
        image: levels.
        low: gradient shown as black, 0-dimensional; a step of one grey level has a gradient of 4.
        high: gradient shown as white, above `low`.

    Returns:
        Marks: edges white on black.
    """
    right, down = gradient(image)
    return ramp(torch.sqrt(right * right + down * down), low, high)


def luminance(image: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Luminance, with the level that becomes black and the one that becomes white.

    Args:
        image: levels.
        low: level shown as black, 0-dimensional.
        high: level shown as white, above `low`.

    Returns:
        Marks.
    """
    return ramp(image, low, high)


def combine(marks: Sequence[Tensor], weights: Tensor, inverted: Tensor) -> Tensor:
    """One control picture of several: the weighted sum of their marks, cut off at white.

    Weights that add up to 1 give a mean; weights of 1 lay the marks of all over each other.

    Args:
        marks: one or more, of the same shape.
        weights: float32 of shape (len(marks),), none negative.
        inverted: 0-dimensional float32: 1 for black marks on white, else 0.

    Returns:
        Whole levels from 0 to 255, float32 of the shape of each.

    Raises:
        ValueError: the number of weights is another.
    """
    if not marks or weights.shape != (len(marks),):
        raise ValueError(f"{len(marks)} pictures take as many weights, not {tuple(weights.shape)}")
    total = marks[0] * weights[0]
    for index, more in enumerate(marks[1:], start=1):
        total = total + more * weights[index]
    whole = torch.round(total.clamp(0.0, 255.0))
    return whole + inverted * (255.0 - 2.0 * whole)
