"""Weights of a Gaussian blur, the same eight-bit ones that OpenCV uses."""

from __future__ import annotations

import math
from typing import Final

MAX_SIGMA: Final = 3.0
"""Widest blur, pixels."""


def gaussian_taps(sigma: float) -> tuple[int, ...]:
    """Weights of a blur in units of 1/256: of the centre, then at distance 1, 2 and so on.

    With both sides they add up to 256. They are those of `cv2.GaussianBlur` on uint8, with its
    own choice of size for `sigma` (`round(6 sigma + 1)`, made odd): the rounding error of each
    weight is carried over to the next, from the outside inwards
    (`getGaussianKernelFixedPoint_ED` in OpenCV's `smooth.dispatch.cpp`).

    Args:
        sigma: standard deviation, pixels, 0 to `MAX_SIGMA`; 0 leaves pictures as they are.

    Raises:
        ValueError: `sigma` is out of range.
    """
    if not 0 <= sigma <= MAX_SIGMA:
        raise ValueError(f"a blur is 0 to {MAX_SIGMA:g} pixels wide, not {sigma:g}")
    if sigma == 0:
        return (256,)
    reach = (round(6 * sigma + 1) | 1) // 2
    exact = [math.exp(-0.5 * (step / sigma) ** 2) for step in range(reach + 1)]
    total = exact[0] + 2 * sum(exact[1:])
    taps, error = [0] * (reach + 1), 0.0
    for step in range(reach, 0, -1):
        wanted = exact[step] / total * 256 + error
        taps[step] = round(wanted)
        error = wanted - taps[step]
    taps[0] = 256 - 2 * sum(taps[1:])
    return tuple(taps)
