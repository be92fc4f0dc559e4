"""Numbers that a device computes, read without waiting for the work that goes on there."""

from __future__ import annotations

from collections import deque
from typing import Any

import torch
from torch import Tensor


class Late:
    """Single values of a device, in the order in which they were put in.

    On a GPU a value is copied to pinned memory behind the work that makes it, and an event tells
    when it is there.

    Args:
        device: that computes them; on a CPU they are there at once.
    """

    def __init__(self, device: torch.device) -> None:
        self._gpu = device.type == "cuda"
        self._under_way: deque[tuple[Tensor, Any]] = deque()

    def put(self, value: Tensor) -> None:
        """Has a value brought, on the current stream.

        Args:
            value: of one element.
        """
        if not self._gpu:
            self._under_way.append((value.clone(), None))
            return
        host = torch.empty((), dtype=value.dtype, pin_memory=True)
        host.copy_(value, non_blocking=True)
        cuda: Any = torch.cuda
        event = cuda.Event()
        event.record(cuda.current_stream(value.device))
        self._under_way.append((host, event))

    def take(self) -> list[Any]:
        """All values that are there by now and were not taken before."""
        found = []
        while self._under_way and (self._under_way[0][1] is None or self._under_way[0][1].query()):
            found.append(self._under_way.popleft()[0].item())
        return found

    def after(self, value: Tensor) -> Any:
        """Puts a value in and takes one: on a GPU the one before, else this one.

        The one before was put in a picture ago, ahead of that picture's work: it is there, and
        waiting for it, should it not be, takes no longer than what came before that picture.

        Returns:
            The value; None if there was none before.
        """
        if not self._gpu:
            return value.item()
        before = self._under_way.popleft() if self._under_way else None
        self.put(value)
        if before is None:
            return None
        before[1].synchronize()
        return before[0].item()
