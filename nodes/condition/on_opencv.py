"""The extractor on the CPU, by OpenCV: the same pictures as the one in torch, and faster there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np
import numpy.typing as npt

from nodes.condition.settings import SURROUND, Setting, dark_on_white
from nodes.condition.taps import gaussian_taps

if TYPE_CHECKING:
    from nodes.condition.depth import Depth

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


class OpenCvExtractor:
    """Makes control pictures of single pictures in the CPU's memory.

    Canny's edges and luminance are those of `nodes.condition.on_torch` to the pixel. A sketch and
    soft edges differ by one level in less than one pixel of 500, since sums are rounded in another
    order.

    Args:
        settings: what to draw, one or more.
        invert: swap black and white.
        depth: for settings of kind `depth`.

    Raises:
        ValueError: there is nothing to draw, or depth without a model for it.
    """

    def __init__(
        self, settings: Sequence[Setting], *, invert: bool = False, depth: Depth | None = None
    ) -> None:
        if not settings:
            raise ValueError("an extractor draws one kind at least")
        if depth is None and any(one.kind == "depth" for one in settings):
            raise ValueError("kind depth needs a model: pass depth=Depth.load(folder)")
        self._settings = tuple(settings)
        self._depth = depth
        self._surround = _kernel(SURROUND)
        self.change(settings, invert=invert)

    def change(self, settings: Sequence[Setting], *, invert: bool = False) -> None:
        """New values for the same kinds; the next picture is made with them.

        Raises:
            ValueError: the kinds are others, which takes another extractor.
        """
        kinds = [one.kind for one in self._settings]
        if [one.kind for one in settings] != kinds:
            raise ValueError(f"the kinds stay {', '.join(kinds)}; make a new extractor")
        self._settings = tuple(settings)
        self._inverted = dark_on_white(settings, invert=invert)

    def picture(self, picture: Bytes) -> Bytes:
        """The control picture of one picture.

        Args:
            picture: uint8 of shape (H, W, 3), RGB, or (H, W), luminance.

        Returns:
            uint8 of shape (H, W).

        Raises:
            ValueError: another shape or type.
        """
        if (
            picture.dtype != np.uint8
            or picture.ndim not in (2, 3)
            or picture.shape[2:]
            not in (
                (),
                (3,),
            )
        ):
            raise ValueError(
                "a picture is uint8 of shape (H, W, 3) or (H, W), "
                f"not {picture.dtype} of {picture.shape}"
            )
        image = _bytes(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)) if picture.ndim == 3 else picture
        made = self._combined([self._marks(one, picture, image) for one in self._settings])
        return _bytes(cv2.bitwise_not(made)) if self._inverted else _bytes(made)

    def _combined(self, marks: list[Bytes]) -> Bytes:
        weights = [one.weight for one in self._settings]
        if weights == [1.0]:
            return marks[0]
        total: Floats = marks[0].astype(np.float32) * np.float32(weights[0])
        for more, weight in zip(marks[1:], weights[1:], strict=True):
            total += more.astype(np.float32) * np.float32(weight)
        return np.rint(np.minimum(total, 255.0)).astype(np.uint8)

    def _marks(self, one: Setting, picture: Bytes, image: Bytes) -> Bytes:
        if one.kind == "depth":
            return _ramp(self._depth_of(picture), one)
        if one.kind == "sketch":
            lines = _filtered(image, _kernel(one.blur))
            return _ramp(cv2.subtract(_filtered(lines, self._surround), lines), one)
        smooth = _smooth(image, one.blur)
        if one.kind == "canny":
            return _bytes(cv2.Canny(smooth, one.low, one.high))
        if one.kind == "luminance":
            return _bytes(cv2.LUT(smooth, _table(one)))
        # The border is repeated outwards, as Canny has it.
        right = cv2.Sobel(smooth, cv2.CV_32F, 1, 0, ksize=3, borderType=cv2.BORDER_REPLICATE)
        down = cv2.Sobel(smooth, cv2.CV_32F, 0, 1, ksize=3, borderType=cv2.BORDER_REPLICATE)
        return _ramp(cv2.magnitude(right, down), one)

    def _depth_of(self, picture: Bytes) -> Floats:
        import torch

        assert self._depth is not None  # the constructor saw to it
        planes = picture[None] if picture.ndim == 2 else picture.transpose(2, 0, 1)
        pixels = torch.from_numpy(np.ascontiguousarray(planes))[None]
        return self._depth(pixels)[0, 0].numpy()


def _kernel(sigma: float) -> Floats:
    taps = gaussian_taps(sigma)
    return (np.array(taps[:0:-1] + taps) / 256).astype(np.float32)


def _smooth(image: Bytes, sigma: float) -> Bytes:
    if not sigma:
        return image
    side = 2 * len(gaussian_taps(sigma)) - 1
    return _bytes(cv2.GaussianBlur(image, (side, side), sigma, borderType=cv2.BORDER_REPLICATE))


def _filtered(image: Bytes | Floats, kernel: Floats) -> Floats:
    return np.asarray(
        cv2.sepFilter2D(image, cv2.CV_32F, kernel, kernel, borderType=cv2.BORDER_REPLICATE),
        dtype=np.float32,
    )


def _ramp(values: npt.ArrayLike, one: Setting) -> Bytes:
    """Whole levels that rise from 0 at the lower threshold to 255 at the upper one."""
    scale = 255.0 / (one.high - one.low)
    source = np.asarray(values, dtype=np.float32)
    # One pass that multiplies, adds, rounds and cuts off; the second picture counts for nothing.
    return _bytes(cv2.addWeighted(source, scale, source, 0.0, -one.low * scale, dtype=cv2.CV_8U))


def _table(one: Setting) -> Bytes:
    """The ramp for each of 256 levels, computed exactly as `filters.ramp` does."""
    low, span = np.float32(one.low), np.float32(one.high) - np.float32(one.low)
    scale = np.float32(255.0) / span
    risen = np.arange(256, dtype=np.float32) * scale - low * scale
    return _bytes(np.rint(risen).clip(0.0, 255.0))


def _bytes(array: object) -> Bytes:
    """OpenCV's result, of which its types say too little."""
    return np.asarray(array, dtype=np.uint8)
