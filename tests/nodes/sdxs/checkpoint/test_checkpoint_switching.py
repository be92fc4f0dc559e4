"""Another model while pictures flow: taken whole, or refused with the old one unharmed."""

from __future__ import annotations

import gc
import json
import logging
import re
import shutil
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import streamer
from nodes.sdxs import OneStep
from nodes.sdxs.names import Lora
from nodes.sdxs.node import Sdxs, SdxsParams
from streamer.testing import solo

Write = Callable[..., Path]
Picture = np.ndarray[Any, np.dtype[np.uint8]]

UNET = "unet/diffusion_pytorch_model.safetensors"
PICTURE: Picture = np.random.default_rng(0).integers(0, 256, (128, 128, 3), np.uint8)


def painted(node: Sdxs, picture: Picture = PICTURE) -> Picture:
    height, width = picture.shape[:2]
    frame = node.context.allocate(width, height, pts=0, time_base=Fraction(1, 30))
    frame.numpy()[...] = picture
    return np.array(node.process(frame).numpy())


def with_changes(node: Sdxs, **changes: Any) -> SdxsParams:
    return SdxsParams(**{**node.params.model_dump(), **changes})


def change(node: Sdxs, **changes: Any) -> list[Picture]:
    """What a run does: prepares in a thread, paints meanwhile, and takes it between two pictures.

    Returns:
        The pictures that were painted before it was taken.
    """
    params = with_changes(node, **changes)
    meanwhile = []
    with ThreadPoolExecutor(1) as pool:
        ready = pool.submit(node.prepare, params)
        while not (meanwhile and ready.done()):
            meanwhile.append(painted(node))
        node.update(params, ready.result())
    return meanwhile


def same(pictures: list[Picture], expected: Picture) -> bool:
    return all(np.array_equal(picture, expected) for picture in pictures)


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """A LoRA of the small checkpoints' first attention."""
    layer = "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_q"
    generator = torch.Generator().manual_seed(1)
    down = torch.randn(4, 64, generator=generator)
    up = torch.randn(64, 4, generator=generator)
    path = tmp_path / "pytorch_lora_weights.safetensors"
    save_file({f"{layer}.lora_A.weight": down, f"{layer}.lora_B.weight": up}, path)
    return path


def test_each_model_paints_from_the_first_picture_after_it_was_taken(
    write: Write, control: Write, adapter: Path
) -> None:
    folder, net = str(write("1", "PNDMScheduler")), str(control("1"))
    node = solo(Sdxs, model="bundled", prompt="ink", seed=3, threads=1)
    steps: list[dict[str, Any]] = [
        {"model": "random:tiny"},
        {"model": folder},
        {"control": net},
        {"lora": [str(adapter)]},
        {"lora": [{"source": str(adapter), "scale": 0.25}]},
        {"lora": []},
        {"control": None},
        {"model": "bundled"},
    ]
    before = painted(node)
    seen = [before]
    for step in steps:
        assert same(change(node, **step), before)
        p = node.params
        fresh = OneStep.load(
            p.model,
            control=p.controls(),
            lora=[Lora(one.source, one.scale) for one in p.adapters()],
            threads=1,
        )
        fresh.prompt, fresh.seed = "ink", 3
        before = painted(node)
        assert np.array_equal(before, fresh(PICTURE)), step
        seen.append(before)
    changed = [not np.array_equal(a, b) for a, b in pairwise(seen)]
    assert changed == [True] * len(steps)
    assert np.array_equal(seen[0], seen[-1])
    node.close()


def test_settings_of_the_moment_are_the_new_models_too(write: Write) -> None:
    node = solo(Sdxs, model="random:tiny", prompt="a castle | a lake", threads=1)
    painted(node)
    change(node, seeds="7:0.7 42:0.3")
    change(node, blend="spherical")
    folder = str(write("1", "PNDMScheduler"))
    change(node, model=folder)
    fresh = OneStep.load(folder, threads=1)
    fresh.blend, fresh.seeds, fresh.prompt = "spherical", "7:0.7 42:0.3", "a castle | a lake"
    assert np.array_equal(painted(node), fresh(PICTURE))
    change(node, seeds=None)
    fresh.seeds = None
    assert np.array_equal(painted(node), fresh(PICTURE))
    assert not np.array_equal(painted(node, PICTURE), PICTURE)


def test_changes_that_overtake_each_other_end_with_the_last(write: Write) -> None:
    node = solo(Sdxs, model="bundled", prompt="comic", threads=1)
    first = painted(node)
    there = with_changes(node, model="random:tiny")
    other = with_changes(node, model="random:tiny", prompt="a castle")
    back = with_changes(node, model="bundled", prompt="comic")
    prepared = [(params, node.prepare(params)) for params in (there, other, back)]
    assert prepared[0][1] is prepared[1][1]  # loaded once
    for params, engine in prepared:
        node.update(params, engine)
    assert np.array_equal(painted(node), first)


def spoiled(folder: Path, name: str, make: Callable[[torch.Tensor], torch.Tensor]) -> None:
    tensors = load_file(folder / UNET)
    tensors[name] = make(tensors[name])
    save_file(tensors, folder / UNET)


def test_models_that_cannot_be_are_refused_and_the_old_one_goes_on(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    good = write("1", "PNDMScheduler")
    misshapen = shutil.copytree(good, tmp_path / "misshapen")
    spoiled(misshapen, "conv_out.weight", lambda weight: weight[:, :, :1, :1].contiguous())
    not_finite = shutil.copytree(good, tmp_path / "not_finite")
    spoiled(not_finite, "conv_out.bias", lambda bias: bias * float("nan"))
    empty = tmp_path / "empty"
    empty.mkdir()
    large = write("1", "PNDMScheduler", "large")
    node = solo(Sdxs, model="random:tiny", prompt="a castle", threads=1)
    before = painted(node)
    for model, said in (
        (misshapen, "1 of another shape (conv_out.weight is 4×32×1×1 instead of 4×32×3×3)"),
        (not_finite, "cannot paint 128x128 pixels: model"),
        (empty, "lacks model_index.json"),
        ("IDKiro/sdxs-512-0.9", "streamer pull IDKiro/sdxs-512-0.9"),
        (large, "set vae: large"),
    ):
        with pytest.raises(streamer.ParameterError) as caught:
            change(node, model=str(model))
        message = str(caught.value)
        assert said in message
        assert message.endswith("; the model random:tiny goes on")
        assert "\n" not in message
        assert node.params.model == "random:tiny"
        assert np.array_equal(painted(node), before)
    with pytest.raises(ValueError, match="no model 'nowhere'"):
        with_changes(node, model="nowhere")
    # What was refused is not remembered: other changes find the old model.
    change(node, prompt="a lake")
    assert not np.array_equal(painted(node), before)
    change(node, prompt="a castle")
    assert np.array_equal(painted(node), before)


def test_a_model_that_does_not_take_the_size_is_refused(write: Write, tmp_path: Path) -> None:
    from diffusers import AutoencoderTiny

    folder = shutil.copytree(write("1", "PNDMScheduler"), tmp_path / "coarse")
    shutil.rmtree(folder / "vae")
    five = {f"{half}_block_out_channels": (8,) * 5 for half in ("encoder", "decoder")}
    blocks = {f"num_{half}_blocks": (1,) * 5 for half in ("encoder", "decoder")}
    AutoencoderTiny(**five, **blocks).save_pretrained(folder / "vae")
    node = solo(Sdxs, model="random:tiny", prompt="a castle", threads=1)
    picture = np.ascontiguousarray(PICTURE[:, :120])
    before = painted(node, picture)
    with pytest.raises(streamer.ParameterError, match="multiples of 16, not 120x128"):
        node.prepare(with_changes(node, model=str(folder)))
    assert np.array_equal(painted(node, picture), before)


def test_a_controlnet_of_another_model_is_refused(control: Write) -> None:
    node = solo(Sdxs, model="random:tiny", control="random", prompt="a castle", threads=1)
    before = painted(node)
    with pytest.raises(streamer.ParameterError, match="the ControlNet does not fit the model"):
        change(node, control=str(control("1")))
    assert np.array_equal(painted(node), before)


LIMITED = """
import json, logging, resource, sys
from fractions import Fraction
import numpy as np
import streamer
from nodes.sdxs.node import Sdxs, SdxsParams
from streamer.testing import solo

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() >> 20

def painted(node, side):
    frame = node.context.allocate(side, side, pts=0, time_base=Fraction(1, 30))
    frame.numpy()[...] = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    return np.array(node.process(frame).numpy())

def refused(node, **changes):
    try:
        node.prepare(SdxsParams(**{**node.params.model_dump(), **changes}))
    except streamer.ParameterError as error:
        return str(error)

logging.disable(logging.CRITICAL)
def limit(spare):
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (spare << 20), -1))

node = solo(Sdxs, model="random:tiny", prompt="a castle", threads=1)
small, large = painted(node, 64), painted(node, 1024)
limit(400)
told = {"before": resident()}
told["huge"] = refused(node, model="random:sdxs-512-dreamshaper")
told["after huge"] = resident()
told["same"] = bool(np.array_equal(painted(node, 1024), large))
limit(120)
told["pictures"] = refused(node, control="random")
told["after pictures"] = resident()
told["same again"] = bool(np.array_equal(painted(node, 64), small))
print(json.dumps(told))
"""


def test_a_model_without_memory_for_it_is_refused_and_nothing_is_kept() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LIMITED], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout)
    assert re.fullmatch(
        r"there is no memory for the model random:sdxs-512-dreamshaper: the U-Net of model "
        r"random:sdxs-512-dreamshaper takes 1\.2 GiB, and \d+ MiB are left; the model random:tiny "
        r"goes on",
        told["huge"],
    )
    assert told["pictures"] == (
        "the model random:tiny fits into memory, but its pictures of 1024x1024 do not: no memory "
        "for pictures of 1024x1024; set smaller: true, or give the node smaller ones; the model "
        "random:tiny goes on"
    )
    assert told["same"]
    assert told["same again"]
    # In MiB; what stays is code that ran for the first time.
    assert told["after huge"] - told["before"] < 40
    assert told["after pictures"] - told["after huge"] < 40


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def test_the_old_models_memory_comes_back(
    write: Write, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Five times there and back, and three times refused, with a model that would be seen."""
    from diffusers import UNet2DConditionModel

    caplog.set_level(logging.ERROR)
    folder = shutil.copytree(write("1", "PNDMScheduler"), tmp_path / "wide")
    config = json.loads((folder / "unet/config.json").read_text())
    wide = UNet2DConditionModel.from_config({**config, "block_out_channels": (192, 384)})
    wide.save_pretrained(folder / "unet")
    weights = (folder / UNET).stat().st_size
    assert weights > 50_000_000
    del wide
    node = solo(Sdxs, model="random:tiny", prompt="a castle", threads=1)
    painted(node)
    held, gone = [], []
    gc.collect()
    gc.disable()  # nothing may wait for it: it would stop the frames
    try:
        for _ in range(5):
            change(node, model=str(folder))
            gone.append(weakref.ref(node._ahead))
            painted(node)
            change(node, model="random:tiny")
            gone.append(weakref.ref(node._ahead))
            painted(node)
            until(lambda: all(engine() is None for engine in gone[:-1]))
            until(lambda: not any(thread.name == "sdxs-free" for thread in threading.enumerate()))
            held.append(resident())
        spoiled(folder, "conv_out.bias", lambda bias: bias * float("nan"))
        for _ in range(3):  # loaded whole, and refused after the first picture
            with pytest.raises(streamer.ParameterError, match="not finite"):
                change(node, model=str(folder))
            held.append(resident())
    finally:
        gc.enable()
    # The first time brings in code and buffers that stay; the allocator keeps some pages. A model
    # kept each time would be seven times its weights.
    assert max(held[1:]) - held[0] < 2 * weights, held


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)
