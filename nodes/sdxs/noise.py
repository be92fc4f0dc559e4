"""The noise that every picture begins with: of a seed, or between those of several."""

from __future__ import annotations

import copy
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nodes.sdxs import blending, seeds

KEPT_SIZES = 4
"""Sizes whose noise stays in memory; the one unused for longest goes first."""


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


def mix(noises: Sequence[Any], weights: Sequence[float], blend: str) -> Any:
    """One noise out of several, as strong as each of them: of variance 1 if they are.

    Linear: Σ wᵢ nᵢ / √(Σ wᵢ²), since the variances of independent numbers add up, each times its
    weight squared. Spherical: Σ cᵢ nᵢ with the c of `blending.spherical_weights` for the angles
    between the noises; of two it is `slerp`. Drawn independently, noises of many numbers stand at
    right angles to each other: then the two kinds differ in how fast they go from one to another,
    not in how strong they are.

    Args:
        noises: arrays or tensors of one shape and kind, drawn independently.
        weights: positive, adding up to 1, one for each.
        blend: `linear` or `spherical`.

    Raises:
        ValueError: there is no such kind of blend.
    """
    blending.check(blend)
    if len(noises) == 1:
        return noises[0]
    if blend == "linear":
        strength = sum(weight**2 for weight in weights) ** 0.5
        factors = [weight / strength for weight in weights]
    else:
        products = np.array([[float((a * b).sum()) for b in noises] for a in noises])
        norms = np.sqrt(np.diag(products))
        factors = blending.spherical_weights(products / np.outer(norms, norms), weights).tolist()
    mixed = noises[0] * factors[0]
    for noise, factor in zip(noises[1:], factors[1:], strict=True):
        mixed = mixed + noise * factor
    return mixed


Draw = Callable[[int, tuple[int, ...]], Any]
"""Gives the noise of a seed in a shape."""


class Noises:
    """Noise by shape, drawn once and kept until a setting changes; for several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._parts: tuple[tuple[int, float], ...] = ((0, 1.0),)
        self._blend = "linear"
        self._turn = 0.0
        self._ends: OrderedDict[tuple[tuple[int, ...], int], Any] = OrderedDict()
        self._now: OrderedDict[tuple[int, ...], Any] = OrderedDict()

    def take(self, parts: tuple[tuple[int, float], ...], *, blend: str, turn: float) -> None:
        """Another noise from now on.

        Args:
            parts: seeds and their weights, which add up to 1.
            blend: how several are mixed, `linear` or `spherical`.
            turn: how far each seed's noise has gone to that of the seed after it: 0.5 is halfway,
                1 is there.
        """
        # Not emptied: snapshots of before go on with what was drawn for them.
        if (parts, blend) != (self._parts, self._blend):
            self._ends = OrderedDict()
        self._parts, self._blend, self._turn = parts, blend, turn
        self._now = OrderedDict()

    def snapshot(self) -> Noises:
        """The noise of now, which stays when another one is taken here."""
        return copy.copy(self)

    def of(self, shape: tuple[int, ...], draw: Draw) -> Any:
        """The noise in a shape, by `draw` if it is not there yet; the same object each time."""
        with self._lock:
            return self._of(shape, draw)

    def _of(self, shape: tuple[int, ...], draw: Draw) -> Any:
        if shape not in self._now:
            whole = int(self._turn)
            noise = self._end(shape, whole, draw)
            if share := self._turn - whole:
                noise = slerp(noise, self._end(shape, whole + 1, draw), share)
            self._now[shape] = noise
            while len(self._now) > KEPT_SIZES:
                self._now.popitem(last=False)
        self._now.move_to_end(shape)
        return self._now[shape]

    def _end(self, shape: tuple[int, ...], turn: int, draw: Draw) -> Any:
        """The noise where all seeds are so many further; kept while the noise turns towards it."""
        key = (shape, turn)
        if key not in self._ends:
            drawn = [draw((seed + turn) % (seeds.LARGEST + 1), shape) for seed, _ in self._parts]
            self._ends[key] = mix(drawn, [weight for _, weight in self._parts], self._blend)
            while len(self._ends) > 2 * KEPT_SIZES:
                self._ends.popitem(last=False)
        self._ends.move_to_end(key)
        return self._ends[key]
