"""The acceptance run: what it says without a GPU, and that what can be measured is."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
import torch

from streamer import gpu
from streamer.bench.acceptance import __main__ as acceptance
from streamer.bench.acceptance import measuring, selftests
from streamer.bench.acceptance.goals import Conditions, collect, judge
from streamer.bench.gpu_link import measure
from streamer.errors import DeviceError
from streamer.gpu import probe, simulated

SCRIPT = Path(__file__).parents[3] / "scripts" / "gpu_acceptance"
SECONDS = 600
"""guard against a hang"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    made = simulated.make(tmp_path / "gpu")
    monkeypatch.setenv(gpu.SIMULATED, str(made))
    monkeypatch.setattr(gpu, "_devices", {})
    monkeypatch.setattr(probe, "_answers", {})
    return made


def script(*words: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k != gpu.SIMULATED}
    # Other tests run beside it.
    environment |= {"OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [str(SCRIPT), *map(str, words)],
        capture_output=True, text=True, env=environment, timeout=SECONDS, check=False,
    )  # fmt: skip


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_what_is_missing() -> None:
    done = script()
    assert done.returncode == 2
    first, *lines = done.stderr.splitlines()
    assert first == "gpu_acceptance cannot run here; missing:"
    assert any("no GPU" in line for line in lines)
    assert not done.stdout


def test_wheels_must_be_a_folder() -> None:
    done = script("--wheels", "/nowhere")
    assert done.returncode == 1
    assert done.stderr == "error: --wheels needs a folder of wheels\n"


def test_another_goal_is_refused_with_the_known_ones() -> None:
    done = script("--fake", "--only", "hopp")
    assert done.returncode == 2
    assert done.stderr.startswith("error: --only hopp: no such goal; known are tests, hop, flat, ")


@pytest.mark.e2e
def test_all_goals_are_measured_without_a_gpu_and_none_counts_as_reached(tmp_path: Path) -> None:
    names = [goal.name for goals in collect().values() for goal in goals]
    path = tmp_path / "figures.json"
    # All but the tests, which run with the others anyway.
    done = script("--fake", "--json", path, *(word for n in names for word in ("--only", n)))
    assert done.returncode == 0, done.stdout + done.stderr
    assert not done.stderr
    found = json.loads(path.read_text())
    assert {"GPU", "system", "packages", "when", "commit"} <= found.keys()
    rows = {row["name"]: row for row in found["goals"]}
    assert list(rows) == names
    absent = {name for name, row in rows.items() if row["verdict"] == "not available"}
    assert absent <= {"fp8", "tensorrt"}
    for name in set(rows) - absent:
        assert rows[name]["verdict"] == "simulated", rows[name]
        assert rows[name]["measured"].endswith("(no GPU, no measure)")
        assert rows[name]["figures"]
    table = [line for line in done.stdout.splitlines() if line.startswith("| ")]
    assert len(table) == len(names) + 1
    moved = rows["graph-bytes"]["figures"]
    assert (moved["up"], moved["down"]) == (moved["least_up"], moved["least_down"])
    assert moved["least_up"] == 64 * 64 * 1.5
    assert rows["prompt"]["figures"]["former_pictures"]
    assert rows["diffusers"]["figures"]["diffusers, prompt embedded"]["ratio"] > 0


def test_a_table_has_columns_that_fit(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        acceptance.Row(name="a", goal="short", measured="1", verdict="reached"),
        acceptance.Row(name="b", goal="a longer goal", measured="22", verdict="missed"),
    ]
    acceptance.print_table(rows)
    assert capsys.readouterr().out.splitlines() == [
        "| goal          | measured | verdict |",
        "|---------------|----------|---------|",
        "| short         | 1        | reached |",
        "| a longer goal | 22       | missed  |",
    ]


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


def test_a_link_that_cannot_be_measured_has_failed_and_says_why(
    folder: Path, tmp_path: Path
) -> None:
    simulated.change(folder, ipc=False)
    hop = collect()["link"][0]
    row = judge(hop, Conditions(fake=False, folder=tmp_path))
    assert (row.name, row.verdict) == ("hop", "failed")
    assert "no events between processes" in row.measured


def test_tests_alone_have_all_the_time(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[float] = []

    def run(*, fake: bool, seconds: float, log: Path) -> selftests.Tested:
        given.append(seconds)
        return selftests.Tested(fake, "1 passed", "")

    monkeypatch.setattr(selftests, "run", run)
    monkeypatch.setattr(measuring, "measure", lambda *_, **__: [])
    assert acceptance.main(["--fake", "--only", "tests"]) == 0
    assert acceptance.main(["--fake", "--only", "tests", "--only", "hop"]) == 0
    alone, before_goals = given
    assert before_goals == acceptance._TESTS < alone <= acceptance._BUDGET
