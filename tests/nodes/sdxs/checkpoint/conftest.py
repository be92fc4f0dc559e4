"""Small checkpoints in diffusers' layouts, written by diffusers, and its own pipelines on them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

Config = dict[str, Any]

CHANNELS = (32, 64)
"""Two resolutions keep the tests quick; sides are halved once."""

SCHEDULE: Config = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "timestep_spacing": "trailing",
    "prediction_type": "epsilon",
    "steps_offset": 1,
    "skip_prk_steps": True,
    "set_alpha_to_one": False,
}

UNETS: dict[str, Config] = {
    # No attention at the finest resolution, as DreamShaper's.
    "1": {
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "mid_block_type": None,
        "layers_per_block": 1,
        "attention_head_dim": 4,
        "cross_attention_dim": 32,
    },
    # Attention everywhere, none to itself at the finest resolution, as 0.9's.
    "2": {
        "down_block_types": ("CrossAttnDownBlock2D",) * 2,
        "up_block_types": ("CrossAttnUpBlock2D",) * 2,
        "mid_block_type": None,
        "layers_per_block": 1,
        "only_cross_attention": (True, False),
        "attention_head_dim": (4, 4),
        "cross_attention_dim": 48,
        "use_linear_projection": True,
    },
    # A middle block, two layers and added embeddings, as SDXL's.
    "xl": {
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "mid_block_type": "UNetMidBlock2D",
        "layers_per_block": 2,
        "attention_head_dim": (2, 4),
        "transformer_layers_per_block": (1, 2),
        "cross_attention_dim": 32 + 48,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 6 * 8 + 24,
    },
}

Write = Callable[..., Path]


def random_weights(module: torch.nn.Module, seed: int) -> None:
    """Every parameter drawn, those too that diffusers starts at zero."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        drawn = torch.randn(parameter.shape, generator=generator) * 0.1
        if parameter.ndim >= 2:
            drawn /= 0.1 * parameter[0].numel() ** 0.5
        elif name.endswith("weight"):
            drawn += 1
        parameter.data.copy_(drawn)


def text_encoder(width: int, *, projection: int | None = None, seed: int = 0) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=4,
        vocab_size=520,
        bos_token_id=518,
        eos_token_id=519,
        pad_token_id=519,
        projection_dim=projection or 16,
    )
    torch.manual_seed(seed)
    return (CLIPTextModelWithProjection if projection else CLIPTextModel)(config).eval()


def tokenizer(folder: Path, *, pad: str = "<|endoftext|>") -> Any:
    """CLIP's byte-level tokenizer with a few merges, read back from files of the old format."""
    from transformers import CLIPTokenizer

    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = [chr(byte) for byte in plain] + [chr(256 + number) for number in range(68)]
    merges = [
        ("c", "a"),
        ("s", "t"),
        ("ca", "st"),
        ("l", "e</w>"),
        ("cast", "le</w>"),
        ("a", "t</w>"),
    ]
    words = [*letters, *(f"{letter}</w>" for letter in letters), *map("".join, merges)]
    words += ["<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps({word: n for n, word in enumerate(words)}))
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n")
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "pad_token": pad})
    )
    return CLIPTokenizer.from_pretrained(folder)


def unet_of(layout: str, seed: int = 1) -> Any:
    from diffusers import UNet2DConditionModel

    made = UNet2DConditionModel(
        sample_size=16, block_out_channels=CHANNELS, norm_num_groups=8, **UNETS[layout]
    )
    random_weights(made, seed)
    return made.eval()


def tiny_vae() -> Any:
    from diffusers import AutoencoderTiny

    made = AutoencoderTiny(
        encoder_block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 8, 8, 8),
        num_encoder_blocks=(1, 1, 1, 1),
        num_decoder_blocks=(1, 1, 1, 1),
    )
    random_weights(made, 2)
    return made.eval()


def large_vae(**more: Any) -> Any:
    from diffusers import AutoencoderKL

    made = AutoencoderKL(
        block_out_channels=(8, 8, 16, 16),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
        norm_num_groups=4,
        **more,
    )
    random_weights(made, 3)
    return made.eval()


@pytest.fixture(scope="session")
def write(tmp_path_factory: pytest.TempPathFactory) -> Write:
    """Writes a checkpoint by diffusers' `save_pretrained`, once for each kind; gives its folder."""
    made: dict[tuple[Any, ...], Path] = {}

    def write(
        layout: str = "1", scheduler: str = "EulerDiscreteScheduler", vae: str = "tiny", **more: Any
    ) -> Path:
        key = (layout, scheduler, vae, *sorted(more.items()))
        if key not in made:
            made[key] = tmp_path_factory.mktemp("checkpoint")
            _write(made[key], layout, scheduler, vae, more)
        return made[key]

    return write


def _write(folder: Path, layout: str, scheduler: str, vae: str, more: Config) -> None:
    import diffusers

    steps = getattr(diffusers, scheduler).from_config({**SCHEDULE, **more})
    decoder = tiny_vae() if vae == "tiny" else large_vae()
    parts: dict[str, Any] = {"unet": unet_of(layout), "vae": decoder, "scheduler": steps}
    first = text_encoder(48 if layout == "2" else 32)
    tokens = tokenizer(folder / "tokenizer", pad="!" if layout == "2" else "<|endoftext|>")
    parts |= {"text_encoder": first, "tokenizer": tokens}
    if layout == "xl":
        parts["text_encoder_2"] = text_encoder(48, projection=24, seed=1)
        parts["tokenizer_2"] = tokenizer(folder / "tokenizer_2", pad="!")
        pipeline = diffusers.StableDiffusionXLPipeline(**parts, add_watermarker=False)
    else:
        pipeline = diffusers.StableDiffusionPipeline(
            **parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False
        )
    pipeline.save_pretrained(folder)


@pytest.fixture(scope="session")
def control(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Writes a ControlNet that fits a layout's U-Net, with a middle block in any case."""
    made: dict[tuple[str, int], Path] = {}

    def write(layout: str = "1", seed: int = 5) -> Path:
        from diffusers import ControlNetModel

        if (layout, seed) not in made:
            own = {k: v for k, v in UNETS[layout].items() if k != "up_block_types"}
            own["mid_block_type"] = "UNetMidBlock2DCrossAttn"
            net = ControlNetModel(
                block_out_channels=CHANNELS,
                norm_num_groups=8,
                conditioning_embedding_out_channels=(8, 8, 16, 16),
                **own,
            )
            random_weights(net, seed)
            made[layout, seed] = tmp_path_factory.mktemp("control")
            net.save_pretrained(made[layout, seed])
        return made[layout, seed]

    return write


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Small networks are quicker alone, and the more so where others compute beside them."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
