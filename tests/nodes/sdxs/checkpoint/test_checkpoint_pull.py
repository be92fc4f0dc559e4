"""Fetching from a hub of our own over HTTP, by the command line in processes of its own."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from fake_hub import COMMIT, Hub

Write = Callable[..., Path]

MODEL = "maker/small-sdxs"
CONTROL = "maker/small-sketch"
BIG = "maker/big-sketch"
SOME_TEXT = "license: openrail++\n" * 200


@pytest.fixture(scope="module")
def repositories(write: Write, control: Write, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("hub")
    model = shutil.copytree(write("1", "PNDMScheduler"), root / MODEL)
    shutil.copytree(write("1", "PNDMScheduler", "large") / "vae", model / "vae_large")
    # What a repository holds besides, and what nobody needs.
    for name in ("README.md", "output.png", "unet/diffusion_pytorch_model.fp16.safetensors"):
        (model / name).write_text(SOME_TEXT)
    (model / "text_encoder/pytorch_model.bin").write_text(SOME_TEXT)
    shutil.copytree(control("1"), root / CONTROL)
    shutil.copytree(control("1"), root / BIG)
    (root / BIG / "diffusion_pytorch_model.safetensors").write_bytes(
        np.random.default_rng(0).bytes(12 * 2**20)
    )
    return root


@pytest.fixture
def hub(repositories: Path) -> Iterator[Hub]:
    server = Hub(repositories)
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def run(hub: Hub, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments],
            capture_output=True,
            text=True,
            timeout=120,
            env={
                "PATH": "/usr/bin:/bin",
                "HOME": str(tmp_path),
                "HF_HOME": str(tmp_path / "hf"),
                "HF_ENDPOINT": hub.address,
                **variables,
            },
        )

    return run


Run = Callable[..., "subprocess.CompletedProcess[str]"]


def test_only_what_is_needed_comes_and_then_the_model_runs(
    hub: Hub, run: Run, tmp_path: Path
) -> None:
    before = run("-c", f"from nodes.sdxs import OneStep; OneStep.load({MODEL!r})")
    assert before.returncode == 1
    assert (
        f"model {MODEL} is not complete on this machine: model_index.json, "
        "scheduler/scheduler_config.json, unet/config.json, "
        "unet/diffusion_pytorch_model.safetensors, vae/config.json, "
        "vae/diffusion_pytorch_model.safetensors and 4 more are missing; get what is missing "
        f"with: streamer pull {MODEL}"
    ) in before.stderr
    assert hub.asked == []

    done = run("-m", "streamer", "pull", MODEL)
    assert done.returncode == 0, done.stderr
    assert f"{MODEL} ({COMMIT[:10]})" in done.stdout
    assert "licence: openrail++ (CreativeML Open RAIL++-M: free to use" in done.stdout
    assert f"complete; use it as model: {MODEL}" in done.stdout
    unet = (hub.root / MODEL / "unet/diffusion_pytorch_model.safetensors").stat().st_size
    assert f"  unet/diffusion_pytorch_model.safetensors, {unet / 1e6:.1f} MB\n" in done.stdout
    assert set(hub.fetched()) == {
        "model_index.json",
        "scheduler/scheduler_config.json",
        "text_encoder/config.json",
        "text_encoder/model.safetensors",
        "tokenizer/merges.txt",
        "tokenizer/tokenizer_config.json",
        "tokenizer/vocab.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
        "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors",
    } | ({"tokenizer/special_tokens_map.json"} & set(hub.fetched()))

    assert run("-m", "streamer", "pull", CONTROL).returncode == 0
    hub.asked.clear()
    painted = run(
        "-c",
        "import numpy; from nodes.sdxs import OneStep\n"
        f"engine = OneStep.load({MODEL!r}, control={CONTROL!r})\n"
        "print(engine, engine(numpy.zeros((128, 128, 3), numpy.uint8)).std() > 1)",
    )
    assert painted.returncode == 0, painted.stderr
    assert painted.stdout.startswith(f"OneStep('{MODEL}', torch, float32")
    assert painted.stdout.endswith("True\n")
    assert hub.asked == []

    # Nothing comes twice.
    again = run("-m", "streamer", "pull", f"{MODEL}@main")
    assert again.returncode == 0
    assert hub.fetched() == {}
    assert run("-m", "streamer", "pull", MODEL, "--large").returncode == 0
    assert set(hub.fetched()) == {
        "vae_large/config.json",
        "vae_large/diffusion_pytorch_model.safetensors",
    }


def test_an_interrupted_file_goes_on_where_it_stopped(hub: Hub, run: Run) -> None:
    # The hub's library writes 10 MiB at a time.
    file, chunk = "diffusion_pytorch_model.safetensors", 10 * 2**20
    hub.cut[file] = chunk + 1000
    done = run("-m", "streamer", "pull", BIG)
    if done.returncode:
        done = run("-m", "streamer", "pull", BIG)
    assert done.returncode == 0, done.stderr
    starts = [start for method, path, start in hub.asked if (method, path) == ("GET", file)]
    assert starts == [0, chunk]


def test_what_is_there_goes_on_until_what_is_newer_is_complete(hub: Hub, run: Run) -> None:
    file = "diffusion_pytorch_model.safetensors"
    where = (
        "from nodes.sdxs.checkpoint.source import Source; from nodes.sdxs.names import ModelName; "
        f"print(Source(ModelName.parse_part({BIG!r}, 'control')).need({file!r}))"
    )
    assert run("-m", "streamer", "pull", BIG).returncode == 0
    former = hub.root / BIG / file
    content = former.read_bytes()
    try:
        former.write_bytes(content[::-1])
        hub.commit = "beef" * 10
        hub.damaged.add(file)
        assert run("-m", "streamer", "pull", BIG).returncode == 1
        found = Path(run("-c", where).stdout.strip())
        assert COMMIT in found.parts
        assert found.read_bytes() == content
        hub.damaged.clear()
        assert run("-m", "streamer", "pull", BIG).returncode == 0
        found = Path(run("-c", where).stdout.strip())
        assert hub.commit in found.parts
        assert found.read_bytes() == content[::-1]
    finally:
        former.write_bytes(content)


@pytest.mark.parametrize("file", ["unet/diffusion_pytorch_model.safetensors", "unet/config.json"])
def test_a_damaged_file_is_refused_and_fetched_anew(hub: Hub, run: Run, file: str) -> None:
    hub.damaged.add(file)
    done = run("-m", "streamer", "pull", MODEL)
    assert done.returncode == 1
    assert f"{file} of {MODEL} arrived damaged: its hash is not the hub's" in done.stderr
    hub.damaged.clear()
    done = run("-m", "streamer", "pull", MODEL)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("maker/absent", "there is no repository maker/absent at http://127.0.0.1:"),
        (f"{MODEL}@v9", f"{MODEL} has no revision 'v9'"),
        ("no-owner", "no model 'no-owner': it is neither a file or folder, nor a repository"),
        ("/tmp", "'/tmp' is a folder of this machine: only repositories owner/name"),
    ],
)
def test_what_is_not_there_is_said(run: Run, model: str, message: str) -> None:
    done = run("-m", "streamer", "pull", model)
    assert done.returncode in (1, 2)
    assert done.stderr.startswith(f"streamer: error: {message}")
    assert done.stderr.count("\n") == 1


def test_without_a_network_one_sentence_says_so(run: Run) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{unused.getsockname()[1]}"
        done = run("-m", "streamer", "pull", MODEL, HF_ENDPOINT=dead)
    assert done.returncode == 1
    assert f"{MODEL} cannot be fetched: {dead} cannot be reached" in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_known_models_are_listed(run: Run) -> None:
    done = run("-m", "streamer", "pull", COLUMNS="160")
    assert done.returncode == 0
    for name in ("0.9", "dreamshaper", "dreamshaper-sketch"):
        assert f"IDKiro/sdxs-512-{name} " in done.stdout
    assert "openrail++" in done.stdout
