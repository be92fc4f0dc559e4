"""What changes the weights: AdamW, or Muon where a network is to learn much in few steps."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from nodes.sdxs.distill.settings import Stage

LEAST = 16
"""Rows and columns below which a weight is no matrix to Muon: what maps from or to a few channels,
and adapters of low rank."""

MOMENTUM = 0.95
STEPS = 5
COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def optimisers(parameters: Iterable[nn.Parameter], settings: Stage) -> tuple[Optimizer, ...]:
    """Those that change these parameters together, at the same learning rate.

    Args:
        parameters: Those that ask for no gradient are left alone.
        settings: `optimiser`, `rate`, `betas` and `weight_decay` are looked at.
    """
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for one in parameters:
        if one.requires_grad:
            muon = settings.optimiser == "muon" and is_matrix(one)
            (matrices if muon else others).append(one)
    made: list[Optimizer] = []
    if matrices:
        made.append(Muon(matrices, lr=settings.rate, weight_decay=settings.weight_decay))
    if others or not matrices:
        made.append(
            AdamW(
                others,
                lr=settings.rate,
                betas=settings.betas,
                weight_decay=settings.weight_decay,
                fused=True,  # on a CPU, the many small weights would take a tenth of a step
            )
        )
    return tuple(made)


def is_matrix(weight: Tensor) -> bool:
    """Whether Muon takes it: of a linear layer or a convolution, `LEAST` channels on both sides."""
    return weight.ndim in (2, 4) and min(len(weight), weight[0].numel()) >= LEAST


def orthogonalised(matrices: Tensor) -> Tensor:
    """U·Vᵀ of the matrices' singular value decompositions U·S·Vᵀ, roughly.

    Five steps of a Newton–Schulz iteration of the fifth degree (Jordan et al., "Muon: An optimizer
    for hidden layers in neural networks", 2024), whose coefficients trade exactness for few steps.

    Args:
        matrices: float N × rows × columns; rows at most columns, or it takes longer.

    Returns:
        The same shape. Singular values above 0.003 of the norm are 0.68 to 1.2 now, smaller ones
        less; 0 stays 0.
    """
    a, b, c = COEFFICIENTS
    made: Tensor = matrices / torch.linalg.matrix_norm(matrices, keepdim=True).clamp(min=1e-7)
    for _ in range(STEPS):
        square = made @ made.mT
        made = a * made + (b * square + c * square @ square) @ made
    return made


class Muon(Optimizer):
    """Momentum whose steps are orthogonalised: all directions of a matrix learn at the same pace.

    A step's entries have the root mean square 0.2·lr, which is about AdamW's, so that both go at
    the same rate (Liu et al., "Muon is Scalable for LLM Training", arXiv 2502.16982, section 2.2).

    torch.optim.Muon is not used: it takes no convolutions, and orthogonalises one matrix after the
    other in bfloat16, which took 2.2 seconds a step of the small network where that is emulated;
    all of one shape together in float32 take 0.07.

    Args:
        matrices: Weights of two dimensions, or of a convolution's four: rows are what it makes.
        lr: The learning rate.
        weight_decay: Times the learning rate, what a step takes from each weight.
    """

    def __init__(
        self, matrices: Iterable[nn.Parameter], *, lr: float, weight_decay: float = 0.0
    ) -> None:
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Changes every weight that has a gradient."""
        if closure is not None:
            raise ValueError("Muon takes no closure")
        for group in self.param_groups:
            alike: dict[tuple[int, ...], list[tuple[nn.Parameter, Tensor]]] = defaultdict(list)
            for weight in group["params"]:
                if weight.grad is not None:
                    step = self._gathered(weight).flatten(1)
                    lies = len(step) <= len(step[0])
                    alike[tuple(step.shape)].append((weight, step if lies else step.T))
            for (rows, columns), found in alike.items():
                size = 0.2 * math.sqrt(max(rows, columns))
                made = orthogonalised(torch.stack([step for _, step in found]))
                for (weight, _), step in zip(found, made, strict=True):
                    straight = step if rows <= columns else step.T
                    weight.mul_(1 - group["lr"] * group["weight_decay"])
                    weight.add_(straight.reshape(weight.shape), alpha=-group["lr"] * size)

    def _gathered(self, weight: nn.Parameter) -> Tensor:
        """The gradient with the momentum of those before it (Nesterov's)."""
        gradient = weight.grad
        assert gradient is not None
        state = self.state[weight]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(gradient)
        momentum: Tensor = state["momentum"]
        momentum.lerp_(gradient, 1 - MOMENTUM)
        return gradient.lerp(momentum, MOMENTUM)
