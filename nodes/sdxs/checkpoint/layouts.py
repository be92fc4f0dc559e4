"""Exact configurations of the SDXS models, as data: what a repository's JSON files would say.

Sources: the published configuration files of `IDKiro/sdxs-512-0.9` and `-dreamshaper`; where a
file was not to be had, a reconstruction that meets the published number of parameters (marked).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Config = dict[str, Any]

UNET_PARAMETERS = {
    "sdxs-512-0.9": 328_177_284,
    "sdxs-512-dreamshaper": 315_746_244,
    "sdxs-1024": 745_225_604,
}
SKETCH_PARAMETERS = 186_551_440
TINY_ENCODER_PARAMETERS = 1_222_532
TINY_DECODER_PARAMETERS = 1_222_531

_COMMON_UNET: Config = {
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (320, 640, 1280),
    "norm_num_groups": 32,
    "norm_eps": 1e-5,
    "act_fn": "silu",
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "downsample_padding": 1,
}

UNET_0_9: Config = {
    **_COMMON_UNET,
    "sample_size": 64,
    "layers_per_block": 1,
    "down_block_types": ("CrossAttnDownBlock2D",) * 3,
    "mid_block_type": None,
    "up_block_types": ("CrossAttnUpBlock2D",) * 3,
    "only_cross_attention": (True, False, False),
    # In diffusers this is the number of heads, not their width, and 8 at every resolution.
    "attention_head_dim": (8, 8, 8),
    "cross_attention_dim": 1024,
    "use_linear_projection": True,
}

UNET_DREAMSHAPER: Config = {
    **_COMMON_UNET,
    "sample_size": 64,
    "layers_per_block": 1,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "mid_block_type": None,
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "only_cross_attention": False,
    "attention_head_dim": 8,
    "cross_attention_dim": 768,
    "use_linear_projection": False,
}

UNET_1024: Config = {
    # A reconstruction in the shape of Segmind-Vega; SDXS-1024 was never released.
    **_COMMON_UNET,
    "sample_size": 128,
    "layers_per_block": 2,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "mid_block_type": "UNetMidBlock2D",
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 1, 2),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}

UNET_TINY: Config = {
    **UNET_DREAMSHAPER,
    "sample_size": 32,
    "block_out_channels": (32, 64, 96),
    "attention_head_dim": 4,
    "cross_attention_dim": 64,
}

TAESD: Config = {
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": 4,
    "encoder_block_out_channels": (64, 64, 64, 64),
    "decoder_block_out_channels": (64, 64, 64, 64),
    "num_encoder_blocks": (1, 3, 3, 3),
    "num_decoder_blocks": (3, 3, 3, 1),
    "act_fn": "relu",
    "upsampling_scaling_factor": 2,
    "latent_magnitude": 3,
    "latent_shift": 0.5,
    "scaling_factor": 1.0,
}

TAESD_TINY: Config = {
    **TAESD,
    "encoder_block_out_channels": (16, 16, 16, 16),
    "decoder_block_out_channels": (16, 16, 16, 16),
    "num_encoder_blocks": (1, 1, 1, 1),
    "num_decoder_blocks": (1, 1, 1, 1),
}

VAE_LARGE: Config = {
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "act_fn": "silu",
    "norm_num_groups": 32,
    "sample_size": 768,
    # The published file does not say; diffusers then takes this, as do its pipelines.
    "scaling_factor": 0.18215,
}

VAE_LARGE_TINY: Config = {**VAE_LARGE, "block_out_channels": (32, 32, 32, 32)}

# CLIP's special tokens; the published files say 0, 2 and 1, which transformers takes for "the
# highest token of the sequence", and that is the end token either way.
_CLIP: Config = {"vocab_size": 49408, "max_position_embeddings": 77, "bos_token_id": 49406}
_CLIP |= {"eos_token_id": 49407, "pad_token_id": 49407, "layer_norm_eps": 1e-5}

CLIP_L: Config = {
    **_CLIP,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "hidden_act": "quick_gelu",
    "projection_dim": 768,
}

OPENCLIP_H: Config = {
    **_CLIP,
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 23,
    "num_attention_heads": 16,
    "hidden_act": "gelu",
    "projection_dim": 512,
}

OPENCLIP_G: Config = {
    **_CLIP,
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "hidden_act": "gelu",
    "projection_dim": 1280,
}

CLIP_TINY: Config = {
    **_CLIP,
    # Bytes, bytes at the end of a word, start and end.
    "vocab_size": 514,
    "bos_token_id": 512,
    "eos_token_id": 513,
    "pad_token_id": 513,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "hidden_act": "quick_gelu",
    "projection_dim": 64,
}

BETAS: Config = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "epsilon",
}

EULER: Config = {**BETAS, "timestep_spacing": "trailing", "steps_offset": 1}

SCHEDULER_0_9: Config = {
    # The file of the repository, which calls itself Euler's; `model_index.json` says PNDM.
    **EULER,
    "clip_sample": False,
    "interpolation_type": "linear",
    "sample_max_value": 1.0,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "trained_betas": None,
    "use_karras_sigmas": False,
}

# A reconstruction: with it comes the step that other runtimes hard-code for this model.
SCHEDULER_DREAMSHAPER: Config = {**BETAS, "timestep_spacing": "trailing", "steps_offset": 1}


@dataclass(frozen=True)
class Layout:
    """All parts of one model: names of classes of diffusers and transformers, and their values.

    Attributes:
        unet: Of `UNet2DConditionModel`.
        vae: Of `AutoencoderTiny`.
        vae_large: Of `AutoencoderKL`.
        text_encoders: One or two CLIP text encoders, as (class, configuration).
        scheduler: Class and values of the scheduler that `from_pretrained` would make.
    """

    unet: Config
    vae: Config
    vae_large: Config
    text_encoders: tuple[tuple[str, Config], ...]
    scheduler: tuple[str, Config]
    published: bool = field(default=True, kw_only=True)


LAYOUTS: Mapping[str, Layout] = {
    "sdxs-512-0.9": Layout(
        unet=UNET_0_9,
        vae=TAESD,
        vae_large=VAE_LARGE,
        text_encoders=(("CLIPTextModel", OPENCLIP_H),),
        scheduler=("PNDMScheduler", SCHEDULER_0_9),
    ),
    "sdxs-512-dreamshaper": Layout(
        unet=UNET_DREAMSHAPER,
        vae=TAESD,
        vae_large=VAE_LARGE,
        text_encoders=(("CLIPTextModel", CLIP_L),),
        scheduler=("DEISMultistepScheduler", SCHEDULER_DREAMSHAPER),
    ),
    "sdxs-1024": Layout(
        unet=UNET_1024,
        vae=TAESD,
        vae_large={**VAE_LARGE, "sample_size": 1024, "scaling_factor": 0.13025},
        text_encoders=(
            ("CLIPTextModel", CLIP_L),
            ("CLIPTextModelWithProjection", OPENCLIP_G),
        ),
        scheduler=("EulerDiscreteScheduler", EULER),
        published=False,
    ),
    "tiny": Layout(
        unet=UNET_TINY,
        vae=TAESD_TINY,
        vae_large=VAE_LARGE_TINY,
        text_encoders=(("CLIPTextModel", CLIP_TINY),),
        scheduler=("DEISMultistepScheduler", SCHEDULER_DREAMSHAPER),
        published=False,
    ),
}


def control_for(unet: Mapping[str, Any]) -> Config:
    """The ControlNet that fits a U-Net: its own down half, with a middle block.

    The sketch ControlNet is that of `UNET_DREAMSHAPER`: it keeps a middle block with attention,
    though the U-Net has none (reconstructed from the size of its file).
    """
    down = tuple(unet["down_block_types"])
    config = {
        key: unet[key]
        for key in (
            *("in_channels", "block_out_channels", "layers_per_block", "norm_num_groups"),
            *("norm_eps", "act_fn", "flip_sin_to_cos", "freq_shift", "downsample_padding"),
            *("only_cross_attention", "attention_head_dim", "cross_attention_dim"),
            *("use_linear_projection", "transformer_layers_per_block", "addition_embed_type"),
            *("addition_time_embed_dim", "projection_class_embeddings_input_dim"),
        )
        if unet.get(key) is not None
    }
    return {
        **config,
        "down_block_types": down,
        "mid_block_type": unet.get("mid_block_type") or "UNetMidBlock2DCrossAttn",
        "conditioning_embedding_out_channels": tuple(
            # 16, 32, 96 and 256 beside 320, in every ControlNet; narrow U-Nets get narrow ones.
            -(-unet["block_out_channels"][0] * share // 160) * 8
            for share in (1, 2, 6, 16)
        ),
    }
