"""The networks of a training in small: a teacher of many steps, and the way to and from a student.

The student is `nodes.sdxs.network.Network`, which is what the bundled model is. The teacher works
in the latents of a frozen autoencoder and sees, beside the noised latent of the styled picture,
the latent of the source and the noise of the paper.
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
    TOKEN_WIDTH,
    TOKENS,
    UNET_CONFIG,
    VAE_CONFIG,
    Network,
    channels_last,
    squash,
)

LATENT = int(VAE_CONFIG["latent_channels"])


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


class Conditioned(nn.Module):
    """A U-Net of many steps on normalised latents, conditioned on the source and a style.

    It predicts the velocity, relative to that of the source's own latent: v̂ = −σ u − U(…), with
    u the source's latent, so that U-Net's output nought leaves the picture as it is at t = 999.

    Args:
        config: Of the U-Net.
        styles: How many.
        spread: Mean and deviation of each latent channel, float 2 × LATENT.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, config: Mapping[str, Any], *, styles: int, spread: Tensor) -> None:
        super().__init__()
        unet: Any = UNet2DConditionModel
        self.unet: Any = unet(**config)
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

    def velocity(
        self, noisy: Tensor, t: Tensor, *, source: Tensor, paper: Tensor, tokens: Tensor
    ) -> Tensor:
        """v̂.

        Args:
            noisy: x_t, normalised, float N × LATENT × H × W.
            t: int64 N.
            source: The source's latent, not normalised.
            paper: The noise of the paper, float N × NOISE_CHANNELS × H × W.
            tokens: float N × TOKENS × TOKEN_WIDTH.
        """
        inputs = torch.cat([source, paper, noisy], 1)
        out: Tensor = self.unet(inputs, t, tokens, return_dict=False)[0]
        sigma = self.diffusion.at(t, noisy)[1]
        return -(sigma * self.normalised(source) + out)

    @torch.no_grad()
    def sample(
        self, noise: Tensor, *, source: Tensor, paper: Tensor, tokens: Tensor, steps: int
    ) -> Tensor:
        """Latents, not normalised, by DDIM; arguments as in `velocity`."""

        def predict(noisy: Tensor, t: Tensor) -> Tensor:
            return self.velocity(noisy, t, source=source, paper=paper, tokens=tokens)

        return self.restored(self.diffusion.sample(predict, noise, steps=steps))


def teacher_from(
    draft: Network, *, channels: Sequence[int], layers: int, spread: Tensor
) -> Conditioned:
    """A teacher that begins near what a one-step network can do already."""
    teacher = Conditioned(teacher_config(channels, layers), styles=len(draft.tokens), spread=spread)
    known = dict(draft.unet.state_dict())
    for name in ("conv_out.weight", "conv_out.bias"):
        # The teacher's output is in units of the normalised latent.
        known[name] = known[name] / spread[1].view(-1, *(1,) * (known[name].dim() - 1))
    endow(teacher.unet, known, layers=layers)
    with torch.no_grad():
        teacher.tokens.copy_(draft.tokens)
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


def one_step(autoencoder: Network, unet: Conditioned) -> Network:
    """The one-step network out of an autoencoder and a small U-Net of many steps.

    At t = 999 the noised latent is noise but for 0.5 % of its power. It goes, and the encoded
    picture stands in its place; the U-Net's output is scaled from normalised latents to plain ones.
    """
    finish = int(autoencoder.vae.config.num_decoder_blocks[-1])
    network = Network(unet.styles, finish=finish)
    network.load_state_dict(
        {
            key: value
            for key, value in autoencoder.state_dict().items()
            if not key.startswith(("unet.", "tokens"))
        },
        strict=False,
    )
    weights = dict(unet.unet.state_dict())
    weights["conv_in.weight"] = weights["conv_in.weight"][:, : LATENT + NOISE_CHANNELS]
    for name in ("conv_out.weight", "conv_out.bias"):
        scale = unet.deviation.view(-1, *(1,) * (weights[name].dim() - 1))
        weights[name] = weights[name] * scale
    network.unet.load_state_dict(weights)
    with torch.no_grad():
        network.tokens.copy_(unet.tokens)
    return channels_last(network)


def encoded(network: Network, picture: Tensor) -> Tensor:
    """A picture's squashed latent."""
    return squash(network.encode(picture)[1])


def initialise(network: Network) -> None:
    """He initialisation of the autoencoder; what adds to something else starts near zero.

    The autoencoder has no normalisation: with torch's default it stays at a constant picture.
    """
    for module in network.vae.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for name, module in network.vae.named_modules():
        # The third convolution of each residual block.
        if isinstance(module, nn.Conv2d) and name.endswith("conv.4"):
            nn.init.normal_(module.weight, std=1e-3)
    nn.init.zeros_(network.unet.conv_out.weight)
    nn.init.zeros_(network.unet.conv_out.bias)


def grown(kept: Network, *, styles: Sequence[str], known: Sequence[str], finish: int) -> Network:
    """A finished network with more styles or more blocks, that paints the same as before.

    Args:
        kept: The finished one.
        styles: The vocabulary wanted.
        known: The vocabulary of `kept`.
        finish: Residual blocks after the skip connection; at least those of `kept`.
    """
    before = int(kept.vae.config.num_decoder_blocks[-1])
    if finish < before:
        raise ValueError(f"finish must be at least {before}, not {finish}")
    network = Network(len(styles), finish=finish)
    joint = network.joint
    weights = {}
    for key, value in kept.state_dict().items():
        name = key
        if key.startswith("vae.decoder.layers."):
            index, rest = key.removeprefix("vae.decoder.layers.").split(".", 1)
            if int(index) >= joint + before:
                name = f"vae.decoder.layers.{int(index) + finish - before}.{rest}"
        weights[name] = value
    table = network.tokens.detach().clone()
    for row, style in enumerate(styles):
        if style in known:
            table[row] = kept.tokens[list(known).index(style)]
    weights["tokens"] = table
    network.load_state_dict(weights, strict=False)
    with torch.no_grad():
        for place in range(joint + before, joint + finish):
            block = network.vae.decoder.layers[place]
            block.conv[4].weight.zero_()
            block.conv[4].bias.zero_()
    return network
