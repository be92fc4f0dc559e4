"""The bundled network: SDXS in small, out of diffusers' own classes.

`AutoencoderTiny` → `UNet2DConditionModel` without a middle block, one step at t = 999 →
`AutoencoderTiny`. Three things differ from a text-to-image student:

- The encoded picture takes the place of the noise at t = 999 and the U-Net predicts what to add to
  it, as in pix2pix-turbo (Parmar et al., "One-Step Image Translation with Text-to-Image Models",
  2024); a few channels of fixed noise lie beside it.
- One skip connection leads from the encoder's first layer to the decoder's last, so that thin
  lines do not have to pass through the latent.
- Text is a fixed vocabulary: each style is a short sequence of learnt tokens.

After the skip connection there may be residual blocks that draw what both have brought together.

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


def vae_config(finish: int) -> dict[str, Any]:
    """The autoencoder's configuration.

    Args:
        finish: Residual blocks between the skip connection and the picture.
    """
    return {**VAE_CONFIG, "num_decoder_blocks": (VAE_CONFIG["num_decoder_blocks"][0], finish)}


class Network(nn.Module):
    """Encoder, one U-Net step, decoder, the skip connection and the styles' tokens.

    Args:
        styles: How many styles the vocabulary has.
        finish: Residual blocks between the skip connection and the picture.
    """

    def __init__(self, styles: int, *, finish: int = 0) -> None:
        super().__init__()
        # diffusers has no types.
        autoencoder: Any = AutoencoderTiny
        unet: Any = UNet2DConditionModel
        self.vae: Any = autoencoder(**vae_config(finish))
        self.unet: Any = unet(**UNET_CONFIG)
        layers = self.vae.decoder.layers
        # After the upsampling and the convolution that follows it.
        self.joint = next(n for n, one in enumerate(layers) if isinstance(one, nn.Upsample)) + 2
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
        shallow, latent = self.encode(pixels)
        step = self.unet(torch.cat([latent, noise], 1), TIMESTEP, tokens, return_dict=False)[0]
        return self.decode(squash(latent + strength * step), shallow)

    def encode(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """The first layer's features, and the latent that the rest makes of them.

        Args:
            pixels: As in `paint`.

        Returns:
            float N × width × H/2 × W/2, and float N × latent channels × H/4 × W/4.
        """
        # AutoencoderTiny's own forward would map from and to -1..1, and hides the first layer.
        first, *rest = self.vae.encoder.layers
        shallow = first(functional.pixel_unshuffle(pixels, FOLD))
        latent = shallow
        for layer in rest:
            latent = layer(latent)
        return shallow, latent

    def decode(self, latent: Tensor, shallow: Tensor) -> Tensor:
        """A picture from a latent, with the details of the picture that `shallow` is of.

        Args:
            latent: float N × latent channels × H/4 × W/4, squashed.
            shallow: The first layer's features, from `encode`.

        Returns:
            As `paint`.
        """
        *layers, last = self.vae.decoder.layers
        joint = self.joint
        deep = latent
        for layer in layers[:joint]:
            deep = layer(deep)
        # The rectifier lets the decoded latent decide which of the source's details come through.
        deep = functional.relu(deep + self.skip(shallow))
        for layer in layers[joint:]:
            deep = layer(deep)
        return functional.pixel_shuffle(last(deep), FOLD)

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
        finish = 0
        for name, ours in (("vae", VAE_CONFIG), ("unet", UNET_CONFIG)):
            theirs = json.loads((folder / name / "config.json").read_text())
            if name == "vae":
                finish = int(theirs["num_decoder_blocks"][-1])
                ours = vae_config(finish)
            for key, value in ours.items():
                wanted = list(value) if isinstance(value, tuple) else value
                if theirs.get(key) != wanted:
                    raise ValueError(
                        f"{folder / name / 'config.json'}: {key} is {theirs.get(key)!r}, "
                        f"this network has {wanted!r}"
                    )
        extra = load_file(folder / "style" / FILE)
        network = cls(styles=len(extra["tokens"]), finish=finish)
        for name, part in (("vae", network.vae), ("unet", network.unet)):
            part.load_state_dict(load_file(folder / name / FILE))
        with torch.no_grad():
            network.tokens.copy_(extra["tokens"])
            network.skip.weight.copy_(extra["skip.weight"])
        return network.to(dtype).eval().requires_grad_(False)


def squash(latent: Tensor) -> Tensor:
    """Keeps a latent within ±3, as `AutoencoderTiny`'s decoder does."""
    return torch.tanh(latent / 3) * 3


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
