"""The forward process that both teachers and score networks are trained with, and its inverse."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

TIMESTEPS = 1000


@dataclass(frozen=True)
class Diffusion:
    """A variance-preserving process: x_t = α(t) x₀ + σ(t) ε, α² + σ² = 1.

    Attributes:
        alpha: float, one for each timestep: √ᾱ.
        sigma: float, one for each timestep: √(1 − ᾱ).
    """

    alpha: Tensor
    sigma: Tensor

    @classmethod
    def scaled_linear(cls, *, start: float = 0.00085, end: float = 0.012) -> Diffusion:
        """Stable Diffusion's: the square roots of the betas rise linearly."""
        betas = torch.linspace(start**0.5, end**0.5, TIMESTEPS, dtype=torch.float64) ** 2
        mean = torch.cumprod(1 - betas, 0)
        return cls(mean.sqrt().float(), (1 - mean).sqrt().float())

    def at(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """α and σ at int64 timesteps N, as N × 1 × … to go with `like`."""
        shape = (-1, *(1,) * (like.dim() - 1))
        place = self.alpha.to(like.device)
        return place[t].view(shape), self.sigma.to(like.device)[t].view(shape)

    def noised(self, clean: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """x_t of x₀ and ε: float N…, timesteps int64 N."""
        alpha, sigma = self.at(t, clean)
        return alpha * clean + sigma * noise

    def velocity(self, clean: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """V = α ε − σ x₀ (Salimans and Ho, "Progressive Distillation", 2022)."""
        alpha, sigma = self.at(t, clean)
        return alpha * noise - sigma * clean

    def clean(self, noisy: Tensor, velocity: Tensor, t: Tensor) -> Tensor:
        """x₀ = α x_t − σ v."""
        alpha, sigma = self.at(t, noisy)
        return alpha * noisy - sigma * velocity

    def noise(self, noisy: Tensor, velocity: Tensor, t: Tensor) -> Tensor:
        """ε = σ x_t + α v."""
        alpha, sigma = self.at(t, noisy)
        return sigma * noisy + alpha * velocity

    def velocity_of(self, noisy: Tensor, clean: Tensor, t: Tensor) -> Tensor:
        """The velocity that belongs to x_t and a predicted x₀: v = (α x_t − x₀) / σ."""
        alpha, sigma = self.at(t, noisy)
        return (alpha * noisy - clean) / sigma

    def noise_of(self, noisy: Tensor, clean: Tensor, t: Tensor) -> Tensor:
        """The noise that belongs to x_t and a predicted x₀: ε = (x_t − α x₀) / σ."""
        alpha, sigma = self.at(t, noisy)
        return (noisy - alpha * clean) / sigma

    def importance(self, t: Tensor, like: Tensor, *, most: float = 5.0) -> Tensor:
        """w(t) of the error in a predicted x₀: the signal-to-noise ratio α²/σ², from 1 to `most`.

        The ratio itself would be the error in ε (1), which at t = 999 counts nearly nothing of
        x₀; but there a network that is shown the source knows most, and there the student will
        be. Hence 1 at least (Salimans and Ho, 2022). Little noise hides nothing, and its errors
        would drown the rest: hence at most `most`, γ of min-SNR (Hang et al., 2023). Both bounds
        together are ours.

        Args:
            t: int64 N.
            like: The shape that it goes with, N….
            most: The upper bound.

        Returns:
            float N × 1 × ….
        """
        alpha, sigma = self.at(t, like)
        return ((alpha / sigma) ** 2).clamp(1.0, most)

    def score(self, noise: Tensor, t: Tensor) -> Tensor:
        """∇ log p_t(x_t) = −ε / σ(t)."""
        return -noise / self.at(t, noise)[1]

    def sample(
        self, predict: Callable[[Tensor, Tensor], Tensor], noise: Tensor, *, steps: int
    ) -> Tensor:
        """DDIM without noise of its own (Song et al., 2021, η = 0), trailing timesteps.

        Args:
            predict: Gives the velocity of (x_t, int64 N timesteps).
            noise: x_T, float N….
            steps: How many; the first is always at the noisiest timestep.
        """
        now = noise
        times = trailing(steps)
        for index, time in enumerate(times):
            t = torch.full((len(noise),), time, dtype=torch.int64, device=noise.device)
            velocity = predict(now, t)
            clean = self.clean(now, velocity, t)
            if index + 1 == len(times):
                return clean
            following = torch.full_like(t, times[index + 1])
            now = self.noised(clean, self.noise(now, velocity, t), following)
        return now


def trailing(steps: int) -> list[int]:
    """Timesteps from 999 down in equal strides; `steps` from 1 to 1000."""
    if not 1 <= steps <= TIMESTEPS:
        raise ValueError(f"steps must be 1 to {TIMESTEPS}, not {steps}")
    return [round(TIMESTEPS * (steps - index) / steps) - 1 for index in range(steps)]
