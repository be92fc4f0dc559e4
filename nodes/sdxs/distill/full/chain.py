"""The stages in full, in their order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from nodes.sdxs.distill import curves, settings
from nodes.sdxs.distill.full import shrinking, stepping
from nodes.sdxs.distill.full.models import load
from nodes.sdxs.distill.full.run import STAGES, Report, Run
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
CONTROLLED = ("control", "one_step_control")


def run_stage(run: Run, name: str) -> bool:
    """Runs a stage from where it stopped.

    Returns:
        Whether there was something left to do.

    Raises:
        ValueError: There is no such stage, or no ControlNet for it.
    """
    if name not in FUNCTIONS:
        raise ValueError(f"no stage {name!r} in full; the stages are {', '.join(STAGES)}")
    if name in CONTROLLED and run.models.control is None:
        raise ValueError(f"the stage {name!r} needs an original ControlNet: set sources.controls")
    if run.finished(name):
        return False
    FUNCTIONS[name](run)
    if run.machines.first:
        curves.plot(run.folder / name / CURVE, run.folder / name / "curve.png")
    return True


def train(names: Sequence[str] | None, config: str, folder: Path, *, report: Report | None) -> None:
    """Loads the teacher and runs the stages that are not finished.

    Args:
        names: Which; all that can be where left out.
        config: A configuration's name or file.
        folder: Of the checkpoints.
        report: As in `Run`.
    """
    wanted = settings.load(config, Full)
    machines = Machines()
    try:
        sources = wanted.sources
        if not sources.prompts.is_file():
            raise FileNotFoundError(
                f"{sources.prompts} is missing: sources.prompts is a text file, one prompt a line"
            )
        texts = sources.prompts.read_text(encoding="utf-8").splitlines()
        models = load(
            teacher=sources.teacher,
            straight=sources.straight,
            control=sources.controls,
            lora=sources.lora,
            pixels=wanted.resolution,
            device=machines.device,
        )
        run = Run(
            folder,
            wanted,
            models,
            prompts=[text for text in texts if text.strip()],
            machines=machines,
            report=report if machines.first else None,
        )
        chosen = [name.replace("-", "_") for name in names] if names else list(STAGES)
        for name in chosen:
            if not names and name in CONTROLLED and sources.controls is None:
                continue
            run_stage(run, name)
    finally:
        machines.close()
