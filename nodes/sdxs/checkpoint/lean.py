"""What diffusers' blocks do for many steps and training, and one step need not.

All of it leaves the result as it is, but for the rounding of sums in another order.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from torch import Tensor, nn


def fold_time(net: Any, time: Tensor) -> None:
    """Puts the time embedding, always the same, into the biases it would be added to.

    Each residual block adds a projection of it to every pixel after its first convolution: that
    is a bias. Afterwards the blocks take no time embedding.

    Args:
        net: U-Net or ControlNet, whose embedding depends on the time alone.
        time: 1 × channels.
    """
    for block in net.modules():
        if type(block).__name__ != "ResnetBlock2D":
            continue
        if block.time_embedding_norm != "default" or block.conv1.bias is None:
            raise ValueError(
                f"the residual blocks have resnet_time_scale_shift {block.time_embedding_norm!r}; "
                "this one-step engine runs default"
            )
        told = time if block.skip_time_act else block.nonlinearity(time)
        # One projection at a time, and once: the bias is of the engine from here on.
        moved = block.conv1.bias.detach() + block.time_emb_proj(told)[0]
        block.conv1.bias = nn.Parameter(moved, requires_grad=False)
        block.time_emb_proj = None
        _in_place(block)
        if block.upsample is None and block.downsample is None and block.output_scale_factor == 1:
            # Not a method of the object, which would hold itself, and its weights with it.
            kind: Any = type(block)
            block.__class__ = _lean(kind)


def rectify_in_place(decoder: nn.Module) -> None:
    """Lets the tiny decoder's rectifiers write over their input, which nothing else reads."""
    for module in decoder.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = True


@cache
def _lean(kind: type) -> type:
    return type(kind.__name__, (kind,), {"forward": _residual})


def _residual(block: Any, given: Tensor, time: Tensor | None = None) -> Tensor:
    """A residual block without its division by 1, and with its sum in place."""
    hidden = block.conv1(block.nonlinearity(block.norm1(given)))
    hidden = block.conv2(block.nonlinearity(block.norm2(hidden)))
    if block.conv_shortcut is not None:
        given = block.conv_shortcut(given)
    summed: Tensor = hidden.add_(given)
    return summed


def _in_place(block: Any) -> None:
    # Its input is a norm's output, or, before folding, the time embedding that others read too.
    if isinstance(block.nonlinearity, nn.SiLU):
        # diffusers shares one activation between blocks.
        block.nonlinearity = nn.SiLU(inplace=True)
