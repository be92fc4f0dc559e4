"""The teacher of a training in small: many steps, conditioned on the picture and a style.

It begins as the finished draft. It predicts the clean latent relative to the source's,
x̂₀ = u + U(u, paper, x_t, t), exactly as the draft does in one step; what it is shown of the noised
latent and of the time begins at nought. So its last step of DDIM, which returns x̂₀, is the draft's
picture before any training, and training can only add what the noised latent tells.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from nodes.sdxs.distill.diffusion import Diffusion
from nodes.sdxs.distill.removal import endow, inherit, student_config
from nodes.sdxs.network import (
    NOISE_CHANNELS,
    TIMESTEP,
    TOKEN_WIDTH,
    TOKENS,
    UNET_CONFIG,
    VAE_CONFIG,
    Network,
    channels_last,
    squash,
)

LATENT = int(VAE_CONFIG["latent_channels"])
FORM = "the clean latent relative to the source"
"""What networks of many steps predict; checkpoints say it, and others are refused."""


def teacher_config(channels: Sequence[int], layers: int) -> dict[str, Any]:
    """A U-Net in the shape of Stable Diffusion 1: attention everywhere but at the bottom."""
    stages = len(channels)
    return {
        **UNET_CONFIG,
        "in_channels": LATENT + NOISE_CHANNELS + LATENT,
        "block_out_channels": tuple(channels),
        "layers_per_block": layers,
        "down_block_types": (*("CrossAttnDownBlock2D",) * (stages - 1), "DownBlock2D"),
        "mid_block_type": "UNetMidBlock2DCrossAttn",
        "up_block_types": ("UpBlock2D", *("CrossAttnUpBlock2D",) * (stages - 1)),
    }


class _Detour:
    """Adds what the deepest stages give to what they were given.

    They are those that block removal takes away. In Stable Diffusion everything passes through
    them; as a detour they can begin at nought, and their removal takes away no more than they add.
    """

    def __init__(self, unet: Any) -> None:
        self._before: Tensor | None = None
        # Methods, not closures: a deep copy of the network then has a detour of its own.
        unet.down_blocks[-2].downsamplers[0].register_forward_pre_hook(self._leave)
        unet.up_blocks[0].upsamplers[0].register_forward_hook(self._return)

    def _leave(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._before = inputs[0]

    def _return(self, module: nn.Module, inputs: object, output: Tensor) -> Tensor:
        before, self._before = self._before, None
        assert before is not None
        return output + before


class Conditioned(nn.Module):
    """A U-Net of many steps on normalised latents, conditioned on the source and a style.

    Args:
        config: Of the U-Net; with a middle block, its deepest stages are a detour.
        styles: How many.
        spread: Mean and deviation of each latent channel, float 2 × LATENT.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, config: Mapping[str, Any], *, styles: int, spread: Tensor) -> None:
        super().__init__()
        unet: Any = UNet2DConditionModel
        self.unet: Any = unet(**config)
        if self.unet.mid_block is not None:
            _Detour(self.unet)
        self.tokens = nn.Parameter(torch.randn(styles, TOKENS, TOKEN_WIDTH))
        self.register_buffer("mean", spread[0].view(1, -1, 1, 1).clone())
        self.register_buffer("deviation", spread[1].view(1, -1, 1, 1).clone())
        self.diffusion = Diffusion.scaled_linear()

    @property
    def styles(self) -> int:
        """How many."""
        return len(self.tokens)

    def normalised(self, latent: Tensor) -> Tensor:
        """Of mean 0 and deviation 1 in each channel."""
        return (latent - self.mean) / self.deviation

    def restored(self, normal: Tensor) -> Tensor:
        """The inverse of `normalised`."""
        return normal * self.deviation + self.mean

    def clean(
        self, noisy: Tensor, t: Tensor, *, source: Tensor, paper: Tensor, tokens: Tensor
    ) -> Tensor:
        """x̂₀, normalised: the source's latent and what the U-Net adds to it, squashed.

        Args:
            noisy: x_t, normalised, float N × LATENT × H × W.
            t: int64 N.
            source: The source's latent u, not normalised.
            paper: The noise of the paper, float N × NOISE_CHANNELS × H × W.
            tokens: float N × TOKENS × TOKEN_WIDTH.
        """
        inputs = torch.cat([source, paper, noisy], 1)
        added: Tensor = self.unet(inputs, t, tokens, return_dict=False)[0]
        return self.normalised(squash(source + added))

    @torch.no_grad()
    def sample(
        self, noise: Tensor, *, source: Tensor, paper: Tensor, tokens: Tensor, steps: int
    ) -> Tensor:
        """Latents, not normalised, by DDIM; arguments as in `clean`."""

        def predict(noisy: Tensor, t: Tensor) -> Tensor:
            clean = self.clean(noisy, t, source=source, paper=paper, tokens=tokens)
            return self.diffusion.velocity_of(noisy, clean, t)

        return self.restored(self.diffusion.sample(predict, noise, steps=steps))


def teacher_from(
    draft: Network, *, channels: Sequence[int], layers: int, spread: Tensor
) -> Conditioned:
    """A teacher that paints what a one-step network paints, in any number of steps."""
    teacher = Conditioned(teacher_config(channels, layers), styles=len(draft.tokens), spread=spread)
    endow(teacher.unet, draft.unet.state_dict(), layers=layers)
    with torch.no_grad():
        teacher.tokens.copy_(draft.tokens)
        back = teacher.unet.up_blocks[0].upsamplers[0].conv
        back.weight.zero_()
        back.bias.zero_()
    _timeless(teacher.unet)
    return teacher


def student_from(teacher: Conditioned) -> Conditioned:
    """Block removal: the small U-Net of many steps, with the teacher's weights."""
    config = student_config(teacher.unet.config)
    spread = torch.stack([teacher.mean.flatten(), teacher.deviation.flatten()])
    student = Conditioned(config, styles=teacher.styles, spread=spread)
    layers = teacher.unet.config.layers_per_block
    inherit(student.unet, teacher.unet.state_dict(), layers=layers)
    with torch.no_grad():
        student.tokens.copy_(teacher.tokens)
    return student


def one_step(draft: Network, unet: Conditioned) -> Network:
    """The one-step network out of the draft's autoencoder and a small U-Net of many steps.

    At t = 999 the noised latent is noise but for 0.5 % of its power: the student does without it.
    """
    finish = int(draft.vae.config.num_decoder_blocks[-1])
    network = Network(unet.styles, finish=finish)
    weights = dict(unet.unet.state_dict())
    weights["conv_in.weight"] = weights["conv_in.weight"][:, : LATENT + NOISE_CHANNELS]
    kept = {key: one for key, one in draft.state_dict().items() if not key.startswith("unet.")}
    network.load_state_dict(
        {**kept, **{f"unet.{key}": one for key, one in weights.items()}, "tokens": unet.tokens}
    )
    return channels_last(network)


def _timeless(unet: Any) -> None:
    """Makes a U-Net at every timestep what it is at the one step's; from there it may learn."""
    first = unet.time_embedding.linear_1
    with torch.no_grad():
        wave = unet.time_proj(torch.tensor([TIMESTEP]))[0]
        first.bias += first.weight @ wave.to(first.weight)
        first.weight.zero_()
