"""The losses of the small networks: decoder, U-Net and ControlNet (SDXS, section 3.1).

Numbers in brackets are those of arXiv 2403.16627.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

SHRINK = 8
"""The decoder is held to its teacher in pictures this many times smaller (5)."""


def denoising(predicted: Tensor, wanted: Tensor, *, weight: Tensor | None = None) -> Tensor:
    """(1): the mean squared error of a predicted noise, velocity or clean latent.

    Args:
        predicted: Any shape.
        wanted: The same.
        weight: Of each picture, N × 1 × …, where what is predicted asks for one.
    """
    if weight is None:
        return functional.mse_loss(predicted, wanted)
    return (weight * (predicted - wanted).square()).mean()


def reconstruction(painted: Tensor, target: Tensor, *, shrink: int = SHRINK) -> Tensor:
    """(5), first term: ‖G(z)↓8 − x̃↓8‖₁, as a mean; float NCHW, H and W at least `shrink`.

    Only where things are and what colour they have is held; the texture is left to the
    adversarial term, so that it need not be averaged.
    """
    small = functional.avg_pool2d(painted, shrink)
    return (small - functional.avg_pool2d(target, shrink)).abs().mean()


def fooling(judged: Tensor) -> Tensor:
    """(5), second term, for the generator: −E[D(G(z))], the hinge loss (Lim and Ye, 2017)."""
    return -judged.mean()


def judging(real: Tensor, made: Tensor) -> Tensor:
    """(5), second term, for the discriminator: E[max(0, 1 − D(x̃))] + E[max(0, 1 + D(G(z)))]."""
    return functional.relu(1 - real).mean() + functional.relu(1 + made).mean()


def output_distillation(student: Tensor, teacher: Tensor) -> Tensor:
    """L_OKD: ‖s_θ(x_t, t) − s_φ(x_t, t)‖², as a mean; t is drawn anew for each batch."""
    return functional.mse_loss(student, teacher.detach())


def feature_distillation(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """L_FKD: Σ_l ‖f_θ^l − f_φ^l‖², each a mean.

    Args:
        student: One feature map for each stage.
        teacher: The same number, of the same shapes.

    Raises:
        ValueError: The numbers or shapes differ.
    """
    if len(student) != len(teacher):
        raise ValueError(f"{len(student)} features of the student, {len(teacher)} of the teacher")
    total = torch.zeros((), device=student[0].device)
    for index, (ours, theirs) in enumerate(zip(student, teacher, strict=True)):
        if ours.shape != theirs.shape:
            raise ValueError(
                f"feature {index} is {tuple(ours.shape)} in the student "
                f"and {tuple(theirs.shape)} in the teacher"
            )
        total = total + functional.mse_loss(ours, theirs.detach())
    return total


def knowledge_distillation(
    student: Tensor,
    teacher: Tensor,
    *,
    features: tuple[Sequence[Tensor], Sequence[Tensor]],
    feature_weight: float,
) -> Tensor:
    """L_KD = L_OKD + λ_F · L_FKD; unlike BK-SDM's, without the denoising loss.

    For a ControlNet the features are those of the U-Net's decoder alone: its encoder does not see
    what the ControlNet adds, so there is nothing to learn from it.
    """
    return output_distillation(student, teacher) + feature_weight * feature_distillation(*features)
