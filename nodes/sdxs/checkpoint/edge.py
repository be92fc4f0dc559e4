"""Pictures between host memory and the engine's device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def upload(picture: Any, device: torch.device) -> Tensor:
    """A picture on a device: a tensor there as it is, else a copy, or on the CPU a view of it.

    To a GPU it goes from pinned memory, which torch keeps until the copy is made, so that the
    host does not wait.
    """
    if isinstance(picture, Tensor):
        tensor = picture
    else:
        # No backend looks at read-only memory: that is copied, as is what has gaps.
        tensor = torch.from_numpy(np.require(picture, requirements=("C", "W")))
    if device.type != "cuda" or tensor.device.type == "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def download(pictures: Sequence[Tensor]) -> list[NDArray[np.uint8]]:
    """Pictures in host memory: views on the CPU, copies from a GPU, which are waited for once."""
    if not pictures or pictures[0].device.type != "cuda":
        return [picture.numpy() for picture in pictures]
    found = []
    for picture in pictures:
        host = torch.empty(picture.shape, dtype=picture.dtype, pin_memory=True)
        found.append(host.copy_(picture, non_blocking=True))
    torch.cuda.current_stream(pictures[0].device).synchronize()
    return [host.numpy() for host in found]
