"""Feature matching: the structural similarity of two pictures' features (SDXS, equation 10)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

WINDOW = 7


def similarity(
    one: Tensor, other: Tensor, *, span: float | Tensor = 1.0, window: int = WINDOW
) -> Tensor:
    """The map of SSIM (Wang et al., 2004) over uniform windows, without padding.

    Args:
        one: float NCHW, both sides at least `window`.
        other: The same shape.
        span: The range of the values, or one for each channel as 1C11.
        window: Side of the windows, in pixels.

    Returns:
        float N × C × (H − window + 1) × (W − window + 1), at most 1.
    """

    def mean(values: Tensor) -> Tensor:
        return functional.avg_pool2d(values, window, stride=1)

    steady_mean, steady_variance = (0.01 * span) ** 2, (0.03 * span) ** 2
    mean_one, mean_other = mean(one), mean(other)
    variance_one = mean(one * one) - mean_one**2
    variance_other = mean(other * other) - mean_other**2
    covariance = mean(one * other) - mean_one * mean_other
    return (
        (2 * mean_one * mean_other + steady_mean)
        * (2 * covariance + steady_variance)
        / (
            (mean_one**2 + mean_other**2 + steady_mean)
            * (variance_one + variance_other + steady_variance)
        )
    )


def feature_matching(
    student: Sequence[Tensor],
    teacher: Sequence[Tensor],
    *,
    weights: Sequence[float] | None = None,
    window: int = WINDOW,
) -> Tensor:
    """(10), L_FM: Σ_l w_l · (1 − SSIM(f^l(x_θ(ε)), f^l(ψ(x_φ(ε))))).

    The paper prints the similarity itself, which would have to rise; what falls is one minus it.
    Each channel is measured by its own spread in the teacher's picture, because features, unlike
    pixels, have no fixed range.

    Args:
        student: Features of the student's picture, float NCHW each.
        teacher: Features of the straightened teacher's picture, from the same noise.
        weights: w_l; 1 / number of features where left out.
        window: As in `similarity`; smaller maps are compared in one window.
    """
    if not student or len(student) != len(teacher):
        raise ValueError(f"{len(student)} features of the student, {len(teacher)} of the teacher")
    shares = weights if weights is not None else [1 / len(student)] * len(student)
    total = torch.zeros((), device=student[0].device)
    for ours, theirs, share in zip(student, teacher, shares, strict=True):
        known = theirs.detach()
        spread = known.std((0, 2, 3), keepdim=True).clamp(min=1e-4) * 4
        middle = known.mean((0, 2, 3), keepdim=True)
        side = min(window, *known.shape[2:])
        # Shifted to positive values: the comparison of means is meant for those.
        alike = similarity(
            (ours - middle) / spread + 0.5, (known - middle) / spread + 0.5, window=side
        )
        total = total + share * (1 - alike.mean())
    return total
