"""What `Steady` does with pictures that are tensors of torch, on a GPU without waiting for it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from nodes.sdxs.late import Late
from nodes.sdxs.on_arrays import LOOK_EVERY, MOVED, PATCH

_GREY = (0.299, 0.587, 0.114)


class OnTensors:
    """Pictures as tensors: uint8 RGB, height × width × 3, on one device.

    On a GPU the host does not wait for what is asked here: it is told late, of a picture before.

    Args:
        device: of the pictures.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._differences = Late(device)
        self._finite = Late(device)
        self._greys = torch.tensor(_GREY, device=device)

    @property
    def stream(self) -> Any:
        """That the work is put into; None on a CPU."""
        return torch.cuda.current_stream(self._device) if self._device.type == "cuda" else None

    def like(self, picture: Tensor) -> Tensor:
        """Memory for another such picture."""
        return torch.empty_like(picture)

    def copy(self, picture: Tensor) -> Tensor:
        """Another such picture."""
        return picture.clone()

    def put(self, picture: Tensor, out: Tensor) -> None:
        """Writes a picture over another."""
        out.copy_(picture)

    def look(self, image: Tensor) -> Tensor:
        """As much of a source as is compared."""
        return image[::LOOK_EVERY, ::LOOK_EVERY].to(torch.int16)

    def difference(self, look: Tensor, other: Tensor) -> float | None:
        """Mean difference of two sources in grey levels.

        On a GPU that of the two before, which are known by now; None if there were none. So what
        changes is seen one picture late.
        """
        found: float | None = self._differences.after((look - other).abs().float().mean())
        return found

    def shrunk(self, image: Tensor, width: int, height: int) -> Tensor:
        """A smaller picture, averaged."""
        planes = functional.interpolate(_planes(image), size=(height, width), mode="area")
        return _levels(planes)

    def enlarge(self, small: Tensor, out: Tensor) -> None:
        """Fills a picture with a smaller one, by cubic interpolation."""
        size = (int(out.shape[0]), int(out.shape[1]))
        wide = functional.interpolate(_planes(small), size=size, mode="bicubic")
        out.copy_(_levels(wide))

    def mix(self, image: Tensor, before: Tensor, result: Tensor, out: Tensor, share: float) -> None:
        """See `OnArrays.mix`."""
        change = (image.to(torch.int16) - before.to(torch.int16)).abs().float()
        grey = (change * self._greys).sum(-1).round()[None, None]
        half = PATCH // 2
        patch = functional.avg_pool2d(
            functional.pad(grey, (half,) * 4, mode="reflect"), PATCH, stride=1
        ).round()
        part = share * (1 - patch / MOVED).clamp(0, 1)[0, 0, :, :, None]
        mixed = out + part * (result.float() - out.float())
        out.copy_(mixed.round().to(torch.uint8))

    def spoiled(self, finite: Any, out: Tensor, result: Tensor | None) -> bool | None:
        """Whether `out` is no picture; None if that is not known yet.

        What is not known is mended on the device: `out` becomes the last good result, or black
        where there is none.
        """
        if not isinstance(finite, Tensor):
            return not finite
        good = torch.zeros_like(out) if result is None else result
        out.copy_(torch.where(finite, out, good))
        self._finite.put(finite)
        return None

    def spoiled_before(self) -> int:
        """How many pictures before were none, as is known only now."""
        return sum(not fine for fine in self._finite.take())


def _planes(picture: Tensor) -> Tensor:
    return picture.permute(2, 0, 1)[None].float()


def _levels(planes: Tensor) -> Tensor:
    return planes.round().clamp(0, 255).to(torch.uint8)[0].permute(1, 2, 0).contiguous()
