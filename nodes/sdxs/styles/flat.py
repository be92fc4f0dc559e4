"""Flat colour with outlines, as in a printed comic."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from nodes.sdxs.styles import filters as f


def comic(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Bilateral smoothing, five soft levels of lightness, vivid colour, bold black outlines."""
    flat = f.smooth(f.to_float(picture), radius=4, contrast=0.13, rounds=2)
    lab = np.asarray(cv2.cvtColor(flat, cv2.COLOR_RGB2Lab), np.float32)
    lab[:, :, 0] = 100 * f.steps(np.clip((lab[:, :, 0] + 3) / 96, 0, 1), count=5, sharpness=5.0)
    lab[:, :, 1:] *= np.float32(1.45)
    colour = np.clip(cv2.cvtColor(lab, cv2.COLOR_Lab2RGB), 0, 1)
    luma = f.grey(flat)
    along = f.tangents(luma, sigma=2.5)
    line = f.lines(
        f.along(luma, along, sigma=2.5), sigma=1.4, gain=12.0, threshold=0.13, softness=0.25
    )
    line = f.along(line, along, sigma=1.5)
    return f.to_bytes(np.asarray(colour * line[:, :, None], np.float32))
