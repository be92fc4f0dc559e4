"""Paint: oil in visible strokes, and watercolour on white paper."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from nodes.sdxs.styles import filters as f

PAPER = np.array([0.992, 0.986, 0.968], np.float32)
SECTORS = 8


def oil(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Kuwahara patches drawn out along the edges, vivid, with the relief of thick paint."""
    colour = kuwahara(f.to_float(picture), radius=4)
    direction = f.tangents(f.grey(colour), sigma=2.5)
    colour = f.along(colour, direction, sigma=3.5)
    colour = f.saturate(colour, 1.35)
    colour = np.clip(0.5 + (colour - 0.5) * 1.10, 0, 1)
    luma = f.grey(colour)
    # Light from the upper left on the ridges between strokes.
    ridge = f.blur(luma, 1.8) - luma
    relief = cv2.filter2D(
        ridge, cv2.CV_32F, np.array([[-1, -1, 0], [-1, 0, 1], [0, 1, 1]], np.float32) / 2
    )
    sharp = colour - 0.6 * ridge[:, :, None] + 1.2 * relief[:, :, None]
    return f.to_bytes(np.asarray(sharp, np.float32))


def watercolor(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Pale transparent washes on paper, darker where the pigment gathers, over a faint drawing."""
    source = f.to_float(picture)
    colour = f.smooth(kuwahara(source, radius=3), radius=5, contrast=0.10)
    # A wash is laid in a few layers: lightness falls in soft steps.
    lab = np.asarray(cv2.cvtColor(colour, cv2.COLOR_RGB2Lab), np.float32)
    layers = 100 * f.steps(np.clip(lab[:, :, 0] / 100, 0, 1), count=4, sharpness=4.0)
    lab[:, :, 0] = 0.5 * lab[:, :, 0] + 0.5 * layers
    lab[:, :, 1:] *= np.float32(1.3)
    colour = np.asarray(np.clip(cv2.cvtColor(lab, cv2.COLOR_Lab2RGB), 0, 1), np.float32)
    luma = f.grey(colour)
    # Pigment gathers inside the darker side of an edge.
    border = np.clip(f.blur(luma, 3.0) - f.blur(luma, 1.0), 0, 0.25)
    density = (1 - colour) ** 1.2 * 0.72
    wash = 1 - np.clip(density * (1 + 3.0 * border[:, :, None]), 0, 1)
    # Highlights are bare paper.
    bare = np.clip((f.blur(luma, 1.5) - 0.55) / 0.30, 0, 1)[:, :, None]
    wash = wash + (PAPER - wash) * 0.7 * bare
    drawing = f.lines(f.grey(source), sigma=1.0, gain=7.0, threshold=0.12, softness=0.5)
    return f.to_bytes(np.asarray(wash * (0.55 + 0.45 * drawing[:, :, None]), np.float32))


def kuwahara(picture: f.Plane, *, radius: int, hardness: float = 8.0) -> f.Plane:
    """The generalised Kuwahara filter: each pixel takes the mean of its calmest sectors.

    Papari, Petkov and Campisi, "Artistic Edge and Corner Enhancing Smoothing", 2007. The picture
    is an RGB float32 of 0..1; `radius` in pixels; the weights are powers of the sectors' standard
    deviations, so the result moves smoothly when the picture does.
    """
    total = np.zeros_like(picture)
    weights = np.zeros(picture.shape[:2], np.float32)
    luma = f.grey(picture)
    squares = luma * luma
    for kernel in _sectors(radius):
        mean = _filter(picture, kernel)
        flat = _filter(luma, kernel)
        deviation = np.sqrt(np.maximum(_filter(squares, kernel) - flat * flat, 0))
        weight = 1 / (1 + (deviation * 40) ** hardness)
        total += mean * weight[:, :, None]
        weights += weight
    return np.asarray(total / np.maximum(weights, 1e-20)[:, :, None], np.float32)


def _filter(picture: f.Plane, kernel: f.Plane) -> f.Plane:
    return np.asarray(
        cv2.filter2D(picture, cv2.CV_32F, kernel, borderType=cv2.BORDER_REFLECT_101), np.float32
    )


def _sectors(radius: int) -> list[f.Plane]:
    rows, columns = np.mgrid[-radius : radius + 1, -radius : radius + 1].astype(np.float32)
    falloff = np.exp(-(rows**2 + columns**2) / (2 * (radius / 2) ** 2))
    angles = np.arctan2(rows, columns)
    kernels = []
    for index in range(SECTORS):
        turned = np.angle(np.exp(1j * (angles - 2 * np.pi * index / SECTORS)))
        wedge = np.clip(1.5 - np.abs(turned) / (np.pi / SECTORS), 0, 1) * falloff
        wedge[radius, radius] = 1.0 / SECTORS
        kernels.append(np.asarray(wedge / wedge.sum(), np.float32))
    return kernels
