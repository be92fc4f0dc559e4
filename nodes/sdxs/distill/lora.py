"""A LoRA of very low rank, put into a network for a short finetune and merged afterwards."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize


class LowRank(nn.Module):
    """W + B A, with A of shape rank × inputs and B, which begins at nought, outputs × rank.

    Hu et al., "LoRA", 2021; a convolution's kernel counts as inputs.
    """

    def __init__(self, weight: Tensor, *, rank: int) -> None:
        super().__init__()
        inputs = weight[0].numel()
        # Drawn on the CPU, so that a seed means the same everywhere; kept where the weight is.
        drawn = torch.randn(rank, inputs) / math.sqrt(inputs)
        self.down = nn.Parameter(drawn.to(weight.device))
        self.up = nn.Parameter(torch.zeros(weight.shape[0], rank, device=weight.device))

    def forward(self, weight: Tensor) -> Tensor:
        """The changed weight."""
        return weight + (self.up @ self.down).view_as(weight)


def insert(network: nn.Module, *, rank: int, where: Callable[[str], bool]) -> list[nn.Parameter]:
    """Freezes a network and puts a LoRA into its convolutions and linear layers.

    Args:
        network: Changed in place.
        rank: Of each; 1 is the least.
        where: Which modules, by name.

    Returns:
        The parameters of the LoRA, which alone ask for gradients.
    """
    network.requires_grad_(False)
    added: list[nn.Parameter] = []
    for name, module in list(network.named_modules()):
        if isinstance(module, (nn.Linear, nn.Conv2d)) and where(name):
            weight: Any = module.weight
            part = LowRank(weight, rank=rank)
            parametrize.register_parametrization(module, "weight", part)
            added += [part.down, part.up]
    return added


def merge(network: nn.Module) -> None:
    """Adds the LoRA to the weights, and removes it."""
    for module in list(network.modules()):
        if parametrize.is_parametrized(module, "weight"):
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)


def merged(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state of a network with a LoRA as that of the same network without one."""
    plain = {}
    for key, value in weights.items():
        if key.endswith(".parametrizations.weight.original"):
            stem = key.removesuffix(".original")
            up, down = weights[f"{stem}.0.up"], weights[f"{stem}.0.down"]
            name = key.replace(".parametrizations.weight.original", ".weight")
            plain[name] = value + (up @ down).view_as(value)
        elif ".parametrizations." not in key:
            plain[key] = value
    return plain
