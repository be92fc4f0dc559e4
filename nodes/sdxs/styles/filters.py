"""Building blocks of the operators, on float32 pictures in the range 0..1."""

from __future__ import annotations

from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

Plane: TypeAlias = NDArray[np.float32]

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in a grey value (ITU-R BT.601)."""


def to_float(picture: NDArray[np.uint8]) -> Plane:
    """uint8 0..255 to float32 0..1."""
    return picture.astype(np.float32) / np.float32(255)


def to_bytes(picture: Plane) -> NDArray[np.uint8]:
    """float32 to uint8, rounded and clipped; one plane becomes three equal ones."""
    if picture.ndim == 2:
        picture = np.repeat(picture[:, :, None], 3, axis=2)
    return np.clip(np.rint(picture * 255), 0, 255).astype(np.uint8)


def grey(picture: Plane) -> Plane:
    """The luma of an RGB picture, HW."""
    return np.asarray(picture @ np.asarray(LUMA, np.float32), np.float32)


def blur(picture: Plane, sigma: float) -> Plane:
    """Gaussian blur; `sigma` in pixels."""
    return np.asarray(
        cv2.GaussianBlur(picture, (0, 0), sigma, borderType=cv2.BORDER_REFLECT_101), np.float32
    )


def smooth(picture: Plane, *, radius: float, contrast: float, rounds: int = 1) -> Plane:
    """Bilateral smoothing: flattens what differs by less than `contrast`, keeps the edges."""
    for _ in range(rounds):
        picture = np.asarray(cv2.bilateralFilter(picture, -1, contrast, radius), np.float32)
    return picture


def tangents(plane: Plane, *, sigma: float) -> tuple[Plane, Plane]:
    """Unit vectors (x, y) along the edges, from the structure tensor smoothed by `sigma` pixels.

    Brox et al., "Adaptive structure tensors and their applications", 2006; used for drawing by
    Kyprianidis and Kang, "Image and Video Abstraction by Coherence-Enhancing Filtering", 2011.
    """
    gx = cv2.Scharr(plane, cv2.CV_32F, 1, 0)
    gy = cv2.Scharr(plane, cv2.CV_32F, 0, 1)
    xx, yy, xy = blur(gx * gx, sigma), blur(gy * gy, sigma), blur(gx * gy, sigma)
    # The angle of the major eigenvector lies across the edge; a quarter turn lies along it.
    angle = 0.5 * np.arctan2(2 * xy, xx - yy) + np.pi / 2
    return np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)


def along(picture: Plane, direction: tuple[Plane, Plane], *, sigma: float) -> Plane:
    """Blur along a field of directions by `sigma` pixels (line integral convolution)."""
    height, width = picture.shape[:2]
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    total = picture.copy()
    weights = 1.0
    for sign in (1.0, -1.0):
        x, y = columns.copy(), rows.copy()
        dx, dy = direction[0] * sign, direction[1] * sign
        for step in range(1, int(2 * sigma) + 1):
            x += dx
            y += dy
            weight = float(np.exp(-0.5 * (step / sigma) ** 2))
            total += weight * cv2.remap(
                picture, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
            )
            weights += weight
            nx = _sample(direction[0], x, y)
            ny = _sample(direction[1], x, y)
            # A tangent has no sign: keep walking forwards.
            turn = np.where(nx * dx + ny * dy < 0, np.float32(-1), np.float32(1))
            dx, dy = nx * turn, ny * turn
    return np.asarray(total / np.float32(weights), np.float32)


def _sample(plane: Plane, x: Plane, y: Plane) -> Plane:
    return np.asarray(
        cv2.remap(plane, x, y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REFLECT_101), np.float32
    )


def lines(plane: Plane, *, sigma: float, gain: float, threshold: float, softness: float) -> Plane:
    """A drawing of dark lines on white: 1 is paper, 0 is line.

    The extended difference of Gaussians, Winnemöller, Kyprianidis and Olsen, "XDoG", 2012, with
    the threshold on the pure difference, so that a line's presence does not depend on brightness.
    `gain` scales the difference, `threshold` is how much of it stays paper, and `softness` is the
    width of the ramp between paper and line, all in units of luma.
    """
    difference = blur(plane, 1.6 * sigma) - blur(plane, sigma)
    ramp = (difference * gain - threshold) / softness
    return np.asarray(1 - np.clip(ramp, 0, 1) ** 2 * (3 - 2 * np.clip(ramp, 0, 1)), np.float32)


def steps(plane: Plane, *, count: int, sharpness: float) -> Plane:
    """Soft quantisation into `count` levels: flat areas with ramps that do not flicker.

    Winnemöller, Olsen and Gooch, "Real-Time Video Abstraction", 2006.
    """
    scaled = plane * count
    nearest = np.floor(scaled) + 0.5
    return np.asarray(
        (nearest + 0.5 * np.tanh((scaled - nearest) * sharpness) / np.tanh(sharpness / 2)) / count,
        np.float32,
    )


def saturate(picture: Plane, amount: float) -> Plane:
    """Move colours away from (`amount` above 1) or towards (below 1) their own grey."""
    base = grey(picture)[:, :, None]
    return np.asarray(np.clip(base + (picture - base) * amount, 0, 1), np.float32)
