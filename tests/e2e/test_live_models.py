"""Another model in a graph that runs."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from e2e_support import ROOT, frames_of, read_report, wait_for

Run = Callable[..., subprocess.CompletedProcess[str]]
Start = Callable[..., subprocess.Popen[str]]

UNET = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small checkpoint as diffusers saves it, whose pictures are redder than `random:tiny`'s."""
    import torch

    from nodes.sdxs.checkpoint.reference import pipeline
    from nodes.sdxs.names import ModelName

    pipe = pipeline(ModelName.parse("random:tiny"), device=torch.device("cpu"), dtype=torch.float32)
    pipe.vae.decoder.layers[-1].bias.data[:] = torch.tensor([0.9, 0.1, 0.1])
    path = tmp_path_factory.mktemp("models") / "red"
    pipe.save_pretrained(path)
    # Where older versions keep the words, and this one reads them.
    (path / "tokenizer/vocab.json").write_text(json.dumps(pipe.tokenizer.get_vocab()))
    (path / "tokenizer/merges.txt").write_text("#version: 0.2\n")
    return path


def painted(model: str | Path) -> np.ndarray[Any, Any]:
    """What a checkpoint without ControlNet paints, whatever the video shows."""
    from nodes.sdxs import OneStep

    engine = OneStep.load(model, threads=1)
    engine.prompt = "ink"
    return engine(np.zeros((256, 256, 3), np.uint8)).astype(int)


def test_models_are_switched_and_refused_while_pictures_flow(
    streamer: Run, started: Start, clip: Path, folder: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    misshapen = shutil.copytree(folder, tmp_path / "misshapen")
    tensors = load_file(misshapen / UNET)
    tensors["conv_out.bias"] = tensors["conv_out.bias"][:2].clone()
    save_file(tensors, misshapen / UNET)
    out = tmp_path / "out.mkv"
    run = started(
        "run",
        ROOT / "configs/quickstart.yaml",
        *("--set", f"source.url={clip}", "--set", "source.loop=true"),
        *("--set", "source.realtime=true", "--set", "style.prompt=ink"),
        *("--set", "style.threads=1", "--set", f"sink.url={out}", "--report", "r.json"),
    )
    which = ("--run", run.pid)
    wait_for(lambda: out.exists() and out.stat().st_size > 20_000)

    def switch(model: Path | str) -> None:
        done = streamer("set", f"style.model={model}", *which)
        # On cores that others use it takes longer than it is waited for, and is taken all the same.
        assert done.returncode == 0 or "may take it later" in done.stderr, done.stderr
        wait_for(lambda: streamer("get", "style.model", *which).stdout == f"{model}\n")

    switch("random:tiny")
    for model, said in (
        (misshapen, "1 of another shape (conv_out.bias is 2 instead of 4)"),
        (tmp_path / "nowhere", f"no model '{tmp_path / 'nowhere'}'"),
        (tmp_path, f"{tmp_path} lacks model_index.json"),
        ("bundled:", "no model 'bundled:'"),
    ):
        done = streamer("set", f"style.model={model}", *which)
        assert done.returncode == 2
        assert said in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
        assert streamer("get", "style.model", *which).stdout == "random:tiny\n"
    switch(folder)
    size = out.stat().st_size
    wait_for(lambda: out.stat().st_size > size + 2_000)
    run.send_signal(signal.SIGINT)
    output, _ = run.communicate(timeout=60)
    assert run.returncode == 0, output
    changes = read_report(tmp_path / "r.json")["changes"]
    assert [change["path"] for change in changes] == ["style.model"] * 2
    assert all(change["first_frame_ms"]["sink"] > 0 for change in changes)
    tiny, red = painted("random:tiny"), painted(folder)
    seen = []
    for _, picture in frames_of(out):
        apart = [float(np.abs(picture - one).mean()) for one in (tiny, red)]
        seen.append(0 if min(apart) > 40 else 1 + int(np.argmin(apart)))
    # One model after the other, from one picture to the next and for good.
    assert seen == sorted(seen)
    assert set(seen) == {0, 1, 2}
