"""The teachers' configurations, as their published files say, and the Vega shape.

Stable Diffusion 1.5 (`unet/config.json` of stable-diffusion-v1-5), 2.1-base, and Segmind-Vega, a
compact SDXL that SDXS-1024 was initialised from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nodes.sdxs.checkpoint import layouts
from nodes.sdxs.distill.removal import student_config

Config = dict[str, Any]

_COMMON: Config = {
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2,
    "down_block_types": (*("CrossAttnDownBlock2D",) * 3, "DownBlock2D"),
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "up_block_types": ("UpBlock2D", *("CrossAttnUpBlock2D",) * 3),
    "norm_num_groups": 32,
    "norm_eps": 1e-5,
    "act_fn": "silu",
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "downsample_padding": 1,
    "sample_size": 64,
}

SD15: Config = {**_COMMON, "cross_attention_dim": 768, "attention_head_dim": 8}
SD21: Config = {
    **_COMMON,
    "cross_attention_dim": 1024,
    "attention_head_dim": (5, 10, 20, 20),
    "use_linear_projection": True,
}


@dataclass(frozen=True)
class Teacher:
    """What a full training starts from.

    Attributes:
        unet: The teacher's U-Net, which is the offline score network, too.
        student: The student's U-Net.
        vae: The teacher's autoencoder.
        text_encoders: As in `nodes.sdxs.checkpoint.layouts`.
        resolution: Pixels along a side.
        repository: Where its weights are published.
    """

    unet: Config
    student: Config
    vae: Config
    text_encoders: tuple[tuple[str, Config], ...]
    resolution: int
    repository: str


TEACHERS: Mapping[str, Teacher] = {
    "sd15": Teacher(
        unet=SD15,
        student=student_config(SD15),
        vae=layouts.VAE_LARGE,
        text_encoders=(("CLIPTextModel", layouts.CLIP_L),),
        resolution=512,
        repository="stable-diffusion-v1-5/stable-diffusion-v1-5",
    ),
    "sd21": Teacher(
        unet=SD21,
        student=student_config(SD21),
        vae=layouts.VAE_LARGE,
        text_encoders=(("CLIPTextModel", layouts.OPENCLIP_H),),
        resolution=512,
        repository="stabilityai/stable-diffusion-2-1-base",
    ),
    "vega": Teacher(
        # Vega is small already: the paper initialises both score networks and the student by it.
        unet=layouts.UNET_1024,
        student=layouts.UNET_1024,
        vae={**layouts.VAE_LARGE, "sample_size": 1024, "scaling_factor": 0.13025},
        text_encoders=(
            ("CLIPTextModel", layouts.CLIP_L),
            ("CLIPTextModelWithProjection", layouts.OPENCLIP_G),
        ),
        resolution=1024,
        repository="segmind/Segmind-Vega",
    ),
}
