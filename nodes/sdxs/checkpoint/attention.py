"""Attention of a fixed prompt: keys and values of the text computed once, not for every picture.

The text's keys and values are projections of the prompt's embedding and of nothing else, so that
they are the same for every picture: keeping them changes no result. Attention of a picture to
itself has its three projections in one matrix, which changes none either.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

Kept = tuple[tuple[Tensor, Tensor], ...]
"""Keys and values of each layer that attends to the text: N × heads × 77 × width of a head."""


class Told(NamedTuple):
    """What the blocks pass on, in place of the tokens alone, to every layer that asks for them.

    Nothing of it is kept in the layers, so that several threads may run them at once.

    Attributes:
        tokens: A prompt's embedding, N × 77 × width.
        kept: Its keys and values.
    """

    tokens: Tensor
    kept: Kept


class ToText:
    """Processor of diffusers for one layer that attends to the text.

    Args:
        number: Of the layer among those, in the network's order.
    """

    def __init__(self, number: int) -> None:
        self.number = number

    def project(self, attn: Any, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of a prompt's embedding, N × 77 × width."""
        return _heads(attn.to_k(tokens), attn.heads), _heads(attn.to_v(tokens), attn.heads)

    def __call__(
        self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Told, *_: Any, **__: Any
    ) -> Tensor:
        """See diffusers' `AttnProcessor2_0`."""
        keys, values = encoder_hidden_states.kept[self.number]
        count = len(hidden_states)
        if len(keys) != count:
            keys, values = (one.expand(count, -1, -1, -1) for one in (keys, values))
        return _attend(attn, _heads(attn.to_q(hidden_states), attn.heads), keys, values)


class ToTokens:
    """Processor of a layer that attends to the text in a way of its own, by diffusers' own.

    Args:
        own: The processor that it had.
    """

    def __init__(self, own: Any) -> None:
        self.own = own

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Told | None = None,
        *more: Any,
        **named: Any,
    ) -> Tensor:
        """See diffusers' `AttnProcessor2_0`."""
        tokens = None if encoder_hidden_states is None else encoder_hidden_states.tokens
        found: Tensor = self.own(attn, hidden_states, tokens, *more, **named)
        return found


class ToItself:
    """Processor of diffusers for one layer in which a picture attends to itself."""

    def __call__(self, attn: Any, hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
        """See diffusers' `AttnProcessor2_0`."""
        count, length, _width = hidden_states.shape
        together = attn.to_qkv(hidden_states).view(count, length, 3, attn.heads, -1)
        query, keys, values = together.permute(2, 0, 3, 1, 4).unbind(0)
        return _attend(attn, query, keys, values)


def install(net: Any) -> list[tuple[Any, ToText]]:
    """Gives a U-Net or ControlNet these processors; layers with extras keep diffusers' own.

    Returns:
        The layers that attend to the text and their processors, in the network's order.
    """
    texts: list[tuple[Any, ToText]] = []
    for module in net.modules():
        if type(module).__name__ != "Attention":
            continue
        if not _is_plain(module):
            module.set_processor(ToTokens(module.processor))
        elif module.is_cross_attention:
            processor = ToText(len(texts))
            module.set_processor(processor)
            texts.append((module, processor))
        elif module.to_q.bias is None:
            _fuse(module)
            module.set_processor(ToItself())
    return texts


def keep(texts: list[tuple[Any, ToText]], tokens: Tensor) -> Kept:
    """Keys and values of a prompt for all layers of `install`."""
    return tuple(processor.project(attn, tokens) for attn, processor in texts)


def _is_plain(attn: Any) -> bool:
    extras = ("group_norm", "spatial_norm", "norm_cross", "norm_q", "norm_k", "add_k_proj")
    return (
        all(getattr(attn, name, None) is None for name in extras)
        and not attn.residual_connection
        and attn.rescale_output_factor == 1
    )


def _fuse(attn: Any) -> None:
    weight = torch.cat([attn.to_q.weight, attn.to_k.weight, attn.to_v.weight])
    with torch.device("meta"):
        attn.to_qkv = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    attn.to_qkv.weight = nn.Parameter(weight, requires_grad=False)
    attn.to_q = attn.to_k = attn.to_v = None


def _heads(projected: Tensor, heads: int) -> Tensor:
    count, length, _ = projected.shape
    return projected.view(count, length, heads, -1).transpose(1, 2)


def _attend(attn: Any, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    found = functional.scaled_dot_product_attention(query, keys, values)
    joined = found.transpose(1, 2).flatten(2)
    # The second layer of `to_out` is dropout, which does nothing here.
    projected: Tensor = attn.to_out[0](joined)
    return projected
