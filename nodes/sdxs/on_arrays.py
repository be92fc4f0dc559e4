"""What `Steady` does with pictures in host memory."""

from __future__ import annotations

from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from nodes.sdxs.jobs import Bytes

MOVED: Final = 16.0
"""mean change of a patch of the source in grey levels at which nothing of the past is left in it"""
PATCH: Final = 9
"""pixels along a side of such a patch"""
LOOK_EVERY: Final = 4
"""pixels along each side, one of which is compared, to see whether the source has changed"""


class OnArrays:
    """Pictures as arrays: uint8 RGB, height × width × 3."""

    stream: Any = None

    def like(self, picture: Bytes) -> Bytes:
        """Memory for another such picture."""
        return np.empty_like(picture)

    def copy(self, picture: Bytes) -> Bytes:
        """Another such picture."""
        return picture.copy()

    def put(self, picture: Bytes, out: Bytes) -> None:
        """Writes a picture over another."""
        np.copyto(out, picture)

    def look(self, image: Bytes) -> NDArray[np.int16]:
        """As much of a source as is compared."""
        return image[::LOOK_EVERY, ::LOOK_EVERY].astype(np.int16)

    def difference(self, look: NDArray[np.int16], other: NDArray[np.int16]) -> float | None:
        """Mean difference of two sources in grey levels."""
        return float(np.abs(look - other).mean())

    def shrunk(self, image: Bytes, width: int, height: int) -> Bytes:
        """A smaller picture, averaged."""
        return np.asarray(
            cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8
        )

    def enlarge(self, small: Bytes, out: Bytes) -> None:
        """Fills a picture with a smaller one, by cubic interpolation."""
        size = (out.shape[1], out.shape[0])
        np.copyto(out, cv2.resize(small, size, interpolation=cv2.INTER_CUBIC))

    def mix(self, image: Bytes, before: Bytes, result: Bytes, out: Bytes, share: float) -> None:
        """Mixes the last result into `out` where the source has not changed.

        Args:
            image: the source.
            before: the source of the last result.
            result: the last result.
            out: this one.
            share: of the last one, where nothing has moved.
        """
        change = cv2.cvtColor(cv2.absdiff(image, before), cv2.COLOR_RGB2GRAY)
        # Sensor noise differs from pixel to pixel, motion from one patch to the next.
        patch = cv2.blur(change, (PATCH, PATCH)).astype(np.float32)
        part = share * np.clip(1 - patch / MOVED, 0, 1)[..., None]
        np.copyto(out, np.rint(out + part * (result - out.astype(np.float32))), "unsafe")

    def spoiled(self, finite: bool, out: Bytes, result: Bytes | None) -> bool | None:
        """Whether `out` is no picture."""
        return not finite

    def spoiled_before(self) -> int:
        """How many pictures before were none, as is known only now: none, in host memory."""
        return 0
