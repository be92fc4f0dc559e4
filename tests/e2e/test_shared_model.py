"""Several cameras through one loaded model: each as if it were alone."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from e2e_support import ROOT, make_clip, read_report

Run = Callable[..., subprocess.CompletedProcess[str]]

LENGTHS = [20, 28, 24]
TOLD = re.compile(r"([\d,]+) pictures by a model that other nodes used, too: (.*)")


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Clips of different length whose pictures all differ."""
    folder = tmp_path_factory.mktemp("clips")
    found = [folder / f"{frames}.mp4" for frames in LENGTHS]
    for path, frames in zip(found, LENGTHS, strict=True):
        make_clip(path, frames=frames)
    return found


@pytest.fixture(autouse=True)
def cache_of_torch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Makes torch put its cache elsewhere than among what runs must remove."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))


def test_two_cameras_are_painted_as_each_would_be_alone(
    streamer: Run, clips: list[Path], tmp_path: Path
) -> None:
    given: list[str] = []
    for number, clip in enumerate(clips[:2], start=1):
        images = images_in(tmp_path / f"together{number}")
        given += ["--set", f"camera{number}.url={clip}", "--set", f"out{number}.url={images}"]
        given += ["--set", f"style{number}.threads=1"]
    done = streamer("run", ROOT / "configs/two-cameras.yaml", *given, "--report", "r.json")
    assert done.returncode == 0, done.stderr
    sinks = read_report(tmp_path / "r.json")["sinks"]
    assert [sinks[name]["delivered"] for name in ("out1", "out2")] == LENGTHS[:2]
    # Both tell that the model was theirs together, and that they were painted one by one: the
    # bundled model gains nothing by company.
    told = TOLD.findall(done.stderr + done.stdout)
    assert sorted(told) == [(str(frames), f"{frames} by themselves") for frames in LENGTHS[:2]]
    styles = [{"prompt": style, "threads": 1} for style in ("ink", "comic")]
    alone = painted(streamer, tmp_path, clips[:2], styles, size="256x256")
    for number, theirs in enumerate(alone):
        ours = pictures(tmp_path / f"together{number + 1}")
        assert len(ours) == len(theirs) == LENGTHS[number]
        assert all(np.array_equal(*pair) for pair in zip(ours, theirs, strict=True))
        # Each differs from the one before, so that another order would show.
        assert not any(np.array_equal(*pair) for pair in pairwise(ours))


def test_what_waits_for_a_checkpoint_is_painted_in_one_pass(
    streamer: Run, clips: list[Path], tmp_path: Path
) -> None:
    common = {"model": "random:tiny", "control": "random", "threads": 1}
    styles = [
        {**common, "prompt": "a castle", "seed": 1},
        {**common, "prompt": "a forest", "seed": 2, "conditioning_scale": 2.0},
        {**common, "prompt": "a castle | a forest", "seed": 3, "feedback": 0.3},
    ]
    told: list[tuple[str, str]] = []
    together = painted(streamer, tmp_path, clips, styles, size="64x64", told=told, share=True)
    assert sorted(int(count) for count, _ in told) == sorted(LENGTHS)
    # A model that paints most of the time has two of three waiting when a pass ends.
    assert any("in passes of" in how for _, how in told), told
    told.clear()
    alone = painted(streamer, tmp_path, clips, styles, size="64x64", told=told)
    assert told == []
    for number, (ours, theirs) in enumerate(zip(together, alone, strict=True)):
        assert len(ours) == len(theirs) == LENGTHS[number]
        for mine, other in zip(ours, theirs, strict=True):
            assert np.abs(mine - other.astype(int)).max() <= 1
    assert np.abs(alone[0][0] - alone[1][0].astype(int)).max() > 8


def painted(
    streamer: Run,
    tmp_path: Path,
    clips: list[Path],
    styles: list[dict[str, Any]],
    *,
    size: str,
    told: list[tuple[str, str]] | None = None,
    share: bool = False,
) -> list[list[np.ndarray[Any, Any]]]:
    """What clips become, each by a style of its own, in one worker or in one each."""
    nodes: dict[str, Any] = {}
    folders = [tmp_path / f"{'shared' if share else 'alone'}{n}" for n in range(len(clips))]
    for n, (clip, style, folder) in enumerate(zip(clips, styles, folders, strict=True)):
        nodes |= {
            f"camera{n}": {"uses": "decoder", "with": {"url": str(clip)}},
            f"crop{n}": {"uses": "preprocess", "from": f"camera{n}", "with": {"size": size}},
            f"style{n}": {"uses": "sdxs", "from": f"crop{n}", "with": style},
            f"out{n}": {"uses": "encoder", "from": f"style{n}", "with": {"url": images_in(folder)}},
        }
    workers = {"model": [f"style{n}" for n in range(len(clips))]} if share else {}
    path = tmp_path / "graph.yaml"
    path.write_text(yaml.safe_dump({"version": 1, "nodes": nodes, "workers": workers}))
    done = streamer("run", path, "--report", "r.json")
    assert done.returncode == 0, done.stderr
    read_report(tmp_path / "r.json")
    if told is not None:
        told += TOLD.findall(done.stderr + done.stdout)
    return [pictures(folder) for folder in folders]


def images_in(folder: Path) -> str:
    """Where an output writes images, which hold the very levels that were painted."""
    folder.mkdir()
    return str(folder / "%04d.png")


def pictures(folder: Path) -> list[np.ndarray[Any, Any]]:
    found = [cv2.imread(str(path)) for path in sorted(folder.iterdir())]
    return [one for one in found if one is not None]
