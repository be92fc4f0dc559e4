"""A replica of StreamDiffusion's published benchmark loop, to be measured against in the same run.

It does for each picture what `examples/benchmark/single.py` of cumulo-autumn/StreamDiffusion does
(read at b623251): a PIL picture becomes numbers from -1 to 1 on the host, goes to the GPU, through
the TAESD encoder, gets noise, passes the U-Net once, is decoded by TAESD, comes back in half
precision and becomes a PIL picture on the host; everything that only depends on prompt and
schedule is made before. The U-Net has the exact shape of SD-Turbo and random weights. What that
project can add, TensorRT and a filter that skips similar pictures, is left out. The code is our
own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

_TEXT_LENGTH: Final = 77
_TIME: Final = 999
"""SD-Turbo's first and only time step"""

SD_TURBO: Final = {
    "sample_size": 64,
    "cross_attention_dim": 1024,
    "attention_head_dim": (5, 10, 20, 20),
    "use_linear_projection": True,
}
"""U-Net of SD 2.1 and SD-Turbo: 865,910,724 parameters"""
TINY: Final = {
    **SD_TURBO,
    "cross_attention_dim": 32,
    "attention_head_dim": (1, 2, 4, 4),
    "block_out_channels": (32, 32, 64, 64),
    "layers_per_block": 1,
}
"""likewise, for trials"""


@dataclass(frozen=True, slots=True)
class _Schedule:
    """Factors at the one time step, 1 × 1 × 1 × 1."""

    signal: Tensor
    noise: Tensor


class StreamDiffusionLoop:
    """One step from picture to picture.

    Args:
        config: of the U-Net: `SD_TURBO` or `TINY`.
        side: of the pictures, pixels.
        device: where the networks run.
        dtype: their arithmetic.
    """

    def __init__(
        self, config: dict[str, Any], *, side: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        import diffusers

        models: Any = diffusers
        torch.manual_seed(0)
        # Drawn on the CPU: a recording that failed before in this process leaves the GPU's random
        # numbers unusable.
        self.unet: Any = models.UNet2DConditionModel(**config).eval()
        self.vae: Any = models.AutoencoderTiny().eval()
        for net in (self.unet, self.vae):
            # Not diffusers' own `to`, which warns of modules that must stay in float32: none.
            nn.Module.to(net, device=device, dtype=dtype)
        self._device, self._dtype = device, dtype
        self._side = side
        width = config["cross_attention_dim"]
        generator = torch.Generator().manual_seed(1)

        def drawn(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator).to(device, dtype)

        self._prompt = drawn(1, _TEXT_LENGTH, width)
        self._noise = drawn(1, 4, side // 8, side // 8)
        self._time = torch.tensor([_TIME], device=device)
        self._schedule = _at(_TIME, device, dtype)

    @torch.inference_mode()
    def __call__(self, picture: Image.Image) -> Image.Image:
        """One picture of the size that was told to one of the same size."""
        shown = picture.convert("RGB").resize((self._side, self._side))
        levels = np.asarray(shown).astype(np.float32) / 255.0
        entering = torch.from_numpy(levels.transpose(2, 0, 1))[None] * 2.0 - 1.0
        entering = entering.to(self._device, self._dtype)
        clean = self.vae.encode(entering).latents * self.vae.config.scaling_factor
        noisy = self._schedule.signal * clean + self._schedule.noise * self._noise
        predicted = self.unet(
            noisy, self._time, encoder_hidden_states=self._prompt, return_dict=False
        )[0]
        clean = (noisy - self._schedule.noise * predicted) / self._schedule.signal
        decoded = self.vae.decode(clean / self.vae.config.scaling_factor, return_dict=False)[0]
        # To the host in half precision, and to bytes there, as published.
        leaving = decoded.cpu()
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        leaving = (leaving / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).float()
        return Image.fromarray((leaving.numpy()[0] * 255).round().astype(np.uint8))


def _at(time: int, device: torch.device, dtype: torch.dtype) -> _Schedule:
    """Factors of Stable Diffusion's schedule, scaled-linear from 0.00085 to 0.012."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    kept = torch.cumprod(1 - betas, 0)[time]
    signal, noise = (one.sqrt().reshape(1, 1, 1, 1).to(device, dtype) for one in (kept, 1 - kept))
    return _Schedule(signal, noise)
