"""How evenly a model goes over from one style to another, on photographs that it never saw."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from nodes.sdxs.distill.measure import likeness
from nodes.sdxs.distill.pictures import HELD_OUT, held_out
from nodes.sdxs.styles import OPERATORS

Bytes = NDArray[np.uint8]
Paint = Callable[[Bytes, str], Bytes]
"""A picture in a style or a blend of them: uint8 HW3 and the prompt, to uint8 HW3."""

WEIGHTS = (0.25, 0.5, 0.75)
"""Of the second style, where blends are judged."""


@dataclass(frozen=True)
class Blending:
    """How a model blends, over all pairs of styles and all of `WEIGHTS`.

    Attributes:
        likeness: Mean SSIM to the mean of what the two operators make, weighted as the blend is.
        uneven: Mean distance of `position` from the weight that was asked for; 0 is even.
        worst: The largest one.
        where: The blend that it is of.
    """

    likeness: float
    uneven: float
    worst: float
    where: str

    def __str__(self) -> str:
        return (
            f"SSIM {self.likeness:.3f}, uneven by {self.uneven:.3f}, "
            f"at most {self.worst:.2f} ({self.where})"
        )


def position(made: Bytes, first: Bytes, last: Bytes) -> float:
    """How far between two others a picture lies: 0 at the first, 1 at the last.

    The part of last − first that is in made − first: ⟨m − a, b − a⟩ / ‖b − a‖².
    """
    way = last.astype(np.float64) - first
    return float(((made - first.astype(np.float64)) * way).sum() / np.square(way).sum())


def prompt_of(first: str, last: str, weight: float) -> str:
    """What is asked for: `weight` of the last, the rest of the first."""
    return f"{first}:{1 - weight:g} {last}:{weight:g}"


def judge(paint: Paint, styles: Sequence[str], *, size: int) -> Blending:
    """Paints every blend of two styles.

    Args:
        paint: The model.
        styles: At least two that it knows.
        size: Of the pictures.
    """
    alike: list[float] = []
    off: dict[str, list[float]] = {}
    for name in HELD_OUT:
        source = held_out(name, size=size)
        ends = {style: paint(source, style) for style in styles}
        targets = {style: OPERATORS[style](source).astype(np.float64) for style in styles}
        for first, last in itertools.combinations(styles, 2):
            for weight in WEIGHTS:
                prompt = prompt_of(first, last, weight)
                made = paint(source, prompt)
                between = (1 - weight) * targets[first] + weight * targets[last]
                alike.append(likeness(made, np.rint(between).astype(np.uint8)))
                found = position(made, ends[first], ends[last])
                off.setdefault(prompt, []).append(abs(found - weight))
    means = {prompt: float(np.mean(values)) for prompt, values in off.items()}
    where = max(means, key=lambda prompt: means[prompt])
    return Blending(
        float(np.mean(alike)), float(np.mean(list(means.values()))), means[where], where
    )


def draw(paint: Paint, pairs: Sequence[tuple[str, str]], *, path: Path, size: int) -> None:
    """The first held-out photograph on its way from style to style: a pair a row."""
    source = held_out(HELD_OUT[0], size=size)
    rows = []
    for first, last in pairs:
        prompts = [prompt_of(first, last, weight) for weight in WEIGHTS]
        rows.append(np.hstack([paint(source, prompt) for prompt in (first, *prompts, last)]))
    cv2.imwrite(str(path), np.vstack(rows)[:, :, ::-1])
