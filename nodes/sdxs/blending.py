"""Means of directions: how much of each of several vectors makes up one between them.

Straight means of vectors that point apart are shorter than any of them. A mean on the sphere is as
long as they are, and halfway along an arc it is halfway in angle, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

BLENDS: Final = ("linear", "spherical")

_NOWHERE: Final = 1e-6
"""Length of a straight mean of unit vectors below which they cancel out."""
_NEAR: Final = 1e-7
"""Sine of an angle below which it is taken for its sine."""
_CLOSE_ENOUGH: Final = 1e-12
"""Radians of the last step; a step is many times shorter than the one before."""
_MOST_STEPS: Final = 200

Doubles = NDArray[np.float64]


def check(blend: str) -> None:
    """Raises ValueError if there is no such kind of blend."""
    if blend not in BLENDS:
        raise ValueError(f"unknown blend {blend!r}; known are linear and spherical")


def spherical_weights(cosines: Any, weights: Sequence[float]) -> Doubles:
    """Slerp of any number of directions: their weighted mean on the sphere.

    The mean q of unit vectors pᵢ with weights wᵢ minimises Σ wᵢ · angle(q, pᵢ)². It is found from
    the straight mean by steps along u = Σ wᵢ · log_q(pᵢ), to cos |u| q + sin |u| / |u| · u, where
    log_q(p) = θ / sin θ · (p − cos θ q) and θ is the angle between q and p. Algorithm A1 of Buss
    and Fillmore, "Spherical Averages and Applications to Spherical Splines and Interpolation", ACM
    Transactions on Graphics 20(2), 2001. All of it lies in the span of the pᵢ, so that their
    angles are all that is needed. Of two directions it is slerp; the order does not matter.

    Args:
        cosines: … × n × n, of the angles between the directions.
        weights: n, positive, adding up to 1.

    Returns:
        … × n: the mean is Σ cᵢ pᵢ, of length 1. Where the directions cancel out there is no one
        mean, and the weights themselves are returned, whose mean is short.
    """
    gram = np.asarray(cosines, np.float64)
    shares = np.asarray(weights, np.float64)
    straight = np.broadcast_to(shares, gram.shape[:-1])
    length = _length(straight, gram)
    nowhere = length < _NOWHERE
    mean = straight / np.where(nowhere, 1.0, length)
    for _ in range(_MOST_STEPS):
        cosine = np.clip(np.einsum("...ij,...j->...i", gram, mean), -1, 1)
        sine = np.sqrt(1 - cosine**2)
        far = sine > _NEAR
        pull = shares * np.where(far, np.arccos(cosine) / np.where(far, sine, 1.0), 1.0)
        step = pull - (pull * cosine).sum(-1, keepdims=True) * mean
        angle = _length(step, gram)
        mean = np.cos(angle) * mean + np.sinc(angle / np.pi) * step
        mean /= np.where(nowhere, 1.0, _length(mean, gram))
        if np.where(nowhere, 0.0, angle).max(initial=0.0) < _CLOSE_ENOUGH:
            break
    return np.where(nowhere, straight, mean)


def factors(vectors: Any, weights: Sequence[float], blend: str) -> Doubles:
    """How much of each vector is in a blend of them.

    Args:
        vectors: n × … × width; each of the … is mixed by itself.
        weights: n, positive, adding up to 1.
        blend: `linear` gives the weighted mean; `spherical` takes directions by
            `spherical_weights` and lengths linearly.

    Returns:
        n × …, so that the blend is Σ fᵢ vᵢ.

    Raises:
        ValueError: There is no such kind of blend.
    """
    check(blend)
    given = np.asarray(vectors, np.float64)
    shares = np.asarray(weights, np.float64)
    if blend == "linear":
        return np.broadcast_to(shares.reshape(-1, *(1,) * (given.ndim - 2)), given.shape[:-1])
    lengths = np.moveaxis(np.linalg.norm(given, axis=-1), 0, -1)
    safe = np.maximum(lengths, np.finfo(np.float64).tiny)
    units = np.moveaxis(given, 0, -2) / safe[..., None]
    cosines = np.einsum("...id,...jd->...ij", units, units)
    mixed = spherical_weights(cosines, weights)
    length = (lengths * shares).sum(-1, keepdims=True)
    return np.moveaxis(mixed * length / safe, -1, 0)


def _length(coefficients: Any, gram: Doubles) -> Doubles:
    squared = np.einsum("...i,...ij,...j->...", coefficients, gram, coefficients)
    return np.asarray(np.sqrt(np.maximum(squared, 0.0)))[..., None]
