"""Tensors of the host on a device, each brought there once."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

import torch
from torch import Tensor

_KEPT: Final = 16


class Uploads:
    """Copies on a device of tensors that nobody writes to; the latest few are kept.

    Args:
        device: Where to.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._kept: OrderedDict[int, tuple[Tensor, Tensor]] = OrderedDict()

    def of(self, tensor: Tensor) -> Tensor:
        """The copy, the same object each time; the tensor itself where it is on the device."""
        if tensor.device == self._device:
            return tensor
        key = id(tensor)
        found = self._kept.get(key)
        if found is None:
            # From pinned memory the host does not wait for the copy; torch keeps that memory
            # until it is made.
            copied = tensor.pin_memory().to(self._device, non_blocking=True)
            # The tensor is kept too, so that its number is no other's meanwhile.
            found = self._kept[key] = tensor, copied
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return found[1]
