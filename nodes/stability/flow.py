"""Optical flow between two pictures, and what can be trusted of it."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Motion:
    """Where each pixel of a picture was in the one before.

    Attributes:
        field: float32 of shape (H, W, 2): pixels to the right and downwards from a place in the
            later picture to the same thing in the earlier one.
        trusted: bool of shape (H, W): the thing was in sight in both pictures, as far as can be
            told.
    """

    field: Floats
    trusted: npt.NDArray[np.bool_]


class Flow:
    """Finds motion by dense inverse search, the flow of OpenCV that is good and quick.

    T. Kroeger, R. Timofte, D. Dai, L. Van Gool, "Fast Optical Flow using Dense Inverse Search",
    ECCV 2016.
    """

    def __init__(self) -> None:
        self._search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)

    def between(self, earlier: Bytes, later: Bytes) -> Motion:
        """The motion from one picture to the next.

        A pixel is trusted where flow there and back ends where it began: |f + b|² below
        0.01 (|f|² + |b|²) + 0.5 pixels² (N. Sundaram, T. Brox, K. Keutzer, ECCV 2010), and where
        it does not come from outside the picture.

        Args:
            earlier: uint8 of shape (H, W, 3), RGB, or (H, W); both sides at least 16 pixels.
            later: likewise.

        Raises:
            ValueError: two shapes, another type, or too small a picture.
        """
        check_pair(earlier, later)
        if min(earlier.shape[:2]) < 16:
            raise ValueError(
                "motion is found in pictures of 16 pixels a side and more, "
                f"not {earlier.shape[1]}x{earlier.shape[0]}"
            )
        before, after = gray(earlier), gray(later)
        backward = self._calculated(after, before)
        forward = self._calculated(before, after)
        there = warped(forward, backward)
        error = np.sum((backward + there) ** 2, axis=2)
        size = np.sum(backward**2, axis=2) + np.sum(there**2, axis=2)
        height, width = before.shape
        x, y = _places(backward)
        inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
        return Motion(backward, (error < 0.01 * size + 0.5) & inside)

    def _calculated(self, source: Bytes, target: Bytes) -> Floats:
        blank = np.zeros((*source.shape, 2), np.float32)
        return np.asarray(self._search.calc(source, target, blank), dtype=np.float32)


def warped(picture: Bytes | Floats, field: Floats) -> Floats:
    """A picture as it looks at the places that a flow points to, by bilinear sampling.

    Args:
        picture: uint8 or float32 of shape (H, W) or (H, W, channels).
        field: float32 of shape (H, W, 2), pixels; beyond the border the border is repeated.

    Returns:
        float32 of the picture's shape.
    """
    x, y = _places(field)
    moved = cv2.remap(
        picture.astype(np.float32), x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(moved, dtype=np.float32).reshape(picture.shape)


def gray(picture: Bytes) -> Bytes:
    """Luminance, uint8 of shape (H, W), of a picture in RGB or in luminance."""
    if picture.ndim == 2:
        return picture
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), dtype=np.uint8)


def check_pair(one: Bytes, other: Bytes) -> None:
    """Whether two arrays are pictures of one shape.

    Raises:
        ValueError: they are not.
    """
    for picture in (one, other):
        if (
            picture.dtype != np.uint8
            or picture.ndim not in (2, 3)
            or (picture.ndim == 3 and picture.shape[2] != 3)
        ):
            raise ValueError(
                "a picture is uint8 of shape (H, W, 3) or (H, W), "
                f"not {picture.dtype} of {picture.shape}"
            )
    if one.shape != other.shape:
        raise ValueError(f"the pictures differ in shape: {one.shape} and {other.shape}")


def _places(field: Floats) -> tuple[Floats, Floats]:
    height, width = field.shape[:2]
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    return x + field[..., 0], y + field[..., 1]
