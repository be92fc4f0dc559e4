"""The extractor in torch: for GPUs, and inside an engine's captured graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from nodes.condition import extract
from nodes.condition.canny import ROUNDS, canny
from nodes.condition.filters import RADIUS, blur, levels, ramp, round_half_up
from nodes.condition.settings import SURROUND, Setting, dark_on_white
from nodes.condition.taps import gaussian_taps

if TYPE_CHECKING:
    from nodes.condition.depth import Depth

Bytes = npt.NDArray[np.uint8]


class TorchExtractor:
    """Makes control pictures on one device.

    Thresholds, blurs, weights and polarity are tensors that stay where they are: `change` writes
    new values into them, and a CUDA graph that was captured before uses those.

    Args:
        settings: what to draw, one or more.
        invert: swap black and white.
        device: any of torch's, on which pictures will be.
        depth: for settings of kind `depth`.
        rounds: of linking Canny's edges; see `nodes.condition.canny`.

    Raises:
        ValueError: there is nothing to draw, or depth without a model for it.
    """

    def __init__(
        self,
        settings: Sequence[Setting],
        *,
        invert: bool = False,
        device: torch.device | str = "cpu",
        depth: Depth | None = None,
        rounds: int = ROUNDS,
    ) -> None:
        if not settings:
            raise ValueError("an extractor draws one kind at least")
        if depth is None and any(one.kind == "depth" for one in settings):
            raise ValueError("kind depth needs a model: pass depth=Depth.load(folder)")
        self._kinds = tuple(one.kind for one in settings)
        self._depth = depth
        self._rounds = rounds
        count = len(settings)
        self._low = torch.zeros(count, device=device)
        self._high = torch.zeros(count, device=device)
        self._weights = torch.zeros(count, device=device)
        self._taps = torch.zeros(count, RADIUS + 1, device=device)
        self._inverted = torch.zeros((), device=device)
        self._surround = _taps(SURROUND).to(device)
        self.change(settings, invert=invert)

    def change(self, settings: Sequence[Setting], *, invert: bool = False) -> None:
        """New values for the same kinds; the next picture is made with them.

        Raises:
            ValueError: the kinds are others, which takes another extractor.
        """
        if tuple(one.kind for one in settings) != self._kinds:
            raise ValueError(f"the kinds stay {', '.join(self._kinds)}; make a new extractor")
        # A copy from the host is waited for, and with the last of them all that this thread has put
        # in: the pictures may be drawn in another thread, on another stream.
        self._low.copy_(torch.tensor([one.low for one in settings]))
        self._high.copy_(torch.tensor([one.high for one in settings]))
        self._weights.copy_(torch.tensor([one.weight for one in settings]))
        self._taps.copy_(torch.stack([_taps(one.blur) for one in settings]))
        self._inverted.copy_(torch.tensor(float(dark_on_white(settings, invert=invert))))

    @torch.no_grad()
    def __call__(self, pixels: Tensor) -> Tensor:
        """Control pictures of pictures.

        Args:
            pixels: shape (N, 3, H, W), or (N, 1, H, W) for luminance; uint8, or floating point
                from 0 to 1.

        Returns:
            Shape (N, 3, H, W), of the same type and range; the three channels are the same
            memory.

        Raises:
            ValueError: another shape or type.
        """
        image = levels(pixels)
        marks = [self._marks(index, pixels, image) for index in range(len(self._kinds))]
        made = extract.combine(marks, self._weights, self._inverted).expand(-1, 3, -1, -1)
        return made.byte() if pixels.dtype == torch.uint8 else (made / 255.0).to(pixels.dtype)

    def picture(self, picture: Bytes) -> Bytes:
        """The control picture of one picture in the CPU's memory.

        Args:
            picture: uint8 of shape (H, W, 3), RGB, or (H, W), luminance.

        Returns:
            uint8 of shape (H, W).

        Raises:
            ValueError: another shape or type.
        """
        # A received frame's memory is read-only, which torch would warn of: that is copied.
        pixels = torch.from_numpy(np.require(picture, requirements=("C", "W")))
        drawn: Bytes = self.drawn(pixels.to(self._inverted.device)).cpu().numpy()
        return drawn

    def drawn(self, pixels: Tensor) -> Tensor:
        """As `picture`, of and on the extractor's own device."""
        planes = pixels[None, None] if pixels.ndim == 2 else pixels.permute(2, 0, 1)[None]
        return self(planes)[0, 0]

    def _marks(self, index: int, pixels: Tensor, image: Tensor) -> Tensor:
        kind, low, high = self._kinds[index], self._low[index], self._high[index]
        if kind == "depth":
            assert self._depth is not None  # the constructor saw to it
            return ramp(self._depth(pixels), low, high)
        smooth = blur(image, self._taps[index])
        if kind == "sketch":
            return extract.sketch(smooth, self._surround, low, high)
        smooth = round_half_up(smooth)
        if kind == "canny":
            return canny(smooth, low, high, rounds=self._rounds)
        if kind == "soft":
            return extract.soft_edges(smooth, low, high)
        return extract.luminance(smooth, low, high)


def _taps(sigma: float) -> Tensor:
    taps = gaussian_taps(sigma)
    padded = torch.zeros(RADIUS + 1)
    padded[: len(taps)] = torch.tensor(taps, dtype=torch.float32) / 256.0
    return padded
