"""What a live output shows while nothing comes, and when."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from streamer import Frame, ParameterError

if TYPE_CHECKING:
    import numpy as np
    from av.video.frame import VideoFrame

    from nodes.encoder.pictures import Shape

PATIENCE: Final = 2.5
"""intervals without a picture after which something else is shown"""
LEAST_PATIENCE: Final = 0.2
"""seconds that are waited in any case"""
SLOWEST: Final = 0.2
"""seconds between two pictures in place of others, on a network"""
TRAIL: Final = 0.1
"""seconds by which they stay behind the clock, so that a source can come back a little early"""
_DARK: Final = (24, 24, 28)
_LIGHT: Final = (190, 190, 190)
_SUFFIXES: Final = (".png", ".jpg", ".jpeg", ".bmp", ".webp")


class StandIn:
    """Knows the last picture and when it came.

    Args:
        mode: `hold` shows the last picture, `slate` a still, `nothing` nothing.
        slate: a text, or the path of a picture.
        device: whether the output is a virtual camera.

    Raises:
        ParameterError: the slate's picture cannot be read.
    """

    def __init__(self, mode: str, slate: str, *, device: bool) -> None:
        self._mode, self._text, self._device = mode, slate, device
        self._image = load_slate(slate) if mode == "slate" else None
        self._last: VideoFrame | None = None
        self._still: VideoFrame | None = None
        self._size = (0, 0)
        self._came_at = self._shown_at = 0.0

    @property
    def active(self) -> bool:
        """Whether it ever shows anything."""
        return self._mode != "nothing"

    def came(self, picture: VideoFrame, size: tuple[int, int], now: float) -> None:
        """A picture of the source has come.

        Args:
            picture: as it is encoded; it must outlast the frame that it was made of.
            size: of the frame, pixels.
            now: seconds.
        """
        if self.active:
            if size != self._size:
                self._size, self._still = size, None
            self._last, self._came_at = picture, now

    def wait(self, interval: float, now: float) -> float | None:
        """Seconds until something is to be shown; 0 for now, None if nothing is to be shown.

        Args:
            interval: seconds between two pictures of the source, as usual.
            now: on the clock of `came`.
        """
        if self._last is None:
            return None
        spaced = self._shown_at + self.spacing(interval)
        return max(0.0, max(self._came_at + patience(interval), spaced) - now)

    def spacing(self, interval: float) -> float:
        """Seconds between two pictures that are shown in place of others."""
        return spacing(interval, device=self._device)

    def show(self, shape: Shape, now: float) -> tuple[VideoFrame, float]:
        """The picture to show now, and how many seconds after the last one it is to be shown.

        Args:
            shape: that the encoder is open for.
            now: on the clock of `came`.
        """
        assert self._last is not None
        self._shown_at = now
        since = now - self._came_at - TRAIL
        if self._mode == "hold":
            return self._last, since
        if self._still is None:
            from nodes.encoder.pictures import Converter

            slate = draw_slate(self._text, self._image, *self._size)
            self._still = Converter(shape, frees=False).convert(slate)
        return self._still, since


def patience(interval: float) -> float:
    """Seconds without a picture after which something else is shown.

    Args:
        interval: seconds between two pictures, as usual.
    """
    return max(PATIENCE * interval, LEAST_PATIENCE)


def spacing(interval: float, *, device: bool) -> float:
    """Seconds between two pictures that are shown in place of others.

    Args:
        interval: seconds between two pictures of the source, as usual.
        device: whether it is a virtual camera, whose readers want its full rate.
    """
    return interval if device else max(interval, SLOWEST)


def load_slate(slate: str) -> np.ndarray[Any, Any] | None:
    """The picture that a slate names, rgb24 of any size; None where it is a text.

    Raises:
        ParameterError: there is no such picture, or it cannot be read.
    """
    if not slate.lower().endswith(_SUFFIXES):
        return None
    import cv2
    import numpy as np

    if not Path(slate).is_file():
        raise ParameterError(f"the slate {slate} does not exist; name a picture, or give a text")
    image = cv2.imread(slate, cv2.IMREAD_COLOR)
    if image is None:
        raise ParameterError(f"the slate {slate} is no picture that can be read")
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))


def draw_slate(text: str, image: np.ndarray[Any, Any] | None, width: int, height: int) -> Frame:
    """A still frame: a picture in the middle of a dark ground, or a text.

    Args:
        text: shown where there is no picture; Latin letters, digits and signs.
        image: rgb24, any size; it is made to fit.
        width: pixels of the frame.
        height: pixels of the frame.
    """
    import cv2
    import numpy as np

    canvas = np.empty((height, width, 3), np.uint8)
    canvas[:] = _DARK
    if image is not None:
        scale = min(width / image.shape[1], height / image.shape[0])
        size = (max(1, int(image.shape[1] * scale)), max(1, int(image.shape[0] * scale)))
        fitted = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        top, left = (height - size[1]) // 2, (width - size[0]) // 2
        canvas[top : top + size[1], left : left + size[0]] = fitted
    elif text:
        font, thickness = cv2.FONT_HERSHEY_SIMPLEX, max(1, height // 240)
        (wide, high), _ = cv2.getTextSize(text, font, 1.0, thickness)
        scale = min(0.7 * width / max(wide, 1), height / 12 / max(high, 1))
        (wide, high), _ = cv2.getTextSize(text, font, scale, thickness)
        at = ((width - wide) // 2, (height + high) // 2)
        cv2.putText(canvas, text, at, font, scale, _LIGHT, thickness, cv2.LINE_AA)
    return Frame.of(canvas)
