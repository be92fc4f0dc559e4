"""Samples of a stage as a picture: a row for each prompt, beside each other what was asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nodes.sdxs.distill.loop import Loop

if TYPE_CHECKING:
    from nodes.sdxs.distill.full.run import Drawn, Run


def draw(run: Run, paint: Callable[[Drawn], list[Tensor]], loop: Loop) -> None:
    """Draws `samples-STEP.png` into the stage's folder, by the averaged networks.

    Args:
        run: For the prompts.
        paint: Makes the pictures of a prompt, float 13HW of 0..1 each.
        loop: Of the stage; its networks are as before afterwards, to the bit.
    """
    with torch.no_grad(), averaged(loop), loop.precision():
        rows = [np.hstack([_bytes(one) for one in paint(drawn)]) for drawn in run.shown()]
    cv2.imwrite(str(loop.folder / f"samples-{loop.step:06d}.png"), np.vstack(rows)[:, :, ::-1])


@contextmanager
def averaged(loop: Loop) -> Iterator[None]:
    """While it is open, the loop's networks have their averaged weights."""
    before = {
        name: {key: one.clone() for key, one in loop.networks[name].state_dict().items()}
        for name in loop.averages
    }
    try:
        for name in before:
            loop.networks[name].load_state_dict(loop.averaged(name))
        yield
    finally:
        for name, weights in before.items():
            loop.networks[name].load_state_dict(weights)


def _bytes(picture: Tensor) -> NDArray[np.uint8]:
    shown = (picture[0].float().clamp(0, 1) * 255).round().to(torch.uint8)
    found: NDArray[np.uint8] = shown.permute(1, 2, 0).cpu().numpy()
    return found
