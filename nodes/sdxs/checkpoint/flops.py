"""Floating-point operations of a picture, by part, counted on the meta device.

Nothing is computed: tensors without memory go through the networks, and the operations that would
run are counted by `torch.utils.flop_counter` (a multiplication and an addition are two).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from nodes.sdxs.checkpoint import parts
from nodes.sdxs.checkpoint.network import Network
from nodes.sdxs.checkpoint.text import LENGTH, Embedding


def count(network: Network, *, width: int, height: int) -> dict[str, int]:
    """Operations of one picture, by part: `control`, `unet`, `decoder`.

    Those that belong to the prompt, the keys and values of its text, are counted with the part
    that they are for, though the engine does them once for a prompt.

    Args:
        network: Any; it is not run.
        width: Pixels.
        height: Pixels.
    """
    place = torch.device("meta")
    copy = Network(
        parts.build("UNet2DConditionModel", network.unet.config),
        parts.build(type(network.vae).__name__, network.vae.config),
        [parts.build("ControlNetModel", control.config) for control in network.controls],
        step=network.step,
        device=place,
        dtype=torch.float32,
    )
    pooled = copy.pooled_width
    embedding = Embedding(
        torch.empty(1, LENGTH, copy.unet.config.cross_attention_dim, device=place),
        None if pooled is None else torch.empty(1, pooled, device=place),
    )
    shape = (1, copy.latent_channels, height // copy.shrink, width // copy.shrink)
    noise = torch.empty(shape, device=place)
    picture = torch.empty(1, 3, height, width, device=place)
    with torch.inference_mode():
        condition = copy.condition(embedding, width=width, height=height)
        texts = {
            "control": _counted(lambda: [copy.project(one, embedding) for one in copy.controls]),
            "unet": _counted(lambda: copy.project(copy.unet, embedding)),
        }
        sample = copy.model_input(noise)
        residuals: list[Tensor] = []

        def control() -> None:
            for index in range(len(copy.controls)):
                residuals[:] = copy.residuals(index, sample, picture, condition)

        return {
            "control": texts["control"] + _counted(control),
            "unet": texts["unet"] + _counted(lambda: copy.predict(sample, condition, residuals)),
            "decoder": _counted(lambda: copy.decode(noise)),
        }


def _counted(work: Callable[[], Any]) -> int:
    with FlopCounterMode(display=False) as counter:
        work()
    total: int = counter.get_total_flops()
    return total
