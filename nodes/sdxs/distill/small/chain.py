"""The stages in small, in their order, and what comes out at the end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from nodes.sdxs.distill import curves
from nodes.sdxs.distill.export import export
from nodes.sdxs.distill.loop import CURVE
from nodes.sdxs.distill.small import making, stepping
from nodes.sdxs.distill.small.run import STAGES, Run
from nodes.sdxs.network import Network

FUNCTIONS: dict[str, Callable[[Run], None]] = {
    "draft": making.draft,
    "autoencoder": making.autoencoder,
    "teacher": making.teacher,
    "unet": making.unet,
    "warmup": stepping.warmup,
    "score": stepping.score,
    "polish": stepping.polish,
}
STUDENTS = ("draft", "unet", "warmup", "score", "polish")
"""Stages after which there is something that paints in one step."""

MODEL = "model"


def run_stage(run: Run, name: str) -> bool:
    """Runs a stage from where it stopped, and draws its curve.

    Returns:
        Whether there was something left to do.

    Raises:
        ValueError: There is no such stage.
    """
    if name not in FUNCTIONS:
        raise ValueError(f"no stage {name!r}; the stages are {', '.join(STAGES)}")
    if run.finished(name):
        return False
    FUNCTIONS[name](run)
    curves.plot(run.folder / name / CURVE, run.folder / name / "curve.png")
    return True


def student_of(run: Run, name: str) -> Network:
    """The one-step network as it is after a stage."""
    if name == "polish":
        return stepping.polished(run)
    return stepping.start(run, name)


def export_stage(run: Run, name: str, folder: Path | None = None, *, graph: bool = True) -> Path:
    """Writes the model of a stage, in the layout that the node takes.

    Args:
        run: The training.
        name: One of `STUDENTS`.
        folder: Where to; `model/` in the stage's own folder where left out.
        graph: Whether to make OpenVINO's graph; without it, torch runs the model.
    """
    if name not in STUDENTS:
        raise ValueError(f"stage {name!r} has no one-step model; {', '.join(STUDENTS)} have")
    place = folder or run.folder / name / MODEL
    export(student_of(run, name), place, styles=run.settings.styles, graph=graph)
    return place
