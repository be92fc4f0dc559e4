"""Drawings in one colour: ink with a wash, and soft pencil."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nodes.sdxs.styles import filters as f

PAPER = np.array([0.985, 0.968, 0.925], np.float32)
INK = np.array([0.075, 0.075, 0.115], np.float32)
GRAPHITE = np.array([0.16, 0.16, 0.17], np.float32)


def ink(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Brush lines that follow the edges, solid blacks in the shadows, one grey wash."""
    luma = f.grey(f.smooth(f.to_float(picture), radius=3, contrast=0.12))
    along = f.tangents(luma, sigma=2.5)
    line = f.lines(
        f.along(luma, along, sigma=2.5), sigma=1.1, gain=9.0, threshold=0.10, softness=0.28
    )
    line = f.along(line, along, sigma=1.5)
    mass = f.blur(luma, 1.2)
    black = _ramp(mass, 0.13, 0.21)
    wash = 0.70 + 0.30 * _ramp(mass, 0.34, 0.46)
    tone = np.minimum(line, black) * wash
    return f.to_bytes(_between(INK, PAPER, tone))


def pencil(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Dodge and burn: what is darker than its surroundings is graphite, the rest is paper."""
    luma = f.grey(f.smooth(f.to_float(picture), radius=2, contrast=0.06))
    around = f.blur(luma, 7.0)
    sketch = np.clip(1 - (1 - luma - 0.02) * 1.0, 0, 1) / np.maximum(around, 0.04)
    sketch = np.clip(sketch, 0, 1) ** 2.2
    contour = f.lines(luma, sigma=0.9, gain=7.0, threshold=0.06, softness=0.5)
    # A light tone keeps the large shadows that dodging alone would bleach away.
    shade = 0.62 + 0.38 * np.clip(f.blur(luma, 1.5) / 0.62, 0, 1)
    tone = sketch * shade * (0.25 + 0.75 * contour)
    return f.to_bytes(_between(GRAPHITE, np.ones(3, np.float32) * 0.985, tone))


def _ramp(plane: f.Plane, low: float, high: float) -> f.Plane:
    part = np.clip((plane - low) / (high - low), 0, 1)
    return np.asarray(part * part * (3 - 2 * part), np.float32)


def _between(dark: f.Plane, light: f.Plane, tone: f.Plane) -> f.Plane:
    return np.asarray(dark + (light - dark) * tone[:, :, None], np.float32)
