"""The measures: how much changes from one picture to the next that motion does not explain."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np

from nodes.stability.flow import Bytes, Motion, check_pair, warped

LEAST_TRUSTED: Final = 0.1
"""Share of a picture whose motion must be known; below, two pictures are a cut apart."""


def warp_error(earlier: Bytes, later: Bytes, motion: Motion) -> float | None:
    """How much a picture differs from the one before, moved as the scene moved.

    The mean over trusted pixels and channels of |later - warped(earlier)|: the warping error of
    W.-S. Lai et al., "Learning Blind Video Temporal Consistency", ECCV 2018, with the absolute in
    place of the squared difference, so that it is in grey levels and an edge that is a pixel off
    does not outweigh all else.

    Args:
        earlier: uint8 of shape (H, W, 3) or (H, W).
        later: likewise; of the same size as the pictures that the motion was found in.
        motion: of the scene, usually found in the source of both.

    Returns:
        Grey levels, 0 to 255; None where less than a tenth of the motion can be trusted, as at a
        cut.

    Raises:
        ValueError: shapes or types do not fit.
    """
    check_pair(earlier, later)
    if later.shape[:2] != motion.trusted.shape:
        height, width = motion.trusted.shape
        raise ValueError(
            f"the motion is of {width}x{height} pixels, the pictures of "
            f"{later.shape[1]}x{later.shape[0]}"
        )
    if motion.trusted.mean() < LEAST_TRUSTED:
        return None
    apart = np.abs(later.astype(np.float32) - warped(earlier, motion.field))
    return float(apart[motion.trusted].mean(dtype=np.float64))


def flicker(pictures: Sequence[Bytes]) -> float:
    """How much pictures of something that does not move differ from one to the next.

    Args:
        pictures: two or more, uint8, of one shape.

    Returns:
        The mean absolute difference of neighbours in time, grey levels.

    Raises:
        ValueError: fewer than two pictures, or their shapes differ.
    """
    if len(pictures) < 2:
        raise ValueError(f"flicker takes two pictures or more, not {len(pictures)}")
    total = 0.0
    for one, other in itertools.pairwise(pictures):
        check_pair(one, other)
        total += float(np.abs(one.astype(np.int16) - other).mean(dtype=np.float64))
    return total / (len(pictures) - 1)


def noisy_stills(picture: Bytes, *, sigma: float, count: int, seed: int = 0) -> Iterator[Bytes]:
    """One picture again and again, as a camera at rest sees it: with noise of its sensor.

    Args:
        picture: uint8 of shape (H, W, 3) or (H, W).
        sigma: standard deviation of the noise, grey levels; independent for each pixel, channel
            and picture, Gaussian. A webcam in a room has 1 to 4.
        count: how many.
        seed: of the noise.

    Yields:
        uint8 of the picture's shape. Their flicker is `flicker_of_noise(sigma)`, less what is cut
        off at black and white.
    """
    random = np.random.default_rng(seed)
    base = picture.astype(np.float32)
    for _ in range(count):
        noise = random.standard_normal(picture.shape, np.float32) * np.float32(sigma)
        yield np.rint(base + noise).clip(0, 255).astype(np.uint8)


def flicker_of_noise(sigma: float) -> float:
    """The flicker of Gaussian noise: the mean of |a - b| is 2 sigma / sqrt(pi)."""
    return 2.0 * sigma / math.sqrt(math.pi)
