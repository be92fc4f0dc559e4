"""Light on black: the outlines of things as coloured tubes that glow."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from nodes.sdxs.styles import filters as f

NIGHT = np.array([0.020, 0.022, 0.050], np.float32)


def neon(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Bright lines along the edges, each in the vivid colour of its surroundings, with a glow.

    A trace of the picture stays between the lines, so that areas without edges are not empty.
    """
    flat = f.smooth(f.to_float(picture), radius=3, contrast=0.12)
    luma = f.grey(flat)
    along = f.tangents(luma, sigma=2.5)
    # Both sides of an edge: a dark line on light is drawn as well as a light one on dark.
    clean = f.along(luma, along, sigma=2.5)
    dark, light = (
        1 - f.lines(plane, sigma=1.2, gain=9.0, threshold=0.09, softness=0.40)
        for plane in (clean, 1 - clean)
    )
    tube = f.along(np.asarray(np.maximum(dark, 0.75 * light), np.float32), along, sigma=1.5)
    colour = _vivid(f.blur(flat, 3.0))
    glow = np.asarray(0.9 * f.blur(tube, 2.5) + 0.8 * f.blur(tube, 7.0), np.float32)
    core = tube[:, :, None]
    lit = colour * (core + glow[:, :, None]) + 0.45 * core**2
    return f.to_bytes(np.asarray(NIGHT + 0.16 * flat * colour + lit, np.float32))


def _vivid(picture: f.Plane) -> f.Plane:
    """The same hues, all bright, and saturated as far as they have a hue at all."""
    lab = np.asarray(cv2.cvtColor(np.clip(picture, 0, 1), cv2.COLOR_RGB2Lab), np.float32)
    chroma = np.hypot(lab[:, :, 1], lab[:, :, 2])
    # Greys lean to blue instead of to a hue that the sensor's noise would choose.
    lab[:, :, 1:] += np.array([4.0, -16.0], np.float32) * np.exp(-chroma / 12)[:, :, None]
    chroma = np.hypot(lab[:, :, 1], lab[:, :, 2])
    lab[:, :, 1:] *= ((chroma + 45) / (chroma + 8))[:, :, None]
    lab[:, :, 0] = 58 + 0.18 * lab[:, :, 0]
    return np.asarray(np.clip(cv2.cvtColor(lab, cv2.COLOR_Lab2RGB), 0, 1), np.float32)
