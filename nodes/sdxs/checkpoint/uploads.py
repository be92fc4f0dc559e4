"""Tensors of the host on a device, each brought there once."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.float32]

_KEPT: Final = 16


class Uploads:
    """Copies on a device of tensors that nobody writes to; the latest few are kept.

    Args:
        device: Where to.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._kept: OrderedDict[int, tuple[Tensor | Floats, Tensor]] = OrderedDict()

    def of(self, value: Tensor | Floats) -> Tensor:
        """The copy of a tensor or array, the same object each time; itself if it is there."""
        tensor = value if isinstance(value, Tensor) else torch.from_numpy(value)
        if tensor.device == self._device:
            return tensor
        key = id(value)
        found = self._kept.get(key)
        if found is None:
            # From pinned memory the host does not wait for the copy; torch keeps that memory
            # until it is made.
            copied = tensor.pin_memory().to(self._device, non_blocking=True)
            # The value is kept too, so that its number is no other's meanwhile.
            found = self._kept[key] = value, copied
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return found[1]
