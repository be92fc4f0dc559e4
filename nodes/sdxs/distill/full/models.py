"""The teacher's parts, and what is asked of a U-Net: a prediction, a clean latent, a sample."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from nodes.sdxs.checkpoint.text import Embedding, Encoders
from nodes.sdxs.distill.diffusion import TIMESTEPS, Diffusion

LAST = TIMESTEPS - 1


@dataclass
class Models:
    """What a full training starts from, all of it frozen.

    Attributes:
        teacher: `UNet2DConditionModel` of many steps.
        straight: The same of few steps; may be the teacher.
        vae: `AutoencoderKL`.
        encoders: Of the prompts.
        diffusion: Of the teacher.
        velocity: Whether both predict v instead of ε.
        control: The original `ControlNetModel`, or None.
        pixels: Side of the pictures.
        device: Where they are.
        betas: First and last of the teacher's schedule, whose square roots rise linearly.
    """

    teacher: Any
    straight: Any
    vae: Any
    encoders: Encoders
    diffusion: Diffusion
    velocity: bool
    control: Any
    pixels: int
    device: torch.device
    betas: tuple[float, float] = (0.00085, 0.012)
    _empty: Embedding | None = field(default=None, init=False, repr=False)

    @property
    def shrink(self) -> int:
        """Pixels for each element of a latent, along a side."""
        return 1 << (len(self.vae.config.block_out_channels) - 1)

    def noise(self, count: int, generator: torch.Generator) -> Tensor:
        """x_T: float N × C × h × w."""
        side = self.pixels // self.shrink
        shape = (count, self.teacher.config.in_channels, side, side)
        return torch.randn(shape, generator=generator).to(self.device)

    def embed(self, prompts: Sequence[str]) -> Embedding:
        """Embeddings of prompts, N of them."""
        known = {text: self.encoders.encode(text) for text in dict.fromkeys(prompts)}
        found = [known[text] for text in prompts]
        pooled = [one.pooled for one in found if one.pooled is not None]
        # Out of inference mode: gradients have to pass by them.
        return Embedding(
            torch.cat([one.tokens for one in found]).clone().to(self.device),
            torch.cat(pooled).clone().to(self.device) if pooled else None,
        )

    def empty(self, count: int) -> Embedding:
        """That of the empty prompt, for guidance, `count` times; computed once."""
        if self._empty is None:
            self._empty = self.embed([""])
        pooled = self._empty.pooled
        return Embedding(
            self._empty.tokens.expand(count, -1, -1),
            None if pooled is None else pooled.expand(count, -1),
        )

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """The teacher's decoder: pictures float N3HW of 0..1."""
        pictures: Tensor = self.vae.decode(latents / self.vae.config.scaling_factor).sample
        return (pictures / 2 + 0.5).clamp(0, 1)


def added(unet: Any, text: Embedding, *, pixels: int) -> dict[str, Tensor] | None:
    """SDXL's further conditions: the pooled text, and sizes as if nothing had been cropped."""
    if unet.config.addition_embed_type != "text_time" or text.pooled is None:
        return None
    sizes = torch.tensor([[pixels, pixels, 0, 0, pixels, pixels]], device=text.tokens.device)
    return {
        "text_embeds": text.pooled,
        "time_ids": sizes.expand(len(text.pooled), -1).to(text.pooled),
    }


@dataclass(frozen=True)
class Control:
    """A ControlNet and the pictures that it is given, float N3HW of 0..1."""

    network: Any
    pictures: Tensor


def predicted(
    models: Models,
    unet: Any,
    noisy: Tensor,
    t: Tensor,
    text: Embedding,
    *,
    guidance: float = 0.0,
    control: Control | None = None,
) -> Tensor:
    """What a U-Net predicts, ε or v as it was trained to, in float32.

    Args:
        models: For the sizes, and for the empty prompt.
        unet: The teacher's, the student's, or the online network's.
        noisy: x_t.
        t: int64 N.
        text: Of the prompts.
        guidance: Above 1 classifier-free, in two passes; of a U-Net that has learnt it as an
            input, in one.
        control: Steers the U-Net.
    """
    learnt = unet.config.time_cond_proj_dim
    if guidance > 1 and learnt is None:
        plain = predicted(models, unet, noisy, t, models.empty(len(noisy)), control=control)
        told = predicted(models, unet, noisy, t, text, control=control)
        return plain + guidance * (told - plain)
    extra: dict[str, Any] = {
        "added_cond_kwargs": added(unet, text, pixels=models.pixels),
        "return_dict": False,
    }
    given = dict(extra)
    if learnt is not None:
        given["timestep_cond"] = guidance_wave(guidance, learnt).expand(len(noisy), -1).to(noisy)
    if control is not None:
        down, middle = control.network(
            noisy, t, text.tokens, controlnet_cond=control.pictures, **extra
        )
        given["down_block_additional_residuals"] = down
        given["mid_block_additional_residual"] = middle
    out: Tensor = unet(noisy, t, text.tokens, **given)[0]
    return out.float()


def guidance_wave(guidance: float, width: int) -> Tensor:
    """Guidance as an input, float 1 × width (Meng et al., 2023), as diffusers writes it.

    Consistency models that have learnt it were trained with waves of the guidance less one.
    """
    half = width // 2
    steps = torch.exp(torch.arange(half) * (-math.log(10000.0) / (half - 1)))
    wave = (guidance - 1) * 1000.0 * steps
    full = torch.cat([wave.sin(), wave.cos()])
    return torch.nn.functional.pad(full, (0, width - 2 * half))[None]


def asked(models: Models, clean: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """What `predicted` should have been, (1): ε or v of x₀ and the noise put on it."""
    return models.diffusion.velocity(clean, noise, t) if models.velocity else noise


def velocity_of(models: Models, noisy: Tensor, prediction: Tensor, t: Tensor) -> Tensor:
    """V of what a U-Net predicts at x_t."""
    if models.velocity:
        return prediction
    alpha, sigma = models.diffusion.at(t, noisy)
    return (prediction - sigma * noisy) / alpha


def noise_of(models: Models, noisy: Tensor, prediction: Tensor, t: Tensor) -> Tensor:
    """ε of what a U-Net predicts at x_t."""
    return models.diffusion.noise(noisy, prediction, t) if models.velocity else prediction


def one_step(
    models: Models, unet: Any, noise: Tensor, text: Embedding, *, control: Control | None = None
) -> Tensor:
    """The student's latents: x₀ at t = 999 from pure noise."""
    t = torch.full((len(noise),), LAST, dtype=torch.int64, device=noise.device)
    found = predicted(models, unet, noise, t, text, control=control)
    return models.diffusion.clean(noise, velocity_of(models, noise, found, t), t)


@torch.no_grad()
def sample(
    models: Models,
    noise: Tensor,
    text: Embedding,
    *,
    steps: int,
    guidance: float = 0.0,
    unet: Any = None,
    control: Control | None = None,
) -> Tensor:
    """Latents of the few-step model, or of another U-Net, from the same noise as the student's."""
    network = models.straight if unet is None else unet

    def predict(noisy: Tensor, t: Tensor) -> Tensor:
        found = predicted(models, network, noisy, t, text, guidance=guidance, control=control)
        return velocity_of(models, noisy, found, t)

    return models.diffusion.sample(predict, noise, steps=steps)
