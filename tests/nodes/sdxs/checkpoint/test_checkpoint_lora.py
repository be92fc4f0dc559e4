"""Merged adapters against the same adapters beside the layers, in diffusers' own networks."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from nodes.sdxs import OneStep
from nodes.sdxs.checkpoint.engine import CheckpointOneStep
from nodes.sdxs.names import Lora

Write = Callable[..., Path]
Layers = Mapping[str, tuple[Tensor, Tensor]]

SIZE, PROMPT = 64, "a castle"
LINEAR = "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k"
OUT = "up_blocks.0.attentions.1.transformer_blocks.0.attn1.to_out.0"
POINT = "up_blocks.0.attentions.0.proj_in"
CONV = "down_blocks.0.resnets.0.conv1"
TEXT = "encoder.layers.1.self_attn.q_proj"


@pytest.fixture(scope="module")
def folder(write: Write) -> Path:
    return write("1", "PNDMScheduler")


def drawn(module: nn.Module, names: list[str], rank: int, seed: int = 0) -> Layers:
    """Halves of an adapter for layers, of a size that changes the picture."""
    generator = torch.Generator().manual_seed(seed)
    made = {}
    for name in names:
        weight = module.get_submodule(name).weight
        assert isinstance(weight, Tensor)
        kernel = weight.shape[2:]
        down = torch.randn((rank, weight.shape[1], *kernel), generator=generator)
        up = torch.randn((weight.shape[0], rank, *(1 for _ in kernel)), generator=generator)
        made[name] = (down * 0.2, up * 0.2)
    return made


def beside(module: nn.Module, layers: Layers, factor: float | Mapping[str, float]) -> None:
    """Runs an adapter as it was trained: beside each layer, on the layer's input."""
    for name, (down, up) in layers.items():
        layer = module.get_submodule(name)
        own = factor if isinstance(factor, float) else factor[name]

        def add(
            layer: Any, inputs: Any, output: Tensor, down: Any = down, up: Any = up, own: Any = own
        ) -> Tensor:
            if isinstance(layer, nn.Conv2d):
                middle = nn.functional.conv2d(inputs[0], down, None, layer.stride, layer.padding)
                return output + own * nn.functional.conv2d(middle, up)
            return output + own * (inputs[0] @ down.T @ up.T)

        layer.register_forward_hook(add)


def pipeline(folder: Path) -> Any:
    import diffusers

    made = diffusers.StableDiffusionPipeline.from_pretrained(folder)
    made.set_progress_bar_config(disable=True)
    return made


def run(made: Any) -> Tensor:
    latents: Tensor = made(
        PROMPT,
        num_inference_steps=1,
        guidance_scale=0.0,
        width=SIZE,
        height=SIZE,
        generator=torch.Generator().manual_seed(0),
        output_type="latent",
    ).images
    return latents


def load(folder: Path, *lora: Path | Lora) -> Tensor:
    engine = OneStep.load(folder, lora=lora)
    assert isinstance(engine, CheckpointOneStep)
    engine.prompt = PROMPT
    return engine.latents(SIZE, SIZE)


def write_peft(folder: Path, layers: Layers, *, pickled: bool = False, **config: Any) -> Path:
    tensors = {}
    for name, (down, up) in layers.items():
        tensors[f"base_model.model.{name}.lora_A.weight"] = down
        tensors[f"base_model.model.{name}.lora_B.weight"] = up
    if pickled:
        torch.save(tensors, folder / "adapter_model.bin")
    else:
        save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", **config}))
    return folder


@pytest.mark.parametrize("pickled", [False, True], ids=["safetensors", "bin"])
def test_a_peft_adapter_is_merged(folder: Path, tmp_path: Path, pickled: bool) -> None:
    made = pipeline(folder)
    plain = run(made)
    layers = drawn(made.unet, [LINEAR, OUT, POINT, CONV], rank=4)
    beside(made.unet, layers, 0.7 * 6 / 4)
    expected = run(made)
    assert float((expected - plain).abs().max()) > 1
    write_peft(tmp_path, layers, pickled=pickled, r=4, lora_alpha=6)
    assert float((load(folder, Lora(str(tmp_path), 0.7)) - expected).abs().max()) < 1e-4
    assert float((load(folder, Lora(str(tmp_path), 0.0)) - plain).abs().max()) < 1e-4
    file = tmp_path / f"adapter_model.{'bin' if pickled else 'safetensors'}"
    assert torch.equal(load(folder, Lora(str(file), 0.7)), load(folder, Lora(str(tmp_path), 0.7)))


def test_patterns_and_stabilised_ranks_of_peft_are_heeded(folder: Path, tmp_path: Path) -> None:
    made = pipeline(folder)
    layers = {
        **drawn(made.unet, [LINEAR], rank=2),
        **drawn(made.unet, [OUT], rank=4, seed=1),
    }
    beside(made.unet, layers, {LINEAR: 5 / math.sqrt(2), OUT: 8 / math.sqrt(4)})
    write_peft(
        tmp_path,
        layers,
        r=4,
        lora_alpha=8,
        rank_pattern={"attn2.to_k": 2},
        alpha_pattern={"attn2.to_k": 5},
        use_rslora=True,
    )
    assert float((load(folder, tmp_path) - run(made)).abs().max()) < 1e-4


def test_stabilised_ranks_and_patterns_of_diffusers_are_heeded(
    folder: Path, tmp_path: Path
) -> None:
    made = pipeline(folder)
    layers = {
        **drawn(made.unet, [LINEAR], rank=2),
        **drawn(made.unet, [OUT], rank=4, seed=1),
    }
    beside(made.unet, layers, {LINEAR: 5 / math.sqrt(2), OUT: 8 / math.sqrt(4)})
    tensors = {}
    for name, (down, up) in layers.items():
        tensors |= {f"unet.{name}.lora_A.weight": down, f"unet.{name}.lora_B.weight": up}
    told = {"lora_alpha": 8, "use_rslora": True, "alpha_pattern": {r"attn2\.to_k": 5}}
    file = tmp_path / "pytorch_lora_weights.safetensors"

    def write(**more: Any) -> None:
        given = {f"unet.{key}": value for key, value in {**told, **more}.items()}
        save_file(tensors, file, {"lora_adapter_metadata": json.dumps(given)})

    write()
    assert float((load(folder, tmp_path) - run(made)).abs().max()) < 1e-4
    write(use_dora=True)
    with pytest.raises(ValueError, match="is a DoRA adapter, not LoRA"):
        load(folder, tmp_path)


@pytest.mark.parametrize("told", ["beside", "metadata", "nowhere"])
def test_an_adapter_of_diffusers_is_merged_into_all_parts(
    folder: Path, tmp_path: Path, told: str
) -> None:
    made = pipeline(folder)
    unet = drawn(made.unet, [LINEAR, CONV], rank=4)
    text = drawn(made.text_encoder, [TEXT], rank=4, seed=1)
    alpha = 4.0 if told == "nowhere" else 2.0
    beside(made.unet, unet, alpha / 4)
    beside(made.text_encoder, text, alpha / 4)
    tensors = {}
    for part, layers in (("unet", unet), ("text_encoder.text_model", text)):
        for name, (down, up) in layers.items():
            tensors[f"{part}.{name}.lora_A.weight"] = down
            tensors[f"{part}.{name}.lora_B.weight"] = up
            if told == "beside":
                tensors[f"{part}.{name}.alpha"] = torch.tensor(alpha)
    metadata = {"unet.lora_alpha": 2, "unet.r": 4, "text_encoder.lora_alpha": 2}
    save_file(
        tensors,
        tmp_path / "pytorch_lora_weights.safetensors",
        {"lora_adapter_metadata": json.dumps(metadata)} if told == "metadata" else None,
    )
    assert float((load(folder, tmp_path) - run(made)).abs().max()) < 1e-4


def test_the_old_names_of_diffusers_are_understood(folder: Path, tmp_path: Path) -> None:
    made = pipeline(folder)
    layers = drawn(made.unet, [LINEAR, OUT], rank=4)
    beside(made.unet, layers, 1.0)
    tensors = {}
    for name, (down, up) in layers.items():
        start, _, layer = name.removesuffix(".0").rpartition(".")
        tensors[f"unet.{start}.processor.{layer}_lora.down.weight"] = down
        tensors[f"unet.{start}.processor.{layer}_lora.up.weight"] = up
    save_file(tensors, tmp_path / "pytorch_lora_weights.safetensors")
    assert float((load(folder, tmp_path) - run(made)).abs().max()) < 1e-4


def test_several_adapters_add_up(folder: Path, tmp_path: Path) -> None:
    made = pipeline(folder)
    places = []
    for seed, scale in ((0, 1.0), (1, -0.5)):
        layers = drawn(made.unet, [LINEAR, OUT], rank=4, seed=seed)
        beside(made.unet, layers, scale)
        place = tmp_path / str(seed)
        place.mkdir()
        places.append(Lora(str(write_peft(place, layers, r=4, lora_alpha=4)), scale))
    assert float((load(folder, *places) - run(made)).abs().max()) < 1e-4


def zeros(*names: str) -> dict[str, Tensor]:
    return {name: torch.zeros(4, 4) for name in names}


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (zeros("unet.nowhere.lora_A.weight", "unet.nowhere.lora_B.weight"),
         r"1 of 1 layers are not there \(nowhere\); it was trained for another model"),
        (zeros(f"unet.{LINEAR}.lora_A.weight", f"unet.{LINEAR}.lora_B.weight"),
         r"to_k is 64×32, the adapter's 4×4"),
        (zeros(f"unet.{LINEAR}.lora_A.weight"), r"1 tensors lack their other half"),
        (zeros("unet.conv_in.diff"), r"1 tensors are no LoRA weights \(conv_in\.diff\)"),
        (zeros("vae.decoder.lora_A.weight"), r"1 tensors are of no part that is known"),
        ({"unet.x.lora_A.weight": torch.zeros(4, 2), "unet.x.lora_B.weight": torch.zeros(4, 2)},
         r": the halves of x do not fit together: 4×2 and 4×2"),
        ({"unet.x.alpha": torch.zeros(3)}, r": x\.alpha must be one number, not \(3,\)"),
        (zeros("lora_unet_mid.lora_down.weight"), "has the layout of kohya's scripts"),
        (zeros("text_encoder_2.x.lora_A.weight", "text_encoder_2.x.lora_B.weight"),
         "is for two text encoders, and the model has one"),
    ],
)  # fmt: skip
def test_adapters_that_do_not_fit_are_refused(
    folder: Path, tmp_path: Path, tensors: dict[str, Tensor], message: str
) -> None:
    save_file(tensors, tmp_path / "pytorch_lora_weights.safetensors")
    with pytest.raises(ValueError, match=message):
        OneStep.load(folder, lora=[tmp_path])


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"r": 8, "lora_alpha": 8}, "has rank 4, adapter_config.json says 8"),
        ({"peft_type": "LOHA"}, "is a LOHA adapter, not LoRA"),
        ({"use_dora": True}, "is a DoRA adapter, not LoRA"),
        ({"bias": "all"}, "trains biases or transposed weights"),
        ({"r": "four"}, "r must be a number, not 'four'"),
        ({"lora_alpha": math.inf}, "lora_alpha must be a number, not inf"),
        ({"rank_pattern": "o"}, "rank_pattern must give numbers by layer, not 'o'"),
        ({"alpha_pattern": {"to_q": {}}}, "alpha_pattern of to_q must be a number, not {}"),
    ],
)
def test_adapters_of_other_kinds_are_refused(
    folder: Path, tmp_path: Path, config: dict[str, Any], message: str
) -> None:
    layers = {LINEAR: (torch.zeros(4, 32), torch.zeros(64, 4))}
    write_peft(tmp_path, layers, **{"r": 4, "lora_alpha": 4, **config})
    with pytest.raises(ValueError, match=message):
        OneStep.load(folder, lora=[tmp_path])


def test_an_adapter_that_is_not_there_is_said(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no lora '.*nowhere'"):
        OneStep.load(folder, lora=[tmp_path / "nowhere"])
    with pytest.raises(FileNotFoundError, match=r"lacks adapter_config\.json"):
        OneStep.load(folder, lora=[tmp_path])
    with pytest.raises(ValueError, match=r"scale of lora .* must be a number"):
        OneStep.load(folder, lora=[Lora(str(tmp_path), math.nan)])


def test_the_weights_of_the_files_are_left_alone(folder: Path, tmp_path: Path) -> None:
    made = pipeline(folder)
    write_peft(tmp_path, drawn(made.unet, [LINEAR, CONV], rank=4), r=4, lora_alpha=40)
    before = {path: path.read_bytes() for path in folder.rglob("*.safetensors")}
    merged, plain = load(folder, tmp_path), load(folder)
    assert float((merged - plain).abs().max()) > 1
    assert all(path.read_bytes() == content for path, content in before.items())
    assert np.isfinite(merged.numpy()).all()


def test_a_single_file_with_settings_beside_it_that_are_none_is_refused(
    folder: Path, tmp_path: Path
) -> None:
    layers = {LINEAR: (torch.zeros(4, 32), torch.zeros(64, 4))}
    write_peft(tmp_path, layers, r=4, lora_alpha=4)
    (tmp_path / "adapter_config.json").write_text("[]")
    with pytest.raises(ValueError, match=r"adapter_config\.json holds no JSON object"):
        OneStep.load(folder, lora=[tmp_path / "adapter_model.safetensors"])
