"""One picture to be painted: where it is, where the result goes, by which settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

    from nodes.sdxs.noise import Noises

Bytes = NDArray[np.uint8]
Picture: TypeAlias = "Bytes | torch.Tensor"
"""uint8 RGB, height × width × 3: an array in host memory, or a tensor on the engine's device"""


class SpoiledPictureError(ArithmeticError):
    """A result holds NaN or infinite numbers, and so is no picture."""


@dataclass(frozen=True, eq=False, slots=True)
class Settings:
    """What a picture is painted by; made by `OneStep.snapshot`, and never changed.

    Attributes:
        embedding: what the prompt comes to, of a kind that is the engine's own.
        conditioning_scale: how firmly the picture steers, 0 to 2.
        noise: that of the seed, for pictures of any size.
    """

    embedding: Any
    conditioning_scale: float
    noise: Noises


@dataclass(eq=False, slots=True)
class Job:
    """One picture for `OneStep.paint_jobs`.

    Attributes:
        image: the source; `Picture`.
        out: receives the result; of the same kind and shape, shares no memory with `image`.
        settings: of the engine that is to paint it, or of a sibling of it.
        past: `latents` of the job before, of an engine with `feeds_back_latents`; None at first.
        share: of the past in the result, 0 to 1.
        stream: of torch's, on which tensors of the job are used; None for that of the thread that
            paints. The work is ordered behind it, and it behind the work.
        latents: set by painting where `share` is above 0: for `past` of the next job.
        finite: set by painting: whether the result is a picture, or has numbers that are not
            finite. A tensor of one bool on the device where `out` is a tensor on a GPU, so that
            nobody has to wait for it.
    """

    image: Any
    out: Any
    settings: Settings
    past: Any = None
    share: float = 0.0
    stream: Any = None
    latents: Any = None
    finite: Any = True
