"""Which files a repository in diffusers' layout has; names only, nothing is read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

DIFFUSERS_FILE = "diffusion_pytorch_model"
PEFT_CONFIG = "adapter_config.json"
PEFT_FILES = ("adapter_model.safetensors", "adapter_model.bin")
LORA_FILES = ("pytorch_lora_weights.safetensors", "pytorch_lora_weights.bin")


def weight_files(folder: str, stem: str) -> tuple[str, ...]:
    """Names that weights can have, the best first: safetensors, then pickles, full precision first.

    Args:
        folder: Subfolder, or empty.
        stem: Name without ending, as `diffusion_pytorch_model`.
    """
    start = f"{folder}/" if folder else ""
    pickled = "pytorch_model" if stem == "model" else stem
    return tuple(
        f"{start}{name}"
        for name in (
            f"{stem}.safetensors",
            f"{stem}.fp16.safetensors",
            f"{pickled}.bin",
            f"{pickled}.fp16.bin",
        )
    )


def required(index: Mapping[str, Any], *, vae_folder: str) -> list[tuple[str, ...]]:
    """The files that a model's repository must have, each as candidates, the best first.

    Args:
        index: What `model_index.json` says.
        vae_folder: Where the decoder is.
    """
    files: list[tuple[str, ...]] = [
        ("model_index.json",),
        ("scheduler/scheduler_config.json",),
        ("unet/config.json",),
        weight_files("unet", DIFFUSERS_FILE),
        (f"{vae_folder}/config.json",),
        weight_files(vae_folder, DIFFUSERS_FILE),
    ]
    for suffix in text_suffixes(index):
        encoder, tokenizer = f"text_encoder{suffix}", f"tokenizer{suffix}"
        files += [
            (f"{encoder}/config.json",),
            weight_files(encoder, "model"),
            (f"{tokenizer}/vocab.json",),
            (f"{tokenizer}/merges.txt",),
        ]
    return files


def text_suffixes(index: Mapping[str, Any]) -> tuple[str, ...]:
    """Endings of the folders of the text encoders: one, or two for the shape of SDXL."""
    return ("", "_2") if component_class(index, "text_encoder_2") else ("",)


def component_class(index: Mapping[str, Any], name: str) -> str | None:
    """The class that `model_index.json` names for a part; None if it names none."""
    entry = index.get(name)
    if isinstance(entry, list) and len(entry) == 2 and isinstance(entry[1], str):
        return entry[1]
    return None
