"""One whole picture, from uint8 to uint8, as one function of tensors.

It looks at no value from the host, makes nothing of Python's numbers and keeps nothing, so that
it can be run as it stands or captured once and replayed; see `nodes.sdxs.checkpoint.capture`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nodes.sdxs.checkpoint.network import Condition, Network

Extract = Callable[[Tensor], Tensor]
"""Makes control pictures of pictures: N × 3 × H × W of 0..1, of the same type."""
Mark = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Inputs:
    """All that a picture depends on but the weights; N pictures at once.

    Attributes:
        image: uint8 N × H × W × 3, for all ControlNets; None leaves them out.
        noise: float32 1 or N × 4 × h × w.
        condition: Of one prompt for all pictures, or of one for each.
        scale: Conditioning scale, float32 1 or N × 1 × 1 × 1.
        past: Latents of the pictures before, float32 N × 4 × h × w; None for none.
        share: Of the past in the latents, float32 N × 1 × 1 × 1; 0 for none.
    """

    image: Tensor | None
    noise: Tensor
    condition: Condition
    scale: Tensor
    past: Tensor | None
    share: Tensor | None


@dataclass(frozen=True, slots=True)
class Outputs:
    """What became of `Inputs`.

    Attributes:
        levels: uint8 N × H × W × 3, contiguous.
        latents: float32 N × 4 × h × w.
        finite: bool N; where it is not, the picture is none.
    """

    levels: Tensor
    latents: Tensor
    finite: Tensor


def silent(part: str) -> None:
    """A `Mark` that tells nobody."""


def paint(network: Network, inputs: Inputs, *, extract: Extract | None = None) -> Outputs:
    """The whole picture.

    Args:
        network: Of the model.
        inputs: As many pictures as `image` has, or else `noise` or `past`.
        extract: Turns the pictures into what the ControlNets were trained on; None if they are
            that already.
    """
    shown: list[Tensor] = []
    if inputs.image is not None:
        picture = network.pictures(inputs.image)
        if extract is not None:
            picture = extract(picture)
        shown = [picture] * len(network.controls)
        count = len(inputs.image)
    else:
        count = max(len(inputs.noise), 0 if inputs.past is None else len(inputs.past))
    noise = inputs.noise.expand(count, -1, -1, -1)
    latents = step(network, noise, inputs.condition, shown, [inputs.scale] * len(shown))
    if inputs.past is not None and inputs.share is not None:
        latents = torch.lerp(latents, inputs.past, inputs.share)
    decoded = network.decode(latents)
    return Outputs(
        levels=network.levels(decoded).contiguous(),
        latents=latents,
        # Both: the decoder bends infinite latents into its range.
        finite=_finite(latents) & _finite(decoded),
    )


def step(
    network: Network,
    noise: Tensor,
    condition: Condition,
    pictures: Sequence[Tensor] = (),
    scales: Sequence[float | Tensor] = (),
    *,
    mark: Mark = silent,
) -> Tensor:
    """The one step, up to the latents.

    Args:
        network: Of the model.
        noise: float32 N × 4 × h × w.
        condition: For one picture or for N.
        pictures: One for each ControlNet, N × 3 × H × W of 0..1; none leaves them out.
        scales: One for each ControlNet; a tensor, float32, may hold one for each picture.
        mark: Called with the name of a part when its work was given to the device.

    Returns:
        Latents, float32 N × 4 × h × w.
    """
    sample = network.model_input(noise)
    mark("condition")
    residuals: list[Tensor] = []
    for index, (picture, scale) in enumerate(zip(pictures, scales, strict=True)):
        if isinstance(scale, float) and scale == 0.0:
            continue
        found = network.residuals(index, sample, picture, condition)
        if not (isinstance(scale, float) and scale == 1.0):
            # A scale in float32 is multiplied in float32, and the product rounded once.
            found = [one.mul_(scale) for one in found]
        residuals = (
            [one.add_(other) for one, other in zip(residuals, found, strict=True)]
            if residuals
            else found
        )
    mark("control")
    latents = network.combine(noise, network.predict(sample, condition, residuals))
    mark("unet")
    return latents


def join(conditions: Sequence[Condition]) -> Condition:
    """One condition for several pictures, each of one."""
    first = conditions[0]
    if all(one is first for one in conditions):
        return first
    return Condition(
        tokens=torch.cat([one.tokens for one in conditions]),
        time=_joined([one.time for one in conditions]),
        control_time=tuple(map(_joined, zip(*[c.control_time for c in conditions], strict=True))),
        kept=_joined_kept([one.kept for one in conditions]),
        control_kept=tuple(
            map(_joined_kept, zip(*[one.control_kept for one in conditions], strict=True))
        ),
    )


def _joined(times: Sequence[Tensor | None]) -> Tensor | None:
    found = [one for one in times if one is not None]
    return torch.cat(found) if found else None


def _joined_kept(
    kept: Sequence[tuple[tuple[Tensor, Tensor], ...]],
) -> tuple[tuple[Tensor, Tensor], ...]:
    return tuple(
        (torch.cat([keys for keys, _ in layer]), torch.cat([values for _, values in layer]))
        for layer in zip(*kept, strict=True)
    )


def _finite(tensor: Tensor) -> Tensor:
    # The largest is NaN where any is; of a tensor in half precision too, it does not overflow.
    return tensor.abs().amax(dim=(1, 2, 3)).isfinite()
