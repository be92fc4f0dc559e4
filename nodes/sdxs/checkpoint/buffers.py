"""The inputs of a recorded picture: memory that stays where it is, and what is written to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from nodes.sdxs.checkpoint.network import Condition, Network
from nodes.sdxs.checkpoint.onepass import Inputs

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Values:
    """What one picture is made of, wherever it lies.

    Attributes:
        image: uint8 H × W × 3; not looked at where there is no ControlNet.
        noise: float32 1 × 4 × h × w.
        condition: Of one prompt.
        scale: Conditioning scale.
        past: Latents of the picture before, float32 1 × 4 × h × w, or None.
        share: Of the past.
    """

    image: Tensor
    noise: Tensor
    condition: Condition
    scale: float
    past: Tensor | None
    share: float


class StaticInputs:
    """Inputs of a number of pictures of one size, in memory of their own.

    A picture's image and past are copied in for every pass. That is one copy on the device, of a
    microsecond, and what it saves is a recording for every slot of the link that a picture may
    come in, and a new one whenever the link gets new memory. The rest is copied when it is
    another object than the time before.

    Args:
        network: That is to read them.
        count: Pictures.
        height: In pixels.
        width: In pixels.
        like: A condition for that size.

    Attributes:
        inputs: The tensors.
    """

    def __init__(
        self, network: Network, *, count: int, height: int, width: int, like: Condition
    ) -> None:
        device, shrink = network.device, network.shrink
        latent = (count, network.latent_channels, height // shrink, width // shrink)
        image = None
        if network.controls:
            image = torch.zeros(count, height, width, 3, dtype=torch.uint8, device=device)
        self.inputs = Inputs(
            image=image,
            noise=torch.zeros(latent, device=device),
            condition=_wide(like, count),
            scale=torch.ones(count, 1, 1, 1, device=device),
            past=torch.zeros(latent, device=device),
            share=torch.zeros(count, 1, 1, 1, device=device),
        )
        self._targets = _tensors(self.inputs.condition)
        self._held: list[dict[str, Any]] = [{} for _ in range(count)]

    def fill(self, pictures: Sequence[Values]) -> None:
        """Writes what the next replay is to read, on the current stream."""
        inputs = self.inputs
        assert inputs.past is not None
        assert inputs.share is not None
        for index, one in enumerate(pictures):
            if inputs.image is not None:
                inputs.image[index].copy_(one.image, non_blocking=True)
            if self._new(index, "noise", one.noise):
                inputs.noise[index].copy_(one.noise[0])
            if self._new(index, "condition", one.condition):
                for target, source in zip(self._targets, _tensors(one.condition), strict=True):
                    target[index].copy_(source[0])
            if self._new(index, "scale", one.scale):
                inputs.scale[index].fill_(one.scale)
            # Without a past its share is 0; the memory may hold no NaN then, since 0 × NaN is NaN.
            if one.past is not None:
                inputs.past[index].copy_(one.past[0])
                self._held[index]["past"] = one.past
            elif self._new(index, "past", None):
                inputs.past[index].zero_()
            share = 0.0 if one.past is None else one.share
            if self._new(index, "share", share):
                inputs.share[index].fill_(share)

    def _new(self, index: int, name: str, value: object) -> bool:
        """Whether a value is another than the one written before."""
        held = self._held[index]
        if name in held and (
            held[name] is value or (isinstance(value, float) and held[name] == value)
        ):
            return False
        # It is held, so that no later object can come to lie where it was and be taken for it.
        held[name] = value
        return True


def _wide(like: Condition, count: int) -> Condition:
    """Memory for the conditions of so many pictures."""

    def room(tensor: Tensor) -> Tensor:
        # Keys and values lie as their projection left them; the kernels are chosen by that.
        return torch.cat([torch.zeros_like(tensor[:1])] * count)

    def kept(layers: Any) -> Any:
        return tuple((room(keys), room(values)) for keys, values in layers)

    return Condition(
        tokens=room(like.tokens),
        time=None if like.time is None else room(like.time),
        control_time=tuple(None if one is None else room(one) for one in like.control_time),
        kept=kept(like.kept),
        control_kept=tuple(kept(one) for one in like.control_kept),
    )


def _tensors(condition: Condition) -> list[Tensor]:
    """All tensors of a condition, in an order that is always the same."""
    found = [condition.tokens, condition.time, *condition.control_time]
    for layers in (condition.kept, *condition.control_kept):
        for pair in layers:
            found += pair
    return [one for one in found if one is not None]
