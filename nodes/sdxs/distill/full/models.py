"""The teacher's parts, loaded, and what is asked of a U-Net: noise, features, a sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

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
        found = [self.encoders.encode(text) for text in prompts]
        pooled = [one.pooled for one in found if one.pooled is not None]
        # Out of inference mode: gradients have to pass by them.
        return Embedding(
            torch.cat([one.tokens for one in found]).clone().to(self.device),
            torch.cat(pooled).clone().to(self.device) if pooled else None,
        )

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """The teacher's decoder: pictures float N3HW of 0..1."""
        pictures: Tensor = self.vae.decode(latents / self.vae.config.scaling_factor).sample
        return (pictures / 2 + 0.5).clamp(0, 1)


def load(
    *, teacher: str, straight: str, control: str | None, lora: str | None, pixels: int,
    device: torch.device,
) -> Models:  # fmt: skip
    """Loads everything from folders or repositories.

    Raises:
        OSError: Something is missing.
        ValueError: Teacher and few-step model do not predict the same.
    """
    from diffusers import AutoencoderKL, ControlNetModel, DiffusionPipeline, UNet2DConditionModel

    kind: Any = DiffusionPipeline
    pipeline = kind.from_pretrained(teacher)
    if lora is not None:
        # Into the offline network only: the online one starts from the plain teacher.
        pipeline.load_lora_weights(lora)
        pipeline.fuse_lora()
        pipeline.unload_lora_weights()
    unet: Any = UNet2DConditionModel
    few = pipeline.unet if straight == teacher else unet.from_pretrained(straight, subfolder="unet")
    kinds = {pipeline.scheduler.config.prediction_type}
    folder = Path(straight) / "scheduler" / "scheduler_config.json"
    if folder.is_file():
        scheduler: Any = type(pipeline.scheduler)
        kinds.add(scheduler.load_config(folder.parent).get("prediction_type", "epsilon"))
    if len(kinds) > 1 or kinds - {"epsilon", "v_prediction"}:
        raise ValueError(
            f"{teacher} and {straight} must both predict epsilon or both v_prediction, "
            f"and they predict {', '.join(sorted(kinds))}"
        )
    pairs = [(pipeline.tokenizer, pipeline.text_encoder)]
    if getattr(pipeline, "text_encoder_2", None) is not None:
        pairs.append((pipeline.tokenizer_2, pipeline.text_encoder_2))
    nets: Any = ControlNetModel
    betas = pipeline.scheduler.config
    vae: AutoencoderKL = pipeline.vae
    models = Models(
        teacher=pipeline.unet,
        straight=few,
        vae=vae,
        encoders=Encoders(pairs),
        diffusion=Diffusion.scaled_linear(start=betas.beta_start, end=betas.beta_end),
        velocity=kinds == {"v_prediction"},
        control=None if control is None else nets.from_pretrained(control),
        pixels=pixels,
        device=device,
    )
    for part in (models.teacher, models.straight, models.vae, models.control):
        if part is not None:
            part.to(device).eval().requires_grad_(False)
    models.encoders.to(device, torch.float32)
    return models


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


def velocity(
    models: Models,
    unet: Any,
    noisy: Tensor,
    t: Tensor,
    text: Embedding,
    *,
    guidance: float = 0.0,
    empty: Embedding | None = None,
    control: Control | None = None,
) -> Tensor:
    """What a U-Net predicts, as v whatever it predicts itself.

    Args:
        models: For the process, and for what the U-Nets predict.
        unet: The teacher's, the student's, or the online network's.
        noisy: x_t.
        t: int64 N.
        text: Of the prompts.
        guidance: Classifier-free; needs `empty` where it is above 1.
        empty: Of the empty prompt, N of it.
        control: Steers the U-Net.
    """
    extra: dict[str, Any] = {
        "added_cond_kwargs": added(unet, text, pixels=models.pixels),
        "return_dict": False,
    }
    given = dict(extra)
    if control is not None:
        down, middle = control.network(
            noisy, t, text.tokens, controlnet_cond=control.pictures, **extra
        )
        given["down_block_additional_residuals"] = down
        given["mid_block_additional_residual"] = middle
    out: Tensor = unet(noisy, t, text.tokens, **given)[0]
    if guidance > 1:
        if empty is None:
            raise ValueError("guidance needs the embedding of the empty prompt")
        plain = velocity(models, unet, noisy, t, empty, control=control)
        guided = velocity(models, unet, noisy, t, text, control=control)
        return plain + guidance * (guided - plain)
    if models.velocity:
        return out
    alpha, sigma = models.diffusion.at(t, noisy)
    return (out - sigma * noisy) / alpha


def noise_of(models: Models, noisy: Tensor, predicted: Tensor, t: Tensor) -> Tensor:
    """ε of a predicted v."""
    return models.diffusion.noise(noisy, predicted, t)


def one_step(
    models: Models, unet: Any, noise: Tensor, text: Embedding, *, control: Control | None = None
) -> Tensor:
    """The student's latents: x₀ at t = 999 from pure noise."""
    t = torch.full((len(noise),), LAST, dtype=torch.int64, device=noise.device)
    return models.diffusion.clean(noise, velocity(models, unet, noise, t, text, control=control), t)


@torch.no_grad()
def sample(
    models: Models, noise: Tensor, text: Embedding, *, steps: int, guidance: float = 0.0
) -> Tensor:
    """Latents of the few-step model, from the same noise as the student's."""
    empty = models.embed([""] * len(noise)) if guidance > 1 else None

    def predict(noisy: Tensor, t: Tensor) -> Tensor:
        return velocity(models, models.straight, noisy, t, text, guidance=guidance, empty=empty)

    return models.diffusion.sample(predict, noise, steps=steps)


def frozen(network: nn.Module) -> nn.Module:
    """The network in evaluation mode, without gradients."""
    return network.eval().requires_grad_(False)
