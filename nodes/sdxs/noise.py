"""Noise between two noises. Embeddings are mixed vector by vector, in `checkpoint.text`."""

from __future__ import annotations

from typing import Any

import numpy as np


def slerp(start: Any, end: Any, share: float) -> Any:
    """Between two noises along the sphere that they lie on, so that it stays as strong.

    (sin((1 − t)ω) · a + sin(tω) · b) / sin ω, with ω the angle between a and b (Shoemake 1985).

    Args:
        start: array or tensor.
        end: of the same shape and kind.
        share: t, 0 to 1.
    """
    if share <= 0:
        return start
    norms = float((start * start).sum()) ** 0.5 * float((end * end).sum()) ** 0.5
    angle = float(np.arccos(np.clip(float((start * end).sum()) / norms, -1, 1)))
    if np.sin(angle) < 1e-4:
        return start * (1 - share) + end * share
    return (start * np.sin((1 - share) * angle) + end * np.sin(share * angle)) / np.sin(angle)
