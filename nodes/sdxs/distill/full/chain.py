"""The stages in full, in their order, and what comes out at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from nodes.sdxs.distill import curves, settings
from nodes.sdxs.distill.full import backbones, shrinking, stepping
from nodes.sdxs.distill.full.export import STUDENTS, export
from nodes.sdxs.distill.full.loading import load
from nodes.sdxs.distill.full.run import CONTROLLED, STAGES, Report, Run, stages
from nodes.sdxs.distill.full.settings import Full
from nodes.sdxs.distill.loop import CURVE
from nodes.sdxs.distill.machines import Machines

FUNCTIONS: dict[str, Callable[[Run], None]] = {
    "decoder": shrinking.decoder,
    "unet": shrinking.unet,
    "control": shrinking.control,
    "warmup": stepping.warmup,
    "score": stepping.score,
    "one_step_control": stepping.one_step_control,
    "polish": stepping.polish,
}
MODEL = "model"


def run_stage(run: Run, name: str) -> bool:
    """Runs a stage from where it stopped.

    Returns:
        Whether there was something left to do.

    Raises:
        ValueError: There is no such stage in this training.
    """
    _check(name, run.settings, controlled=run.models.control is not None)
    done = run.finished(name)
    run.machines.agree(int(done), where=run.folder / name)
    if done:
        return False
    run.seed(name)
    FUNCTIONS[name](run)
    if run.machines.first:
        curves.plot(run.folder / name / CURVE, run.folder / name / "curve.png")
    return True


def train(
    names: Sequence[str] | None,
    config: str,
    folder: Path,
    *,
    report: Report | None,
    say: Callable[[str], None] = print,
) -> None:
    """Loads the teacher and runs the stages that are not finished.

    Args:
        names: Which; all that can be, and the export of the model, where left out.
        config: A configuration's name or file.
        folder: Of the checkpoints.
        report: As in `Run`.
        say: Given a sentence now and then.
    """
    wanted = settings.load(config, Full)
    controlled = wanted.sources.controls is not None
    chosen = [name.replace("-", "_") for name in names or ()] or stages(
        wanted, controlled=controlled
    )
    for name in chosen:
        _check(name, wanted, controlled=controlled)
    with _started(wanted, folder, report=report) as run:
        first = run.machines.first
        for name in chosen:
            if not run_stage(run, name) and first:
                say(f"{name}: finished before")
        if not names and first:
            say(f"the model is in {export(run, chosen[-1], folder / MODEL)}")
        run.machines.wait()


def export_stage(name: str, config: str, folder: Path, to: Path | None) -> Path:
    """Writes the student of a stage as a model that the node takes.

    Raises:
        FileNotFoundError: The stage has not run.
        ValueError: It has no one-step student.
    """
    stage = name.replace("-", "_")
    if stage not in STUDENTS:
        raise ValueError(f"stage {name!r} has no one-step model; {', '.join(STUDENTS)} have")
    wanted = settings.load(config, Full)
    with _started(wanted, folder, report=None) as run:
        return export(run, stage, to or folder / stage / MODEL)


@contextmanager
def _started(wanted: Full, folder: Path, *, report: Report | None) -> Iterator[Run]:
    prompts = _prompts(wanted.sources.prompts)
    for name in {wanted.warmup.backbone, wanted.score.backbone, wanted.one_step_control.backbone}:
        backbones.check(name)
    # What is not in half precision is quick enough, and as exact as the networks were trained.
    torch.set_float32_matmul_precision("high")
    machines = Machines()
    try:
        yield Run(
            folder,
            wanted,
            load(wanted, device=machines.device),
            prompts=prompts,
            machines=machines,
            report=report if machines.first else None,
        )
    finally:
        machines.close()


def _prompts(path: Path) -> list[str]:
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing: sources.prompts is a text file, one prompt a line"
        )
    try:
        texts = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not a text file in UTF-8: {error}") from error
    return [text for text in texts if text.strip()]


def _check(name: str, wanted: Full, *, controlled: bool) -> None:
    if name not in FUNCTIONS:
        raise ValueError(f"no stage {name!r} in full; the stages are {', '.join(STAGES)}")
    if name in CONTROLLED and not controlled:
        raise ValueError(f"the stage {name!r} needs an original ControlNet: set sources.controls")
    if name == "unet" and not wanted.removes:
        raise ValueError(
            f"layout {wanted.layout} has no stage 'unet': its student has the teacher's own "
            "layout and weights; begin with 'warmup'"
        )
