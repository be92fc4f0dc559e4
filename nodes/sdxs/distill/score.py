"""Segmented score distillation (SDXS, section 3.2, equations 11 and 12).

Two score networks look at a noised picture of the student's: the offline one knows the teacher's
distribution, the online one that of the student. Where they differ, the student has to move.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor

from nodes.sdxs.distill.diffusion import TIMESTEPS, Diffusion

FIRST: Final = 20
"""The least noisy timestep that is looked at: below it, scores are large and say little."""


def segment(count: int, *, alpha: float, generator: torch.Generator | None = None) -> Tensor:
    """Timesteps for (11)'s integral from 0 to αT: int64 N, uniform.

    Args:
        count: N.
        alpha: 0 to 1. Near 1 the two distributions overlap under much noise, so that the score
            says where to go; near 0 it shapes the texture.
        generator: What draws them.

    Raises:
        ValueError: `alpha` is not in that range.
    """
    if not 0 < alpha <= 1:
        raise ValueError(f"alpha must be above 0 and at most 1, not {alpha}")
    last = max(round(alpha * TIMESTEPS), FIRST + 1)
    return torch.randint(FIRST, last, (count,), generator=generator)


Weight = Callable[[Diffusion, Tensor, Tensor], Tensor]
"""w(t) of a process, timesteps int64 N, and the offline error N…: float N × 1 × …."""


def uniform(diffusion: Diffusion, t: Tensor, error: Tensor) -> Tensor:
    """w(t) = σ(t)² / α(t): the step in x₀ has the size of the two predictions' difference."""
    alpha, sigma = diffusion.at(t, error)
    return sigma**2 / alpha


def levelled(diffusion: Diffusion, t: Tensor, error: Tensor) -> Tensor:
    """w(t) = σ² / (α · mean |x₀ − offline x₀|), DMD's (Yin et al., 2024, equation 8).

    Pictures and timesteps that the offline network is unsure of do not drown the others.
    """
    alpha, sigma = diffusion.at(t, error)
    size = error.abs().mean(tuple(range(1, error.dim())), keepdim=True).clamp(min=1e-4)
    return sigma**2 / (alpha * size)


WEIGHTS: Final[dict[str, Weight]] = {"uniform": uniform, "levelled": levelled}


def gradient(
    diffusion: Diffusion,
    *,
    clean: Tensor,
    noisy: Tensor,
    t: Tensor,
    offline: Tensor,
    online: Tensor,
    weight: Weight = uniform,
) -> Tensor:
    """(12) without ∂x₀/∂θ: w(t) · [s_online(x_t, t) − s_offline(x_t, t)] · ∂x_t/∂x₀.

    This descends KL(student ‖ teacher), integrated over noised versions of both.

    Args:
        diffusion: The process that both networks were trained with.
        clean: The student's latents x₀, float N….
        noisy: x_t, the same shape.
        t: Timesteps, int64 N.
        offline: The teacher's predicted noise ε at x_t.
        online: The predicted noise of the network that follows the student.
        weight: w(t).

    Returns:
        The same shape as `clean`; nothing flows back through it.
    """
    with torch.no_grad():
        alpha, sigma = diffusion.at(t, clean)
        guess = (noisy - sigma * offline) / alpha
        scores = diffusion.score(online, t) - diffusion.score(offline, t)
        return weight(diffusion, t, clean - guess) * scores * alpha


def surrogate(clean: Tensor, pull: Tensor) -> Tensor:
    """A loss whose gradient with respect to `clean` is `pull` over the number of its elements.

    ½ · mean ‖x₀ − stop(x₀ − pull)‖², so that the chain rule does the rest of (12).
    """
    return 0.5 * (clean - (clean - pull).detach()).square().mean()


def annealed(step: int, *, steps: int, first: float, last: float, hold: float = 0.0) -> float:
    """α and λ_FM over the training: `first`, then a half cosine down (or up) to `last`.

    Args:
        step: From 0.
        steps: Of the whole training.
        first: At the beginning.
        last: From the last step on.
        hold: The share of the steps before it starts to move.
    """
    start = hold * steps
    part = min(max((step - start) / max(steps - 1 - start, 1), 0.0), 1.0)
    return last + (first - last) * 0.5 * (1 + math.cos(math.pi * part))
