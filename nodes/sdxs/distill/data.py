"""The training set: source pictures and what each operator makes of them, kept on disk as bytes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from nodes.sdxs.distill.pictures import dead_leaves, photograph_crop, photographs
from nodes.sdxs.styles import OPERATORS

BLOCK = 100
"""Pictures made from one random seed, so that the set does not depend on the number of workers."""


def prepare(
    folder: Path,
    *,
    styles: Sequence[str],
    count: int,
    size: int,
    photo_share: float,
    workers: int,
) -> NDArray[np.uint8]:
    """Makes the set, or opens the one that is there.

    Returns:
        uint8 (count, 1 + styles, size, size, 3), mapped from disk: the source, then each style.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"set-{count}-{size}-{photo_share:g}-{'-'.join(styles)}.npy"
    if not path.exists():
        partial = path.with_suffix(".partial")
        shape = (count, 1 + len(styles), size, size, 3)
        kept = np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=shape)
        starts = range(0, count, BLOCK)
        jobs = [
            (start, min(BLOCK, count - start), tuple(styles), size, photo_share) for start in starts
        ]
        with ExitStack() as stack:
            blocks: Iterable[tuple[int, NDArray[np.uint8]]] = map(_block, jobs)
            if workers > 1:
                pool = stack.enter_context(
                    get_context("spawn").Pool(workers, cv2.setNumThreads, (1,))
                )
                blocks = pool.imap_unordered(_block, jobs)
            for done, (start, block) in enumerate(blocks, 1):
                kept[start : start + len(block)] = block
                print(f"pictures: block {done} of {len(jobs)}", flush=True)
        kept.flush()
        partial.rename(path)
    mapped: NDArray[np.uint8] = np.load(path, mmap_mode="r")
    return mapped


def _block(job: tuple[int, int, tuple[str, ...], int, float]) -> tuple[int, NDArray[np.uint8]]:
    start, count, styles, size, photo_share = job
    rng = np.random.default_rng([2024, start])
    photos = photographs()
    rows = []
    for _ in range(count):
        if rng.random() < photo_share:
            picture = photograph_crop(rng, photos, size=size)
        else:
            picture = dead_leaves(rng, size=size)
            while picture.mean() < 30:
                picture = dead_leaves(rng, size=size)
        rows.append(np.stack([picture, *(OPERATORS[style](picture) for style in styles)]))
    return start, np.stack(rows)


class Batches:
    """Random crops of random pictures in random styles; never mirrored, for oil has a lit side.

    A blend of two styles is the mean of what their operators make, weighted as the blend is: the
    picture that lies as far between the two as is asked for.

    Args:
        pictures: From `prepare`.
        shares: How often each style is drawn, in relation to the others.
        crop: Side of the crops in pixels.
        batch: How many.
        blends: What share of them is asked for as a blend of two styles.
        margin: Pixels at the border that are seldom used.
    """

    def __init__(
        self,
        pictures: NDArray[np.uint8],
        *,
        shares: Sequence[float],
        crop: int,
        batch: int,
        blends: float = 0.0,
        margin: int = 12,
    ) -> None:
        self.pictures = pictures
        self.shares = np.asarray(shares, np.float64) / sum(shares)
        self.crop = crop
        self.batch = batch
        self.blends = blends
        # The operators mirror the picture at its border, where a crop's neighbours are unknown:
        # border pixels are used, but seldom.
        self.margin = margin

    def draw(
        self, rng: np.random.Generator
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """A fresh batch.

        Returns:
            Sources and targets, float32 N3HW of 0..1, and the styles that are asked for: float32
            N × styles, whose rows add up to 1.
        """
        count, _, size = self.pictures.shape[:3]
        asked = np.zeros((self.batch, len(self.shares)), np.float32)
        sources, targets = [], []
        for row in asked:
            row[:] = self._style(rng)
            edge = 0 if rng.random() < 0.2 else self.margin
            top, left = rng.integers(edge, size - self.crop - edge + 1, 2)
            area = self.pictures[
                int(rng.integers(count)),
                :,
                top : top + self.crop,
                left : left + self.crop,
            ]
            known = np.flatnonzero(row)
            mixed = np.tensordot(row[known], area[1 + known].astype(np.float32), 1)
            sources.append(area[0].transpose(2, 0, 1))
            targets.append(mixed.transpose(2, 0, 1))
        scale = np.float32(1 / 255)
        return (
            np.stack(sources).astype(np.float32) * scale,
            np.stack(targets) * scale,
            asked,
        )

    def _style(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """What one picture is asked for in: a style, or a blend of two with any weights."""
        styles = len(self.shares)
        one: NDArray[np.float64] = np.eye(styles)
        first = int(rng.choice(styles, p=self.shares))
        if styles == 1 or rng.random() >= self.blends:
            return np.asarray(one[first])
        others = np.delete(np.arange(styles), first)
        second = int(rng.choice(others, p=self.shares[others] / self.shares[others].sum()))
        weight = rng.random()
        return np.asarray((1 - weight) * one[first] + weight * one[second])
