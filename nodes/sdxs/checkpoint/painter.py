"""Pictures through the networks, several in one pass, each by settings of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nodes.sdxs.checkpoint.network import Condition, Network
from nodes.sdxs.checkpoint.onepass import Extract, Inputs, Outputs, join, paint
from nodes.sdxs.jobs import Settings
from nodes.sdxs.noise import Noises


@dataclass(frozen=True, slots=True)
class Part:
    """One picture of a pass.

    Attributes:
        settings: Which `embedding` is a `Prompted`.
        image: uint8 H × W × 3, on any device.
        past: Latents of the picture before, float32 1 × 4 × h × w, or None; of another size, they
            are left out.
        share: Of the past, 0 to 1.
    """

    settings: Settings
    image: Tensor
    past: Tensor | None = None
    share: float = 0.0


class Painter:
    """The networks of a model, for pictures of any size.

    Args:
        network: Of the model.

    Attributes:
        network: See above.
        extract: See `onepass.paint`.
    """

    def __init__(self, network: Network) -> None:
        self.network = network
        self.extract: Extract | None = None

    def noise(self, noises: Noises, width: int, height: int) -> Tensor:
        """The noise for pictures of a size in pixels, float32 1 × 4 × h × w on the device."""
        shrink = self.network.shrink
        shape = (1, self.network.latent_channels, height // shrink, width // shrink)
        found: Tensor = noises.of(shape, self.draw)
        return found

    def draw(self, seed: int, shape: tuple[int, ...]) -> Tensor:
        """The noise of a seed: drawn on the CPU, so that a seed means the same everywhere."""
        drawn = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
        return drawn.to(self.network.device)

    @torch.inference_mode()
    def paint(self, parts: Sequence[Part]) -> Outputs:
        """Paints pictures of one size in one pass."""
        height, width = parts[0].image.shape[:2]
        return paint(self.network, self._inputs(parts, width, height), extract=self.extract)

    def _inputs(self, parts: Sequence[Part], width: int, height: int) -> Inputs:
        net = self.network
        settings = [one.settings for one in parts]
        conditions: list[Condition] = [
            one.embedding.condition(net, width, height) for one in settings
        ]
        noises = [self.noise(one.noise, width, height) for one in settings]
        scales = [one.conditioning_scale for one in settings]
        steered = net.controls and any(scales)
        past, share = self._past(parts, noises[0])
        return Inputs(
            image=_stacked([one.image.to(net.device) for one in parts]) if steered else None,
            noise=_one_or_all(noises, len(parts), keep=bool(steered)),
            condition=join(conditions),
            scale=self._column(scales),
            past=past,
            share=share,
        )

    def _past(self, parts: Sequence[Part], noise: Tensor) -> tuple[Any, Any]:
        fitting = [
            one.past if one.past is not None and one.past.shape == noise.shape else None
            for one in parts
        ]
        if not any(
            one is not None and part.share for one, part in zip(fitting, parts, strict=True)
        ):
            return None, None
        past = torch.cat([torch.zeros_like(noise) if one is None else one for one in fitting])
        shares = [
            0.0 if one is None else part.share for one, part in zip(fitting, parts, strict=True)
        ]
        return past, self._column(shares)

    def _column(self, numbers: Sequence[float]) -> Tensor:
        """Numbers as float32 N × 1 × 1 × 1; the device fills them in, and nobody waits for it."""
        shape, device = (1, 1, 1, 1), self.network.device
        if len(set(numbers)) == 1:
            return torch.full(shape, numbers[0], device=device).expand(len(numbers), -1, -1, -1)
        return torch.cat([torch.full(shape, one, device=device) for one in numbers])


def _stacked(images: list[Tensor]) -> Tensor:
    return images[0][None] if len(images) == 1 else torch.stack(images)


def _one_or_all(noises: list[Tensor], count: int, *, keep: bool) -> Tensor:
    """The noise of all, once where it is the same and the pictures tell their number."""
    if all(one is noises[0] for one in noises):
        return noises[0] if keep else noises[0].expand(count, -1, -1, -1)
    return torch.cat(noises)
