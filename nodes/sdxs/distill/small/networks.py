"""How a one-step network begins: from nothing, or from a finished one with fewer styles or blocks.

The student is `nodes.sdxs.network.Network`, which is what the bundled model is.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from nodes.sdxs.network import Network


def initialise(network: Network) -> None:
    """He initialisation of the autoencoder; what adds to something else starts near zero.

    The autoencoder has no normalisation: with torch's default it stays at a constant picture.
    """
    for module in network.vae.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for name, module in network.vae.named_modules():
        # The third convolution of each residual block.
        if isinstance(module, nn.Conv2d) and name.endswith("conv.4"):
            nn.init.normal_(module.weight, std=1e-3)
    nn.init.zeros_(network.unet.conv_out.weight)
    nn.init.zeros_(network.unet.conv_out.bias)


def grown(kept: Network, *, styles: Sequence[str], known: Sequence[str], finish: int) -> Network:
    """A finished network with more styles or more blocks, that paints the same as before.

    Args:
        kept: The finished one.
        styles: The vocabulary wanted.
        known: The vocabulary of `kept`.
        finish: Residual blocks after the skip connection; at least those of `kept`.
    """
    before = int(kept.vae.config.num_decoder_blocks[-1])
    if finish < before:
        raise ValueError(f"finish must be at least {before}, not {finish}")
    network = Network(len(styles), finish=finish)
    joint = network.joint
    weights = {}
    for key, value in kept.state_dict().items():
        name = key
        if key.startswith("vae.decoder.layers."):
            index, rest = key.removeprefix("vae.decoder.layers.").split(".", 1)
            if int(index) >= joint + before:
                name = f"vae.decoder.layers.{int(index) + finish - before}.{rest}"
        weights[name] = value
    table = network.tokens.detach().clone()
    for row, style in enumerate(styles):
        if style in known:
            table[row] = kept.tokens[list(known).index(style)]
    weights["tokens"] = table
    network.load_state_dict(weights, strict=False)
    with torch.no_grad():
        for place in range(joint + before, joint + finish):
            block = network.vae.decoder.layers[place]
            block.conv[4].weight.zero_()
            block.conv[4].bias.zero_()
    return network
