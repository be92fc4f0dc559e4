"""The acceptance run: what it says without a GPU, and that what can be measured is."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import torch

from streamer import gpu
from streamer.bench.acceptance.goals import GOALS, NOT_BUILT, judge
from streamer.bench.gpu_link import measure
from streamer.errors import DeviceError
from streamer.gpu import probe, simulated

SCRIPT = Path(__file__).parents[3] / "scripts" / "gpu_acceptance"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    made = simulated.make(tmp_path / "gpu")
    monkeypatch.setenv(gpu.SIMULATED, str(made))
    monkeypatch.setattr(gpu, "_devices", {})
    monkeypatch.setattr(probe, "_answers", {})
    return made


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_what_is_missing() -> None:
    environment = {k: v for k, v in os.environ.items() if k != gpu.SIMULATED}
    done = subprocess.run([str(SCRIPT)], capture_output=True, text=True, env=environment)
    assert done.returncode == 2
    first, *lines = done.stderr.splitlines()
    assert first == "gpu_acceptance cannot run here; missing:"
    assert any("no GPU" in line for line in lines)
    assert not done.stdout


def test_wheels_must_be_a_folder() -> None:
    done = subprocess.run([str(SCRIPT), "--wheels", "/nowhere"], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == "error: --wheels needs a folder of wheels\n"


def test_frames_between_two_processes_are_measured_and_nothing_grows(folder: Path) -> None:
    found = measure(width=640, height=360, frames=200)
    assert found.frames == 200
    assert 0 < found.p50 <= found.p99
    assert found.copied == 0
    assert found.grown_device == 0
    assert simulated.violations(folder) == []
    assert simulated.used(folder) == 0


def test_frames_that_would_go_through_the_host_are_no_measure(folder: Path) -> None:
    simulated.change(folder, opening="invalid device context")
    with pytest.raises(DeviceError, match=r"cannot share the memory of gpu 0: .*invalid device"):
        measure(frames=10)


def test_every_goal_has_a_row_and_no_figure_of_a_simulated_gpu_passes(folder: Path) -> None:
    assert len(GOALS) == 13
    rows = [judge(goal, fake=True) for goal in GOALS if goal.measure is None]
    assert {row.verdict for row in rows} == {NOT_BUILT}
    assert all(row.measured.startswith("needs ") for row in rows)
    simulated.change(folder, ipc=False)
    row = judge(GOALS[0], fake=False)
    assert row.verdict == "failed"
    assert "no events between processes" in row.measured
