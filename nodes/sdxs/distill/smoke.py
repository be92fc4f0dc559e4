"""Whether a quick run of the whole chain did what every stage is for."""

from __future__ import annotations

import numpy as np
import torch

from nodes.sdxs.distill import curves
from nodes.sdxs.distill.loop import CURVE
from nodes.sdxs.distill.small import chain, stepping
from nodes.sdxs.distill.small.run import Run
from nodes.sdxs.engine import OneStep
from nodes.sdxs.network import Network

FALLING = {
    "draft": ("loss", "l1"),
    "autoencoder": ("left",),
    "teacher": ("left",),
    "unet": ("loss", "output"),
    "score": ("lag",),
    "polish": ("paired", "critic"),
}
"""What must fall in a stage: the mean of the last third of its curve below the first's."""
BEGINS = {"lag": 1.0}
"""What a curve begins at where that is known, in place of the mean of its first third: of few steps
the first third has fallen already. It is held against the median of the last half: a ratio of two
errors strays far upwards in single batches."""
LOOKS = 8
"""Batches that the warm-up's student is judged by: the same ones before and after, for of so few
steps a curve says more of its batches than of the student."""


def problems(run: Run) -> list[str]:
    """What is wrong with a finished chain: losses that did not fall, students that do not paint.

    Every student is loaded as the node loads it, and paints a picture in every style.
    """
    found = []
    for stage, names in FALLING.items():
        curve = curves.load(run.folder / stage / CURVE)
        for name in names:
            values = [value for _, value in curve[name]]
            third, half = max(1, len(values) // 3), len(values) // 2
            first, last = float(np.mean(values[:third])), float(np.mean(values[-third:]))
            if name in BEGINS:
                first, last = BEGINS[name], float(np.median(values[half:]))
            if not last < first:
                found.append(f"{stage}: {name} went from {first:.4g} to {last:.4g} and must fall")
    before, after = _matching(run)
    if not after < before:
        found.append(f"warmup: matching went from {before:.4g} to {after:.4g} and must fall")
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    for stage in chain.STUDENTS:
        place = chain.export_stage(run, stage, graph=False)
        engine = OneStep.load(place, backend="torch")
        if engine.prompts != run.settings.styles:
            found.append(f"{stage}: knows {', '.join(engine.prompts)}")
        for style in engine.prompts:
            engine.prompt = style
            if np.ptp(engine(picture)) < 2:
                found.append(f"{stage}: paints {style} as one plain area")
    return found


@torch.no_grad()
def _matching(run: Run) -> tuple[float, float]:
    """The loss (10) of the warm-up's student as it began and as it ended, over the same batches."""
    settings = run.settings.warmup
    matching = stepping.Matching(run.autoencoder(), run.teacher(), steps=settings.teacher_steps)
    batch = run.batches("warmup")
    drawn = [batch(settings.steps + look, 0) for look in range(LOOKS)]

    def mean(student: Network) -> float:
        count = settings.matched
        return float(np.mean([stepping.matched(matching, student, one, count) for one in drawn]))

    return mean(stepping.start(run, settings.start)), mean(run.student("warmup"))
