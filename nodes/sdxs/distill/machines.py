"""One process or many: the same loop on a CPU, on one GPU, and on those of several machines.

Started by `accelerate launch`, each process draws its own batches, and gradients are averaged over
all of them before a step. Networks stay plain modules, so that stages may call any part of them,
freeze some, and take turns between two, which wrapped modules do not allow.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn


class Machines:
    """Where this process stands among all that train.

    Attributes:
        device: Where its networks belong.
        rank: Its number, from 0.
        count: How many there are.
    """

    def __init__(self) -> None:
        self._state: Any = None
        self.rank, self.count = 0, 1
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            try:
                from accelerate import PartialState
            except ImportError as error:
                raise ValueError(
                    "training in several processes needs accelerate: pip install '.[train]'"
                ) from error
            self._state = PartialState(cpu=not torch.cuda.is_available())
            self.rank = int(self._state.process_index)
            self.count = int(self._state.num_processes)
            self.device = self._state.device

    @property
    def first(self) -> bool:
        """Whether this process writes logs and checkpoints."""
        return self.rank == 0

    def average(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replaces gradients by their means over all processes; missing ones count as nought."""
        if self.count == 1:
            return
        from accelerate.utils import reduce

        wanted = [one for one in parameters if one.requires_grad]
        for one in wanted:
            if one.grad is None:
                one.grad = torch.zeros_like(one)
        flat = torch.cat([one.grad.flatten() for one in wanted if one.grad is not None])
        mean = reduce(flat, reduction="mean")
        place = 0
        for one in wanted:
            size = one.numel()
            one.grad = mean[place : place + size].view_as(one).clone()
            place += size

    def same(self, networks: Iterable[nn.Module]) -> None:
        """Gives every process the first one's weights."""
        if self.count == 1:
            return
        from accelerate.utils import broadcast

        with torch.no_grad():
            for network in networks:
                for tensor in network.state_dict().values():
                    tensor.copy_(broadcast(tensor, from_process=0))

    def wait(self) -> None:
        """Until every process is here."""
        if self._state is not None:
            self._state.wait_for_everyone()

    def close(self) -> None:
        """Leaves the group of processes."""
        if self._state is not None:
            self._state.destroy_process_group()
