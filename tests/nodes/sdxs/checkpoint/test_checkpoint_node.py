"""The node and the command line over checkpoints."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

import streamer
from nodes.sdxs import OneStep
from nodes.sdxs.node import Sdxs, SdxsParams
from streamer.cli import main
from streamer.testing import SoloContext, solo

Write = Callable[..., Path]


def painted(node: Sdxs, picture: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    height, width = picture.shape[:2]
    frame = node.context.allocate(width, height, pts=0, time_base=Fraction(1, 30))
    frame.numpy()[...] = picture
    result = node.process(frame)
    return np.array(result.numpy())


def test_the_picture_steers_through_the_controlnet(write: Write, control: Write) -> None:
    folder, net = str(write("1", "PNDMScheduler")), str(control("1"))
    node = solo(Sdxs, model=folder, control=net, prompt="a castle", conditioning_scale=0.8, seed=3)
    engine = OneStep.load(folder, control=net)
    engine.prompt, engine.conditioning_scale, engine.seed = "a castle", 0.8, 3
    pictures = np.random.default_rng(0).integers(0, 256, (2, 128, 128, 3), np.uint8)
    first, second = (painted(node, picture) for picture in pictures)
    assert np.array_equal(first, engine(pictures[0]))
    assert np.array_equal(second, engine(pictures[1]))
    assert not np.array_equal(first, second)
    node.close()


def test_without_a_controlnet_the_video_steers_nothing_and_that_is_told(
    write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        node = solo(Sdxs, model=str(write("1", "PNDMScheduler")), prompt="a castle")
    assert "paints from its prompt alone: without `control` the video does not steer" in caplog.text
    pictures = np.random.default_rng(0).integers(0, 256, (2, 128, 128, 3), np.uint8)
    assert np.array_equal(painted(node, pictures[0]), painted(node, pictures[1]))


def test_adapters_and_the_large_decoder_are_parameters(write: Write, tmp_path: Path) -> None:
    with pytest.raises(streamer.NodeError, match=r"lacks adapter_config\.json"):
        solo(Sdxs, model=str(write("1")), prompt="x", lora=[{"source": str(tmp_path), "scale": 2}])
    large = write("1", "PNDMScheduler", "large")
    with pytest.raises(streamer.ParameterError, match="set vae: large"):
        solo(Sdxs, model=str(large), prompt="x")
    assert solo(Sdxs, model=str(large), prompt="x", vae="large").params.vae == "large"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"model": "nowhere"}, "no model 'nowhere'"),
        ({"model": "random:large"}, "after 'random:' comes sdxs-512-0.9, "),
        ({"model": "random:tiny", "control": "./nowhere"}, "no control './nowhere'"),
        ({"model": "random:tiny", "control": ["random", "x y"]}, "no control 'x y'"),
        ({"model": "random:tiny", "lora": ["random"]}, "no lora 'random'"),
        ({"model": "random:tiny", "backend": "openvino"}, "checkpoints run on torch"),
        ({"model": "random:tiny", "prompt": "one |"}, "a part of the blend 'one |' is empty"),
        ({"model": "random:tiny", "vae": "huge"}, "'tiny' or 'large'"),
        ({"control": "random"}, "model bundled takes none"),
        ({"lora": ["a/b"]}, "model bundled takes none"),
        ({"prompt": "a castle"}, "unknown prompt 'a'"),
        ({"device": "gpu"}, "must be auto, cpu, cuda or cuda:N"),
    ],
)
def test_parameters_are_checked_before_anything_is_loaded(
    given: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        SdxsParams(**given)
    (mistake,) = caught.value.errors()
    assert message in mistake["msg"]
    # It is placed where it was made: what is given last here.
    assert mistake["loc"][0] == list(given)[-1]


def test_all_mistakes_of_a_nodes_parameters_are_told_at_once() -> None:
    given = {"seed": -1, "prompt": "ink:0.7 comik:0.3", "control": "random", "device": "gpu"}
    with pytest.raises(ValidationError) as caught:
        SdxsParams(**given)  # type: ignore[arg-type]
    assert {mistake["loc"][0] for mistake in caught.value.errors()} == set(given)
    # Where the model itself is a mistake, nothing is said of what depends on it.
    with pytest.raises(ValidationError) as caught:
        SdxsParams(model="nowhere", prompt="a castle", backend="openvino")
    assert [mistake["loc"][0] for mistake in caught.value.errors()] == ["model"]


@pytest.mark.parametrize(
    "given",
    [
        {"model": "IDKiro/sdxs-512-0.9", "prompt": "a castle, 12:30"},
        {"model": "IDKiro/sdxs-512-dreamshaper@76f7202", "prompt": "a castle:2 | a forest"},
        {
            "model": "IDKiro/sdxs-512-dreamshaper",
            "control": "IDKiro/sdxs-512-dreamshaper-sketch",
            "lora": ["IDKiro/SDXS-512-DreamShaper-Anime", {"source": "a/b", "scale": 0.5}],
        },
        {"model": "random:sdxs-1024", "vae": "large", "prompt": ""},
    ],
)
def test_published_models_are_named_without_being_there(given: dict[str, Any]) -> None:
    assert SdxsParams(**given).model == given["model"]


def test_checking_loads_nothing_heavy() -> None:
    code = (
        "from nodes.sdxs.node import SdxsParams; import nodes.sdxs.commands, sys\n"
        "SdxsParams(model='random:tiny', control='random', lora=['a/b'], prompt='a | b')\n"
        "print(*sys.modules)"
    )
    listing = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )
    loaded = set(listing.stdout.split())
    assert "nodes.sdxs.node" in loaded
    heavy = {"torch", "numpy", "diffusers", "transformers", "huggingface_hub", "openvino", "av"}
    assert not loaded & heavy


def test_a_model_that_is_not_here_ends_the_run_with_the_way_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(streamer.NodeError) as caught:
        solo(Sdxs, model="IDKiro/sdxs-512-0.9@v1", prompt="x", context=SoloContext())
    assert str(caught.value).endswith("with: streamer pull IDKiro/sdxs-512-0.9@v1")
    assert "unet/diffusion_pytorch_model.safetensors" in str(caught.value)


# diffusers' schedulers ask numpy for what torch does not give; it is theirs to mend.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_the_bench_measures_against_the_pipeline(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["bench", "model", "--model", "random:tiny", "--control", "random", "--size"]
    arguments += ["64x64", "--reference", "diffusers", "--seconds", "0.1", "--threads", "1"]
    assert main([*arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["largest_difference"] <= 1
    assert found["parameters"]["unet"] == 2_169_636
    assert found["gflop"].keys() == {"control", "unet", "decoder"}
    parts = {"text", "condition", "control", "unet", "decoder", "conversion"}
    assert found["parts_ms"].keys() == parts
    assert all(milliseconds > 0 for milliseconds in found["parts_ms"].values())
    for name in ("engine", "pipeline", "pipeline_embedded"):
        assert found[name]["frames"] >= 3
        assert found[name]["fps"] == pytest.approx(1000 / found[name]["ms"])
    assert found["ratio"] == pytest.approx(found["pipeline"]["ms"] / found["engine"]["ms"])

    assert main(arguments) == 0
    shown = capsys.readouterr().out
    for name in ("ControlNet", "U-Net", "2,169,636", "diffusers' pipeline", "grey levels"):
        assert name in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "bundled"], "model 'bundled' is no checkpoint"),
        (["--model", "nowhere"], "no model 'nowhere'"),
        (["--model", "random:tiny", "--size", "60x64"], "multiples of 8, not 60x64"),
    ],
)
def test_what_cannot_be_measured_is_said(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(["bench", "model", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_packages_add_commands_and_parts_of_the_bench(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "added_commands.py").write_text(
        'def greet(name: str) -> None:\n    """Greet somebody."""\n    print(f"hello {name}")\n'
    )
    monkeypatch.syspath_prepend(tmp_path)
    offered = {
        "streamer.commands": [
            EntryPoint("greet", "added_commands:greet", "streamer.commands"),
            EntryPoint("broken", "added_commands:absent", "streamer.commands"),
            # A built-in command is not replaced.
            EntryPoint("check", "added_commands:greet", "streamer.commands"),
        ],
    }
    monkeypatch.setattr("streamer.plugins.entry_points", lambda *, group: offered.get(group, []))
    assert main(["greet", "you"]) == 0
    assert capsys.readouterr().out == "hello you\n"
    assert main(["--help"]) == 0
    help_text = capsys.readouterr().out
    assert "Greet somebody." in help_text
    assert "Check a graph file" in help_text
    assert main(["broken"]) == 1
    error = capsys.readouterr().err
    assert "'broken' cannot be loaded from added_commands:absent" in error
