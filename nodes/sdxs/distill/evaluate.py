"""Students and teacher side by side, on photographs and clips that none was trained on."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import isnan, nan
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from nodes.sdxs import vocabulary
from nodes.sdxs.distill import blends, scattering
from nodes.sdxs.distill.blends import Bytes, Paint
from nodes.sdxs.distill.measure import edges, likeness, milliseconds
from nodes.sdxs.distill.pictures import HELD_OUT, held_out
from nodes.sdxs.distill.small import ablation, chain
from nodes.sdxs.distill.small.making import painter
from nodes.sdxs.distill.small.run import Run
from nodes.sdxs.engine import OneStep
from nodes.sdxs.network import NOISE_CHANNELS
from nodes.sdxs.styles import OPERATORS
from nodes.stability import Steadiness, flicker
from nodes.stability.measures import noisy_stills

CLIP_FRAMES = 10
STILLS = 4
SENSOR = 2.0
"""Grey levels of noise on the still picture."""


@dataclass(frozen=True)
class Painter:
    """Something to compare.

    Attributes:
        name: In the table.
        paint: What it does.
        styles: Those it knows.
        pace: Milliseconds a picture, where it runs in the node.
    """

    name: str
    paint: Paint
    styles: tuple[str, ...]
    pace: float | None = None


@dataclass(frozen=True)
class Scores:
    """One line of the table, means over photographs and styles; see `COLUMNS`."""

    likeness: float
    teacher_likeness: float
    lines: float
    feature: float
    teacher_feature: float
    style: float
    warp: float
    flicker: float


COLUMNS = {
    "likeness": "SSIM to the operator ↑",
    "teacher_likeness": "SSIM to the teacher ↑",
    "lines": "lines ↑",
    "feature": "feature distance ↓",
    "teacher_feature": "feature distance to the teacher ↓",
    "style": "style distance ↓",
    "warp": "warp error ↓",
    "flicker": "flicker ↓",
}


def of_model(model: str | Path, name: str, *, threads: int, size: int) -> Painter:
    """A model as the node runs it."""
    engine = OneStep.load(model, threads=threads)

    def paint(picture: Bytes, style: str) -> Bytes:
        engine.prompt = style
        return engine(picture)

    return Painter(name, paint, engine.prompts, milliseconds(engine, size))


def of_teacher(run: Run, *, steps: int) -> Painter:
    """The teacher in many steps, with the paper that the node draws for seed 0.

    It takes seconds for a picture: those that it has painted are kept.
    """
    sample = painter(run.autoencoder(), run.teacher(), steps=steps)
    styles = run.settings.styles
    kept: dict[tuple[str, bytes], Bytes] = {}

    def paint(picture: Bytes, style: str) -> Bytes:
        if (style, picture.tobytes()) not in kept:
            kept[style, picture.tobytes()] = painted(picture, style)
        return kept[style, picture.tobytes()]

    def painted(picture: Bytes, style: str) -> Bytes:
        source = torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255
        shape = (1, NOISE_CHANNELS, picture.shape[0] // 4, picture.shape[1] // 4)
        paper = np.random.default_rng(0).standard_normal(shape, np.float32)
        weights = vocabulary.parse(style, known=styles, model="teacher")
        shares = torch.tensor([[weights.get(one, 0.0) for one in styles]])
        made = sample(source, shares, torch.from_numpy(paper))
        shown = (made[0].clamp(0, 1) * 255).round().to(torch.uint8)
        return np.ascontiguousarray(shown.permute(1, 2, 0).numpy())

    return Painter(f"teacher, {steps} steps", paint, styles)


def clip(name: str, *, size: int, frames: int = CLIP_FRAMES) -> Iterator[Bytes]:
    """A held-out photograph under a camera that pans and closes in by 3 pixels a picture."""
    picture = held_out(name, size=size + 64)
    for index in range(frames):
        side = size + 32 - 2 * index
        left, top = 3 * index, 8 + index
        view = picture[top : top + side, left : left + side]
        yield np.asarray(cv2.resize(view, (size, size), interpolation=cv2.INTER_AREA), np.uint8)


def score(
    one: Painter,
    teacher: Painter | None,
    *,
    styles: Sequence[str],
    size: int,
    moving: bool = True,
) -> dict[str, Scores]:
    """Scores by style.

    Args:
        one: What is judged.
        teacher: What it was distilled from; without it, those columns are not a number.
        styles: Which.
        size: Of the pictures.
        moving: Whether clips are painted, too; warp error and flicker are not a number without.
    """
    found = {}
    for style in styles:
        rows = []
        for name in HELD_OUT:
            source = held_out(name, size=size)
            made, wanted = one.paint(source, style), OPERATORS[style](source)
            alike, apart = _taught(teacher, made, source, style)
            warp, restless = _moving(one, name, style, size=size) if moving else (nan, nan)
            rows.append(
                (
                    likeness(made, wanted),
                    alike,
                    edges(made, wanted),
                    scattering.distance(_tensor(made), _tensor(wanted)),
                    apart,
                    scattering.style_distance(_tensor(made), _tensor(wanted)),
                    warp,
                    restless,
                )
            )
        found[style] = Scores(*(float(value) for value in np.mean(rows, axis=0)))
    return found


def _taught(teacher: Painter | None, made: Bytes, source: Bytes, style: str) -> tuple[float, float]:
    """Likeness and feature distance to what the teacher makes."""
    if teacher is None:
        return nan, nan
    wanted = teacher.paint(source, style)
    return likeness(made, wanted), scattering.distance(_tensor(made), _tensor(wanted))


def _moving(one: Painter, name: str, style: str, *, size: int) -> tuple[float, float]:
    """Warp error on a clip, and flicker at rest."""
    steadiness = Steadiness()
    for picture in clip(name, size=size):
        steadiness.add(picture, one.paint(picture, style))
    stills = noisy_stills(held_out(name, size=size), sigma=SENSOR, count=STILLS)
    restless = flicker([one.paint(noisy, style) for noisy in stills])
    return steadiness.result().styled_error, restless


def table(
    run: Run,
    *,
    against: str,
    stages: Sequence[str] | None = None,
    size: int = 256,
    grid: Path | None = None,
    strips: Path | None = None,
) -> str:
    """The comparison as Markdown: means over the styles that all know, each style, blends.

    Args:
        run: The training.
        against: A model to compare with, whose vocabulary decides which styles count.
        stages: Students after these stages; all that are finished where left out.
        size: Of the pictures.
        grid: A PNG of the pictures is drawn there.
        strips: A PNG of the last student's blends is drawn there.

    Raises:
        FileNotFoundError: No stage that makes a student has been finished.
    """
    threads = run.settings.threads
    chosen = stages or [name for name in chain.STUDENTS if run.finished(name)]
    if not chosen:
        raise FileNotFoundError(
            f"{run.folder} holds no student to compare: none of the stages "
            f"{', '.join(chain.STUDENTS)} is finished there"
        )
    painters = [of_model(against, against, threads=threads, size=size)]
    for name in chosen:
        place = chain.export_stage(run, name)
        painters.append(of_model(place, f"student after {name}", threads=threads, size=size))
    teacher = of_teacher(run, steps=16) if run.finished("teacher") else None
    lines = [_compared(run, painters, teacher, size=size, grid=grid)]
    shared = _shared(run, painters)
    if len(shared) > 1:
        judged = {one.name: blends.judge(one.paint, shared, size=size) for one in painters}
        lines += ["", *(f"Blends by {name}: {words}." for name, words in judged.items())]
    if strips is not None:
        pairs = list(itertools.pairwise(painters[-1].styles))
        blends.draw(painters[-1].paint, pairs, path=strips, size=size)
    return "\n".join(lines)


def ablated(run: Run, *, size: int = 256, grid: Path | None = None) -> str:
    """The ablation as Markdown; arguments as in `table`.

    Raises:
        FileNotFoundError: It was not trained, or has no teacher.
    """
    threads = run.settings.threads
    painters = [
        of_model(place, name, threads=threads, size=size)
        for name, place in ablation.students(run).items()
    ]
    return _compared(run, painters, of_teacher(run, steps=16), size=size, grid=grid)


def _compared(
    run: Run,
    painters: Sequence[Painter],
    teacher: Painter | None,
    *,
    size: int,
    grid: Path | None,
) -> str:
    painters = [*painters, *([] if teacher is None else [teacher])]
    shared = _shared(run, painters)
    lines = [
        f"Held out: {', '.join(HELD_OUT)}, {size} × {size}; means over {', '.join(shared)}.",
        "",
        "| | " + " | ".join([*COLUMNS.values(), "ms ↓"]) + " |",
        "|---" * (len(COLUMNS) + 2) + "|",
    ]
    details = []
    for one in painters:
        styles = [style for style in run.settings.styles if style in one.styles]
        moving = one is not teacher  # whose clips would take a quarter of an hour
        by_style = score(one, teacher, styles=styles, size=size, moving=moving)
        means = [np.mean([getattr(by_style[style], key) for style in shared]) for key in COLUMNS]
        pace = "" if one.pace is None else f"{one.pace:.1f}"
        lines.append(f"| {one.name} | {' | '.join(_shown(value) for value in means)} | {pace} |")
        for style, scores in by_style.items():
            values = " | ".join(_shown(getattr(scores, key)) for key in COLUMNS)
            details.append(f"| {one.name}: {style} | {values} | |")
    if grid is not None:
        draw(painters, run.settings.styles, path=grid, size=size)
    return "\n".join([*lines, *details])


def _shared(run: Run, painters: Sequence[Painter]) -> list[str]:
    """The styles that all of them know."""
    return [style for style in run.settings.styles if style in painters[0].styles]


def draw(painters: Sequence[Painter], styles: Sequence[str], *, path: Path, size: int) -> None:
    """A grid: photographs and painters below each other, the source and the styles beside."""
    rows = []
    for name in HELD_OUT:
        source = held_out(name, size=size)
        blank = np.full_like(source, 128)
        for one in painters:
            painted = [one.paint(source, s) if s in one.styles else blank for s in styles]
            rows.append(np.hstack([source, *painted]))
        rows.append(np.hstack([source, *(OPERATORS[style](source) for style in styles)]))
    cv2.imwrite(str(path), np.vstack(rows)[:, :, ::-1])


def _tensor(picture: Bytes) -> Tensor:
    return torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255


def _shown(value: float) -> str:
    if isnan(value):
        return ""
    return f"{value:.2f}" if abs(value) >= 1 else f"{value:.3f}"
