"""The whole chain in small as a person runs it, then what came out of it, in the node."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from click.testing import Result
from typer.testing import CliRunner

from nodes.sdxs import OneStep
from nodes.sdxs.distill import curves
from nodes.sdxs.distill.cli import app
from nodes.sdxs.distill.export import export
from nodes.sdxs.distill.loop import CURVE, FILE, Loop, rate, read
from nodes.sdxs.distill.settings import CONFIGS, Stage, load
from nodes.sdxs.distill.small import ablation, chain, networks
from nodes.sdxs.distill.small.run import STAGES, Run
from nodes.sdxs.distill.small.settings import Small
from nodes.sdxs.network import FILE as WEIGHTS
from nodes.sdxs.network import NOISE_CHANNELS, Network


def distill(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "nodes.sdxs.distill", *words],
        env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


def here(*words: str | Path) -> Result:
    """The same in this process, which has torch and all the rest already."""
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("smoke")
    done = distill("smoke", "--folder", str(folder))
    assert done.returncode == 0, done.stderr
    return folder, done.stderr


def test_every_stage_runs_and_says_how_it_goes(finished: tuple[Path, str]) -> None:
    folder, words = finished
    assert "every loss fell, and every student paints" in words
    for stage in STAGES:
        assert f"{stage} " in words
        assert read(folder / stage / FILE)[1] == getattr(load("smoke", Small), stage).steps
        assert list((folder / stage).glob("samples-*.png"))
        assert (folder / stage / "curve.png").stat().st_size > 1000
        assert "seconds" in curves.load(folder / stage / CURVE)


def test_the_model_paints_in_openvino_as_in_torch(finished: tuple[Path, str]) -> None:
    folder, _ = finished
    picture = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    painted = {}
    for backend in ("openvino", "torch"):
        engine = OneStep.load(folder / "model", backend=backend, dtype="float32", threads=1)
        assert engine.prompts == ("ink", "comic")
        engine.prompt = "ink:0.5 comic:0.5"
        painted[backend] = engine(picture).astype(int)
    assert np.abs(painted["openvino"] - painted["torch"]).max() <= 1


def test_a_finished_chain_has_nothing_left_to_do(finished: tuple[Path, str]) -> None:
    folder, _ = finished
    before = {stage: (folder / stage / FILE).stat().st_mtime_ns for stage in STAGES}
    done = here("teacher", "--config", "smoke", "--folder", folder)
    assert done.exit_code == 0, done.stderr
    assert "teacher: finished before" in done.stderr
    assert before == {stage: (folder / stage / FILE).stat().st_mtime_ns for stage in STAGES}


def test_the_students_are_what_their_stages_made(finished: tuple[Path, str]) -> None:
    folder, _ = finished
    run = Run(folder, load("smoke", Small))
    source = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    paper, one = torch.zeros(1, NOISE_CHANNELS, 16, 16), torch.ones(1, 1, 1, 1)
    painted = []
    for stage in chain.STUDENTS:
        student = chain.student_of(run, stage)
        with torch.no_grad():
            painted.append(student.paint(source, student.tokens[:1], paper, one))
    for earlier, later in itertools.pairwise(painted):
        assert not torch.allclose(earlier, later, atol=1e-4)
    with pytest.raises(ValueError, match="'teacher' has no one-step model; draft, unet, warmup"):
        chain.export_stage(run, "teacher")


def rows(table: str) -> dict[str, list[float]]:
    """The numbers of a Markdown table's lines, by name."""
    found = {}
    for line in table.splitlines():
        name, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        try:
            found[name] = [float(cell) for cell in cells if cell]
        except ValueError:
            continue  # a heading
    return found


def test_students_and_teacher_are_compared(finished: tuple[Path, str], tmp_path: Path) -> None:
    folder, _ = finished
    words = ("--config", "smoke", "--folder", str(folder), "--size", "64")
    grid = tmp_path / "grid.png"
    strips = tmp_path / "strips.png"
    pictures = ("--grid", str(grid), "--strips", str(strips))
    done = distill("evaluate", *words, "--stage", "draft", *pictures)
    assert done.returncode == 0, done.stderr
    found = rows(done.stdout)
    assert {"bundled", "student after draft", "teacher, 16 steps"} < set(found)
    # The teacher is compared with itself, too; and the bundled model has learnt for longer.
    assert found["teacher, 16 steps"][1] == 1
    assert found["teacher, 16 steps"][4] == 0
    assert found["bundled"][0] > found["student after draft"][0]
    drawn = cv2.imread(str(grid))
    assert drawn is not None
    # Three photographs by three painters and the operators; the source and two styles.
    assert drawn.shape == (3 * 4 * 64, 3 * 64, 3)
    said = [line for line in done.stdout.splitlines() if line.startswith("Blends by ")]
    assert [line.partition(":")[0] for line in said] == [
        "Blends by bundled",
        "Blends by student after draft",
    ]
    assert all("ink" in line and "comic" in line for line in said)
    drawn = cv2.imread(str(strips))
    assert drawn is not None
    # One pair of styles, and three blends between them.
    assert drawn.shape == (64, 5 * 64, 3)


def test_the_ablation_trains_three_students_alike(finished: tuple[Path, str]) -> None:
    folder, _ = finished
    done = here("ablation", "--config", "smoke", "--folder", folder, "--size", "64")
    assert done.exit_code == 0, done.stderr
    found = rows(done.stdout)
    assert set(found) >= {
        "before",
        "score distillation without feature matching",
        "feature matching without score distillation",
        "both",
        "teacher, 16 steps",
    }
    settings = load("smoke", Small)
    assert settings.ablation is not None
    weights = {(folder / ablation.FOLDER / "before" / "unet" / WEIGHTS).read_bytes()}
    for name, stages in ablation.VARIANTS.items():
        place = folder / ablation.FOLDER / name / stages[-1] / chain.MODEL
        weights.add((place / "unet" / WEIGHTS).read_bytes())
        made = [read(folder / ablation.FOLDER / name / stage / FILE)[1] for stage in stages]
        assert sum(made) == settings.ablation.steps
        one = ablation.settings_of(settings, name)
        assert one.warmup.paired == one.score.paired == 0
        assert (one.warmup.start if name != "score" else one.score.start) == "nothing"
        assert (one.score.matching == (0, 0)) == (name == "score")
    assert len(weights) == 4


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("warmup", "--config", "smoke", "--folder", "empty"), "is missing: run the stage"),
        (("all", "--config", "smoke", "--plan"), "--plan is for trainings in full"),
        (("decoder", "--config", "smoke", "--folder", "empty"), "no stage 'decoder'; the stages"),
        (
            ("evaluate", "--config", "smoke", "--folder", "empty"),
            "holds no student to compare: none",
        ),
    ],
)
def test_mistakes_are_one_sentence(tmp_path: Path, words: tuple[str, ...], complaint: str) -> None:
    done = here(*(tmp_path if word == "empty" else word for word in words))
    assert done.exit_code == 2
    assert complaint in done.stderr
    assert done.stderr.count("\n") == 1
    assert not done.stdout


def test_a_mistake_ends_the_command_with_status_2() -> None:
    done = distill("all", "--config", "nothing")
    assert done.returncode == 2
    assert done.stderr.startswith("error: no configuration 'nothing': neither a YAML file nor")
    assert not done.stdout


def test_the_list_of_stages_is_not_cut_short() -> None:
    done = CliRunner().invoke(app, ["--help"], prog_name="distill")
    assert done.exit_code == 0
    listed = done.stdout.partition("Commands:")[2]
    assert "..." not in listed
    for name in STAGES:
        assert f" {name} " in listed


def test_every_mistake_of_a_yaml_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    lines = (CONFIGS / "smoke.yaml").read_text().splitlines()
    lines = [line for line in lines if not line.startswith(("data:", "draft:"))]
    first = len(lines) + 1
    lines += ["data: {pictures: 0, blend: 0.5}", "draft: {steps: 1e1, rate: fast}", "polis: 3"]
    path.write_text("\n".join(lines))
    with pytest.raises(ValueError, match="4 mistakes") as caught:
        load(path, Small)
    told = str(caught.value).splitlines()[1:]
    assert told == [
        f"{path}:{first}:18: data.pictures: must be at least 1, not 0",
        f"{path}:{first}:21: data.blend: is not known; did you mean 'blends'?",
        f"{path}:{first + 1}:27: draft.rate: must be a number, not 'fast'",
        f"{path}:{first + 2}:1: polis: is not known; did you mean 'polish'?",
    ]
    for text in ("- a list\n", "", "# nothing\n"):
        path.write_text(text)
        with pytest.raises(ValueError, match="must be a mapping of sections: family, data"):
            load(path, Small)
    path.write_text("a: [1")
    with pytest.raises(ValueError, match=r"mine\.yaml:\d+:\d+: the '\[' opened .* is not closed"):
        load(path, Small)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="is not UTF-8 text"):
        load(path, Small)


def test_the_committed_configuration_is_valid() -> None:
    tiny = load("tiny", Small)
    assert len(tiny.styles) >= 6
    assert tiny.draft.start is None


def test_the_rate_warms_up_and_falls() -> None:
    rates = [rate(step, steps=1000, peak=1e-3, warm_up=200) for step in range(1000)]
    assert rates[0] == pytest.approx(5e-6)
    assert max(rates) == pytest.approx(1e-3)
    assert rates[200:] == sorted(rates[200:], reverse=True)
    assert rates[-1] == pytest.approx(2e-5, rel=0.05)


def looped(folder: Path, *, stop: int | None, steps: int = 8) -> torch.Tensor:
    """Trains a line to go through a point; `stop` breaks off after so many steps."""
    torch.manual_seed(0)
    network = torch.nn.Linear(4, 1)
    settings = Stage(steps=steps, rate=0.05, warm_up=2, precision="float32", keep_every=2)
    loop = Loop(folder, settings, networks={"one": network}, averaged=("one",))
    for step in loop:
        if step == stop:
            break
        drawn = torch.randn(16, 4, generator=torch.Generator().manual_seed(step))
        loop.backward((network(drawn) - drawn.sum(1, keepdim=True)).square().mean())
        loop.update("one")
    return torch.cat([network.weight.flatten(), loop.averaged("one")["weight"].flatten()]).detach()


def test_training_goes_on_where_it_stopped(tmp_path: Path) -> None:
    whole = looped(tmp_path / "whole", stop=None)
    # Broken off at step 5, the last checkpoint is that of step 4.
    looped(tmp_path / "halves", stop=5)
    assert read(tmp_path / "halves" / FILE)[1] == 4
    assert torch.allclose(looped(tmp_path / "halves", stop=None), whole, atol=1e-6)
    few = looped(tmp_path / "few", stop=4)
    assert not torch.allclose(few, whole, atol=1e-3)


def test_accumulated_parts_are_one_batch(tmp_path: Path) -> None:
    drawn = torch.randn(12, 4, generator=torch.Generator().manual_seed(0))
    weights = []
    for parts in (1, 3):
        torch.manual_seed(0)
        network = torch.nn.Linear(4, 1)
        settings = Stage(steps=1, rate=0.05, warm_up=0, precision="float32", accumulate=parts)
        loop = Loop(tmp_path / str(parts), settings, networks={"one": network})
        for _ in loop:
            for part in loop.parts():
                loop.backward(network(drawn[part::parts]).square().mean())
            loop.update("one")
        weights.append(network.weight.detach().clone())
    assert torch.allclose(*weights, atol=1e-6)


def test_gradients_that_are_not_finite_stop_the_training(tmp_path: Path) -> None:
    network = torch.nn.Linear(1, 1)
    loop = Loop(tmp_path / "score", Stage(steps=3), networks={"one": network})
    next(iter(loop))
    loop.backward(network(torch.tensor([[float("inf")]])).sum())
    before = network.weight.detach().clone()
    with pytest.raises(FloatingPointError, match="score: the gradients of one are not finite at"):
        loop.update("one")
    assert torch.equal(network.weight, before)


def test_a_grown_network_paints_as_before(tmp_path: Path) -> None:
    small = Network(2).eval()
    networks.initialise(small)
    torch.nn.init.normal_(small.unet.conv_out.weight, std=0.05)
    grown = networks.grown(small, styles=("b", "new", "a"), known=("a", "b"), finish=2).eval()
    source, paper = torch.rand(1, 3, 32, 32), torch.randn(1, NOISE_CHANNELS, 8, 8)
    one = torch.ones(1, 1, 1, 1)
    with torch.no_grad():
        for row, known in ((0, 1), (2, 0)):
            mine = grown.paint(source, grown.tokens[row][None], paper, one)
            its = small.paint(source, small.tokens[known][None], paper, one)
            assert torch.allclose(mine, its, atol=1e-6)
    with pytest.raises(ValueError, match="finish must be at least 2, not 1"):
        networks.grown(grown, styles=("a",), known=("b", "new", "a"), finish=1)
    export(grown, tmp_path / "model", styles=("b", "new", "a"), graph=False)
    loaded = Network.load(tmp_path / "model")
    with torch.no_grad():
        again = loaded.paint(source, loaded.tokens[:1], paper, one)
        # Weights are saved in half precision.
        wanted = grown.paint(source, grown.tokens[:1], paper, one)
        assert torch.allclose(again, wanted, atol=0.02)
    shutil.rmtree(tmp_path / "model" / "vae")
    with pytest.raises(OSError, match="vae"):
        Network.load(tmp_path / "model")
