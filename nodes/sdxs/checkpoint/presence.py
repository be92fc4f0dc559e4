"""Whether all files of a model are on this machine; instant, and no weights are read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from nodes.sdxs.checkpoint.files import (
    DIFFUSERS_FILE,
    LORA_FILES,
    PEFT_CONFIG,
    component_class,
    required,
    weight_files,
)
from nodes.sdxs.checkpoint.source import Source
from nodes.sdxs.names import Lora, ModelName


def demand(
    model: str | Path,
    *,
    control: Iterable[str | Path] = (),
    lora: Iterable[Lora] = (),
    vae: str = "tiny",
) -> None:
    """Checks the files of a checkpoint, as loading it would, without torch.

    Args:
        model: As for `OneStep.load`; not one in the bundled one's layout.
        control: ControlNets.
        lora: Adapters.
        vae: `"tiny"` or `"large"`.

    Raises:
        MissingFilesError: Some are missing.
        ValueError: The model's index names parts that this engine does not run.
    """
    name = ModelName.parse(model)
    if name.kind != "random":
        model_files(Source(name), vae=vae)
    for one in control:
        net = ModelName.parse_part(one, "control")
        if net.kind != "random":
            control_files(Source(net))
    for adapter in lora:
        found = ModelName.parse_part(adapter.source, "lora")
        if not (found.kind == "folder" and Path(found.id).is_file()):
            adapter_files(Source(found))


def model_files(source: Source, *, vae: str) -> tuple[dict[str, Any], str]:
    """What a model's index says, and the folder of its decoder; all files are there.

    Raises:
        MissingFilesError: Some are missing.
        ValueError: The index names parts that this engine does not run.
    """
    if source.find("model_index.json") is None:
        # Nothing is known of it, then: these are the files of a model with one text encoder.
        source.need_all(required({}, vae_folder="vae" if vae == "tiny" else "vae_large"))
    index = source.read("model_index.json")
    _check_index(source, index)
    folder = _vae_folder(source, index, vae)
    source.need_all(required(index, vae_folder=folder))
    return index, folder


def control_files(source: Source) -> None:
    """Checks the files of a ControlNet; raises MissingFilesError."""
    source.need_all([("config.json",), weight_files("", DIFFUSERS_FILE)])


def adapter_files(source: Source) -> None:
    """Checks that there is an adapter in one of the known layouts; raises MissingFilesError."""
    source.need(PEFT_CONFIG, *LORA_FILES)


def _check_index(source: Source, index: Mapping[str, Any]) -> None:
    for part, kinds in (
        ("unet", ("UNet2DConditionModel",)),
        ("text_encoder", ("CLIPTextModel",)),
        ("text_encoder_2", ("CLIPTextModelWithProjection",)),
        ("tokenizer", ("CLIPTokenizer", "CLIPTokenizerFast")),
        ("tokenizer_2", ("CLIPTokenizer", "CLIPTokenizerFast")),
    ):
        kind = component_class(index, part)
        if kind is None and part.endswith("_2"):
            continue
        if kind not in kinds:
            raise ValueError(
                f"{source}: model_index.json must name {kinds[0]} as {part}, not {kind!r}: only "
                "models in the shape of Stable Diffusion 1, 2 and XL can be run"
            )


def _vae_folder(source: Source, index: Mapping[str, Any], vae: str) -> str:
    """Where the decoder is: `vae`, or `vae_large` beside a tiny one."""
    kind = component_class(index, "vae")
    if kind == "AutoencoderTiny":
        return "vae" if vae == "tiny" else "vae_large"
    if kind == "AutoencoderKL":
        if vae == "large":
            return "vae"
        raise ValueError(
            f"{source} has no tiny decoder, its vae is an AutoencoderKL: set vae: large"
        )
    raise ValueError(
        f"{source}: model_index.json must name AutoencoderTiny or AutoencoderKL as vae, "
        f"not {kind!r}"
    )
