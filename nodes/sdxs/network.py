"""The bundled network: SDXS in small, out of diffusers' own classes.

`AutoencoderTiny` → `UNet2DConditionModel` without a middle block, one step at t = 999 →
`AutoencoderTiny`. Three things differ from a text-to-image student:

- The encoded picture takes the place of the noise at t = 999 and the U-Net predicts what to add to
  it, as in pix2pix-turbo (Parmar et al., "One-Step Image Translation with Text-to-Image Models",
  2024); a few channels of fixed noise lie beside it.
- One skip connection leads from the encoder's first layer to the decoder's last, so that thin
  lines do not have to pass through the latent.
- Text is a fixed vocabulary: each style is a short sequence of learnt tokens.

Importing this module imports torch and diffusers, which takes seconds.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderTiny, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

TIMESTEP = 999
"""The one step, as in SDXS: the noisiest of 1,000."""

NOISE_CHANNELS = 4
TOKENS = 4
TOKEN_WIDTH = 64
FILE = "diffusion_pytorch_model.safetensors"
FOLD = 2
"""The autoencoder sees blocks of 2 × 2 pixels as channels: full-resolution layers cost most."""

VAE_CONFIG: dict[str, Any] = {
    "in_channels": 3 * FOLD * FOLD,
    "out_channels": 3 * FOLD * FOLD,
    "encoder_block_out_channels": (32, 32),
    "decoder_block_out_channels": (32, 32),
    "num_encoder_blocks": (0, 2),
    "num_decoder_blocks": (2, 0),
    "latent_channels": 24,
}

UNET_CONFIG: dict[str, Any] = {
    "sample_size": 64,
    "in_channels": 24 + NOISE_CHANNELS,
    "out_channels": 24,
    "block_out_channels": (32, 64, 96),
    "layers_per_block": 1,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "mid_block_type": None,
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    # Self-attention costs the square of the picture's area.
    "only_cross_attention": True,
    "cross_attention_dim": TOKEN_WIDTH,
    "attention_head_dim": 4,
    "norm_num_groups": 8,
}


class Network(nn.Module):
    """Encoder, one U-Net step, decoder, the skip connection and the styles' tokens.

    Args:
        styles: How many styles the vocabulary has.
    """

    def __init__(self, styles: int) -> None:
        super().__init__()
        # diffusers has no types.
        autoencoder: Any = AutoencoderTiny
        unet: Any = UNet2DConditionModel
        self.vae: Any = autoencoder(**VAE_CONFIG)
        self.unet: Any = unet(**UNET_CONFIG)
        width = VAE_CONFIG["encoder_block_out_channels"][0]
        self.skip = nn.Conv2d(width, width, 1, bias=False)
        self.tokens = nn.Parameter(torch.randn(styles, TOKENS, TOKEN_WIDTH))

    def paint(self, pixels: Tensor, tokens: Tensor, noise: Tensor, strength: Tensor) -> Tensor:
        """One step.

        Args:
            pixels: Pictures, float N3HW of 0..1, H and W multiples of `MULTIPLE`.
            tokens: The styles' tokens, float N × TOKENS × TOKEN_WIDTH.
            noise: float N × NOISE_CHANNELS × H/4 × W/4.
            strength: How much of the U-Net's prediction is added, float N111; 1 is as trained,
                0 leaves the autoencoder alone.

        Returns:
            Styled pictures, float N3HW of about 0..1, not clipped.
        """
        # AutoencoderTiny's own forward would map from and to -1..1, and hides the first layer.
        first, *rest = self.vae.encoder.layers
        shallow = first(functional.pixel_unshuffle(pixels, FOLD))
        latent = shallow
        for layer in rest:
            latent = layer(latent)
        step = self.unet(torch.cat([latent, noise], 1), TIMESTEP, tokens, return_dict=False)[0]
        latent = torch.tanh((latent + strength * step) / 3) * 3
        *rest, last = self.vae.decoder.layers
        deep = latent
        for layer in rest:
            deep = layer(deep)
        # The rectifier lets the decoded latent decide which of the source's details come through.
        folded = last(functional.relu(deep + self.skip(shallow)))
        return functional.pixel_shuffle(folded, FOLD)

    def forward(self, image: Tensor, tokens: Tensor, noise: Tensor, strength: Tensor) -> Tensor:
        """`paint` from bytes to bytes.

        Args:
            image: uint8 NHW3, RGB.
            tokens: As in `paint`.
            noise: As in `paint`.
            strength: As in `paint`.

        Returns:
            uint8 NHW3, RGB.
        """
        dtype = self.tokens.dtype
        pixels = image.permute(0, 3, 1, 2).to(dtype) / 255
        painted = self.paint(pixels, tokens.to(dtype), noise.to(dtype), strength.to(dtype))
        # Clamped to just below 256, because the cast cuts off: this is rounding to the nearest.
        levels = (painted.float() * 255 + 0.5).clamp(0, 255.9)
        return levels.to(torch.uint8).permute(0, 2, 3, 1)

    def save(self, folder: Path) -> None:
        """Writes the weights in half precision, in diffusers' folders and `style/`."""
        style = {"tokens": self.tokens.detach(), "skip.weight": self.skip.weight.detach()}
        for name, part in (("vae", self.vae), ("unet", self.unet)):
            part.save_config(folder / name)
            _save_half(part.state_dict(), folder / name)
        _save_half(style, folder / "style")

    @classmethod
    def load(cls, folder: Path, *, dtype: torch.dtype = torch.float32) -> Network:
        """Reads what `save` wrote; evaluation mode, no gradients.

        Raises:
            OSError: A file is missing.
            ValueError: The folder's configuration is not this network's.
        """
        for name, ours in (("vae", VAE_CONFIG), ("unet", UNET_CONFIG)):
            theirs = json.loads((folder / name / "config.json").read_text())
            for key, value in ours.items():
                wanted = list(value) if isinstance(value, tuple) else value
                if theirs.get(key) != wanted:
                    raise ValueError(
                        f"{folder / name / 'config.json'}: {key} is {theirs.get(key)!r}, "
                        f"this network has {wanted!r}"
                    )
        extra = load_file(folder / "style" / FILE)
        network = cls(styles=len(extra["tokens"]))
        for name, part in (("vae", network.vae), ("unet", network.unet)):
            part.load_state_dict(load_file(folder / name / FILE))
        with torch.no_grad():
            network.tokens.copy_(extra["tokens"])
            network.skip.weight.copy_(extra["skip.weight"])
        return network.to(dtype).eval().requires_grad_(False)


def channels_last(network: Network) -> Network:
    """The same network with its weights laid out for convolutions on channels-last tensors."""
    module: Any = network
    moved: Network = module.to(memory_format=torch.channels_last)
    return moved


def _save_half(weights: dict[str, Tensor], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    half = {name: tensor.to(torch.float16).contiguous() for name, tensor in weights.items()}
    path = folder / FILE
    save_file(half, path, metadata={"format": "pt"})
    path.chmod(0o644)
