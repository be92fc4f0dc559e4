"""What is refused when a model is loaded, and the old ways of writing one that are understood."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from nodes.sdxs import OneStep
from nodes.sdxs.checkpoint.engine import CheckpointOneStep
from nodes.sdxs.checkpoint.source import MissingFilesError

Write = Callable[..., Path]

UNET = "unet/diffusion_pytorch_model.safetensors"
SIZE = 64


@pytest.fixture
def folder(write: Write, tmp_path: Path) -> Path:
    """A checkpoint to be spoiled."""
    return shutil.copytree(write("1", "PNDMScheduler"), tmp_path / "model")


def latents(folder: Path, **more: Any) -> torch.Tensor:
    engine = OneStep.load(folder, **more)
    assert isinstance(engine, CheckpointOneStep)
    engine.prompt = "a castle"
    return engine.latents(SIZE, SIZE)


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_missing_unexpected_and_misshapen_tensors_are_named(folder: Path) -> None:
    tensors = load_file(folder / UNET)
    del tensors["conv_in.bias"]
    tensors["conv_out.scale"] = torch.zeros(1)
    tensors["conv_out.weight"] = torch.zeros(4, 32, 1, 1)
    save_file(tensors, folder / UNET)
    with pytest.raises(ValueError, match="do not fit the configuration beside them") as caught:
        OneStep.load(folder)
    message = str(caught.value)
    assert str(folder / UNET) in message
    assert "1 missing (conv_in.bias)" in message
    assert "1 unexpected (conv_out.scale)" in message
    assert "1 of another shape (conv_out.weight is 4×32×1×1 instead of 4×32×3×3)" in message
    assert "\n" not in message


def test_of_many_tensors_the_first_few_are_named(folder: Path) -> None:
    tensors = load_file(folder / UNET)
    save_file(
        {name: one for name, one in tensors.items() if "up_blocks" not in name}, folder / UNET
    )
    absent = sum("up_blocks" in name for name in tensors)
    with pytest.raises(
        ValueError, match=rf"{absent} missing \(up_blocks\.[^,]+(, [^,]+){{3}}, …\)"
    ):
        OneStep.load(folder)


def test_another_configuration_than_the_weights_is_refused(folder: Path) -> None:
    change(folder / "unet/config.json", block_out_channels=[32, 96])
    with pytest.raises(ValueError, match="of another shape"):
        OneStep.load(folder)


@pytest.mark.parametrize("part", ["unet", "vae"])
def test_weights_may_be_a_pickle_of_tensors(folder: Path, part: str) -> None:
    expected = latents(folder)
    path = folder / part / "diffusion_pytorch_model.safetensors"
    torch.save(load_file(path), path.with_suffix(".bin"))
    path.unlink()
    # Not to the bit: the tensors lie elsewhere in memory, and sums are taken in another order.
    assert float((latents(folder) - expected).abs().max()) < 1e-4


def test_safetensors_are_preferred_to_a_pickle(folder: Path) -> None:
    (folder / UNET).with_suffix(".bin").write_bytes(b"not even a pickle")
    assert latents(folder).std() > 1


class Harmful:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("harmed"),))


def test_a_pickle_that_would_run_code_is_refused_unread(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (folder / UNET).unlink()
    torch.save({"conv_in.weight": Harmful()}, (folder / UNET).with_suffix(".bin"))
    with pytest.raises(ValueError, match="is damaged, or would run code when it is read"):
        OneStep.load(folder)
    assert not (tmp_path / "harmed").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"conv_in.weight": 1.0}, "holds more than tensors: conv_in.weight"),
        ([torch.zeros(1)], "holds a list, not tensors by name"),
    ],
)
def test_a_pickle_of_something_else_is_refused(folder: Path, content: Any, message: str) -> None:
    (folder / UNET).unlink()
    torch.save(content, (folder / UNET).with_suffix(".bin"))
    with pytest.raises(ValueError, match=message):
        OneStep.load(folder)


def test_damaged_files_are_named(folder: Path) -> None:
    whole = (folder / UNET).read_bytes()
    (folder / UNET).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=rf"{UNET} cannot be read as safetensors"):
        OneStep.load(folder)
    (folder / "unet/config.json").write_text("{")
    with pytest.raises(ValueError, match=r"unet/config\.json is not JSON"):
        OneStep.load(folder)


def test_missing_files_are_named_all_at_once(folder: Path) -> None:
    (folder / UNET).unlink()
    (folder / "tokenizer/merges.txt").unlink()
    with pytest.raises(
        MissingFilesError,
        match=r"lacks unet/diffusion_pytorch_model\.safetensors, tokenizer/merges\.txt; ",
    ):
        OneStep.load(folder)


@pytest.mark.parametrize(
    ("file", "values", "message"),
    [
        ("model_index.json", {"unet": ["x", "Flux"]}, "must name UNet2DConditionModel as unet"),
        (
            "model_index.json",
            {"vae": ["x", "VQModel"]},
            "must name AutoencoderTiny or AutoencoderKL",
        ),
        ("model_index.json", {"scheduler": ["x", "LCMScheduler"]}, "LCMScheduler is not supported"),
        ("unet/config.json", {"_class_name": "VQModel"}, "describes a VQModel, not a UNet2DCond"),
        ("unet/config.json", {"block_out_channels": [32]}, "is refused by diffusers: Must provide"),
        ("unet/config.json", {"time_cond_proj_dim": 64}, "of another shape|missing|has time_cond"),
        ("unet/config.json", {"center_input_sample": True}, "has center_input_sample True"),
    ],
)
def test_models_of_other_kinds_are_refused(
    folder: Path, file: str, values: dict[str, Any], message: str
) -> None:
    change(folder / file, **values)
    with pytest.raises(ValueError, match=message):
        OneStep.load(folder)


def test_decoders_that_are_not_there_are_refused(write: Write, folder: Path) -> None:
    with pytest.raises(MissingFilesError, match=r"lacks vae_large/config\.json"):
        OneStep.load(folder, vae="large")
    with pytest.raises(ValueError, match=r"has no tiny decoder, .* set vae: large"):
        OneStep.load(write("1", "PNDMScheduler", "large"))


def test_a_large_decoder_beside_the_tiny_one(write: Write, folder: Path) -> None:
    """As the published repositories have it: without scaling_factor, and with early names."""
    large = write("1", "PNDMScheduler", "large") / "vae"
    shutil.copytree(large, folder / "vae_large")
    config = json.loads((folder / "vae_large/config.json").read_text())
    del config["scaling_factor"]
    (folder / "vae_large/config.json").write_text(json.dumps(config))
    path = folder / "vae_large/diffusion_pytorch_model.safetensors"
    early = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    tensors = load_file(path)
    for name in list(tensors):
        for new, old in early.items():
            if f"attentions.0.{new}." in name:
                tensors[name.replace(new, old)] = tensors.pop(name)
    assert any("attentions.0.query" in name for name in tensors)
    save_file(tensors, path)
    engine = OneStep.load(folder, vae="large")
    plain = OneStep.load(write("1", "PNDMScheduler", "large"), vae="large")
    blank = np.zeros((SIZE, SIZE, 3), np.uint8)
    assert engine.network.scaling_factor == 0.18215  # type: ignore[attr-defined]
    assert np.array_equal(engine(blank), plain(blank))
    assert not np.array_equal(engine(blank), OneStep.load(folder)(blank))


@pytest.mark.parametrize("layout", ["1", "xl"])
def test_text_encoders_of_every_version_are_understood(
    write: Write, tmp_path: Path, layout: str
) -> None:
    """The names' prefix came and went, and early files hold positions."""
    folder = shutil.copytree(write(layout, "PNDMScheduler"), tmp_path / "model")
    expected = latents(folder)
    path = folder / "text_encoder/model.safetensors"
    tensors = load_file(path)
    bare = {name.removeprefix("text_model."): one for name, one in tensors.items()}
    positions = {"text_model.embeddings.position_ids": torch.arange(77)[None]}
    prefixed = {f"text_model.{name}": one for name, one in bare.items()}
    for written in (bare, prefixed, prefixed | positions):
        save_file({name: one.clone() for name, one in written.items()}, path)
        assert torch.equal(latents(folder), expected)


def test_controlnets_of_other_models_are_refused(write: Write, control: Write) -> None:
    folder = write("1", "PNDMScheduler")
    with pytest.raises(ValueError, match="it takes text of width 48, the U-Net 32"):
        OneStep.load(folder, control=control("2"))
    with pytest.raises(ValueError, match=r"describes a UNet2DConditionModel, not a ControlNet"):
        OneStep.load(folder, control=folder / "unet")


def test_a_controlnet_of_another_depth_is_refused(
    write: Write, control: Write, tmp_path: Path
) -> None:
    import diffusers

    net = diffusers.ControlNetModel.from_pretrained(control("1"))
    deeper = diffusers.ControlNetModel(**{**net.config, "layers_per_block": 2})
    deeper.save_pretrained(tmp_path)
    with pytest.raises(
        ValueError, match=r"it gives 7 residuals .* the U-Net takes 5 .* those of Stable Diffusion"
    ):
        OneStep.load(write("1", "PNDMScheduler"), control=tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"vae": "huge"}, "unknown vae 'huge'; known are tiny and large"),
        ({"backend": "openvino"}, "published checkpoints run on the torch backend"),
        ({"dtype": "int8"}, "unknown dtype 'int8'"),
        ({"threads": 0}, "threads must be at least 1, not 0"),
        ({"device": "toaster"}, "unknown device 'toaster'"),
        ({"text_encoder": "lose"}, "unknown text_encoder 'lose'"),
    ],
)
def test_arguments_are_checked(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OneStep.load("random:tiny", **arguments)


@pytest.mark.parametrize("what", ["control", "lora"])
def test_the_bundled_model_takes_neither_control_nor_adapters(what: str) -> None:
    with pytest.raises(ValueError, match=f"model bundled takes no {what}"):
        OneStep.load("bundled", **{what: ["random"]})  # type: ignore[arg-type]


def test_a_time_that_is_not_taken_is_told(write: Write, caplog: pytest.LogCaptureFixture) -> None:
    folder = write("1", "DEISMultistepScheduler", timestep_spacing="leading")
    with caplog.at_level(logging.WARNING):
        OneStep.load(folder)
    assert "would take its one step at t = 501" in caplog.text
    trailing = write("1", "DEISMultistepScheduler")
    assert torch.equal(latents(folder), latents(trailing))


def test_a_size_that_does_not_suit_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    engine = OneStep.load("random:tiny")
    small = np.zeros((64, 64, 3), np.uint8)
    with caplog.at_level(logging.WARNING):
        engine(small)
        engine(small)
        engine(np.zeros((256, 256, 3), np.uint8))
    assert [record.getMessage() for record in caplog.records] == [
        "model random:tiny was made for 256x256 pixels and looks worse at 64x64; put a preprocess "
        "node with size 256x256 before it (`streamer style`: --size 256x256)"
    ]


def test_pictures_are_checked(write: Write, control: Write) -> None:
    plain = OneStep.load(write("1", "PNDMScheduler"))
    picture = np.zeros((SIZE, SIZE, 3), np.uint8)
    with pytest.raises(ValueError, match="was loaded without a ControlNet"):
        plain(picture, control=picture)
    with pytest.raises(ValueError, match="multiples of 8, not 60x64"):
        plain(np.zeros((64, 60, 3), np.uint8))
    steered = OneStep.load(write("1", "PNDMScheduler"), control=control("1"))
    with pytest.raises(ValueError, match=r"control must be uint8 of shape \(64, 64, 3\)"):
        steered(picture, control=picture[:32])
    with pytest.raises(ValueError, match="2 control pictures for 1 ControlNets"):
        steered.latents(  # type: ignore[attr-defined]
            SIZE, SIZE, control=[torch.from_numpy(picture)[None]] * 2
        )


def test_each_stage_is_told_with_how_many_there_are() -> None:
    told: list[tuple[str, int, int]] = []

    def note(text: str, *, done: int = 0, of: int = 0) -> None:
        told.append((text, done, of))

    OneStep.load("random:tiny", control=["random", "random"], note=note)
    assert told == [
        ("drawing the U-Net", 0, 6),
        ("drawing the decoder", 1, 6),
        ("loading the ControlNet random", 2, 6),
        ("loading the ControlNet random", 3, 6),
        ("bringing the networks to cpu", 4, 6),
        ("loading the text encoder", 5, 6),
    ]
