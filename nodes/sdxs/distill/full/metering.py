"""What one picture costs in one network, counted on the meta device: nothing is computed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class Cost:
    """Of one picture through one network.

    Attributes:
        parameters: Of the network.
        operations: Of a forward pass; one of training takes three times as many.
        kept: Bytes of activations in float32 that autograd keeps for the backward pass.
    """

    parameters: int
    operations: int
    kept: int


class _Fused(torch.autograd.Function):
    """Keeps what a GPU's attention keeps: query, key, value and result, not the N × N weights."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        result = query.new_empty(*query.shape[:-1], value.shape[-1])
        ctx.save_for_backward(query, key, value, result)
        return result


class _Attention(TorchFunctionMode):
    """On the meta device, torch would take the attention that writes its weights out."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is not torch.nn.functional.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        query, key, value = args[:3]
        # The two products: weights, and what they mix.
        pairs = query.shape[:-1].numel() * key.shape[-2]
        self.operations += 2 * pairs * (query.shape[-1] + value.shape[-1])
        fused: Any = _Fused
        return fused.apply(query, key, value)


def cost(network: nn.Module, call: Callable[[], Any], *, trained: bool = True) -> Cost:
    """What a call costs.

    Args:
        network: On the meta device.
        call: Runs it.
        trained: Whether its weights are; where not, gradients only pass through it.
    """
    kept: dict[int, Tensor] = {}
    own = {one.untyped_storage()._cdata for one in network.parameters()}

    def keep(tensor: Tensor) -> Tensor:
        # Held on to, so that no two share an identity. Weights, which linear layers keep the other
        # way round, are counted elsewhere.
        place = tensor.untyped_storage()._cdata
        if place not in own:
            kept[place] = tensor
        return tensor

    network.train().requires_grad_(trained)
    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    attention = _Attention()
    with hooks, FlopCounterMode(display=False) as counter, attention:
        call()
    held = sum(one.numel() * one.element_size() for one in kept.values())
    operations: int = counter.get_total_flops() + attention.operations
    return Cost(size(network), operations, held)


def size(network: nn.Module) -> int:
    """Number of parameters."""
    return sum(one.numel() for one in network.parameters())
