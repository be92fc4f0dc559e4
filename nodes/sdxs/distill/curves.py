"""A stage's curve as a picture: one panel for each value, over the steps."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT, MARGIN = 320, 180, 34
_PAPER, _AXES, _LINE, _WORDS = (255, 255, 255), (170, 170, 170), (160, 70, 20), (40, 40, 40)


def load(path: Path) -> dict[str, list[tuple[int, float]]]:
    """The values of a curve by name, as (step, value).

    A run that was interrupted may have logged some steps twice: the last time counts.
    """
    found: dict[str, dict[int, float]] = {}
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            found.setdefault(row["name"], {})[int(row["step"])] = float(row["value"])
    return {name: sorted(values.items()) for name, values in found.items()}


def plot(curve: Path, picture: Path) -> None:
    """Draws every value of a curve but the pace into one PNG."""
    values = {name: points for name, points in load(curve).items() if name != "seconds"}
    panels = [_panel(name, points) for name, points in values.items()]
    columns = min(3, len(panels))
    blank = np.full_like(panels[0], 255)
    panels += [blank] * (-len(panels) % columns)
    rows = [np.hstack(panels[at : at + columns]) for at in range(0, len(panels), columns)]
    cv2.imwrite(str(picture), np.vstack(rows))


def _panel(name: str, points: list[tuple[int, float]]) -> NDArray[np.uint8]:
    panel = np.full((HEIGHT, WIDTH, 3), _PAPER, np.uint8)
    steps = np.array([step for step, _ in points], float)
    values = np.array([value for _, value in points])
    low, high = float(values.min()), float(values.max())
    # A loss that falls by more than tenfold is read on a logarithmic scale.
    logarithmic = low > 0 and high > 10 * low
    shown = np.log(values) if logarithmic else values
    bottom, top = float(shown.min()), float(shown.max())
    x = MARGIN + (steps - steps[0]) / max(float(np.ptp(steps)), 1) * (WIDTH - MARGIN - 12)
    y = HEIGHT - 24 - (shown - bottom) / max(top - bottom, 1e-12) * (HEIGHT - 54)
    cv2.rectangle(panel, (MARGIN, 26), (WIDTH - 10, HEIGHT - 20), _AXES)
    path = np.rint(np.stack([x, y], 1)).astype(np.int32)
    cv2.polylines(panel, [path], False, _LINE, 1, cv2.LINE_AA)
    title = f"{name}: {values[0]:.4g} to {values[-1]:.4g}{' (log)' if logarithmic else ''}"
    for text, place in (
        (title, (8, 16)),
        (f"{high:.3g}", (2, 36)),
        (f"{low:.3g}", (2, HEIGHT - 22)),
        (f"{int(steps[-1])}", (WIDTH - 44, HEIGHT - 6)),
    ):
        cv2.putText(panel, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.36, _WORDS, 1, cv2.LINE_AA)
    return panel
