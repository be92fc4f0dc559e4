"""One process or many: the same loop on a CPU, on one GPU, and on those of several machines.

Started by `accelerate launch`, each process draws its own batches, and gradients are averaged over
all of them before a step. Networks stay plain modules, so that stages may call any part of them,
freeze some, and take turns between two, which wrapped modules do not allow.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

BUCKET = 2**24
"""Gradients that travel together: 64 MiB, so that no second copy of all of them is needed."""


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
        for bucket in _buckets(wanted):
            gradients = [one.grad for one in bucket if one.grad is not None]
            mean = reduce(torch.cat([one.flatten() for one in gradients]), reduction="mean")
            sizes = [one.numel() for one in gradients]
            for gradient, part in zip(gradients, mean.split(sizes), strict=True):
                gradient.copy_(part.view_as(gradient))

    def same(self, networks: Iterable[nn.Module]) -> None:
        """Gives every process the first one's weights."""
        if self.count == 1:
            return
        from accelerate.utils import broadcast

        with torch.no_grad():
            for network in networks:
                for tensor in network.state_dict().values():
                    tensor.copy_(broadcast(tensor, from_process=0))

    def agree(self, step: int, *, where: Path) -> None:
        """Holds every process to the same step, since all take part in every one.

        Raises:
            ValueError: Some have found another checkpoint in `where` than others, or none.
        """
        if self.count == 1:
            return
        from accelerate.utils import gather

        found = gather(torch.tensor([step], device=self.device)).tolist()
        if len(set(found)) > 1:
            raise ValueError(
                f"the processes are at different steps in {where} ({', '.join(map(str, found))}): "
                "the folder must be one that all machines share"
            )

    def wait(self) -> None:
        """Until every process is here."""
        if self._state is not None:
            self._state.wait_for_everyone()

    def close(self) -> None:
        """Leaves the group of processes."""
        if self._state is not None:
            self._state.destroy_process_group()


def _buckets(parameters: Iterable[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    """The parameters in their order, some `BUCKET` numbers at a time."""
    bucket: list[nn.Parameter] = []
    size = 0
    for one in parameters:
        if bucket and size + one.numel() > BUCKET:
            yield bucket
            bucket, size = [], 0
        bucket.append(one)
        size += one.numel()
    if bucket:
        yield bucket


def computes_in_bfloat16(device: torch.device) -> bool:
    """Whether a device has bfloat16 arithmetic; where it is emulated, it is slower than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # A torch that does not tell is taken for one on a processor that has none.
    facts: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(facts.get(name) for name in ("amx_bf16", "avx512_bf16", "bf16"))
