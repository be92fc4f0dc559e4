"""Mosaic: several pictures side by side, or in a grid."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, Field

from nodes.sizes import parse_colour, parse_size
from streamer import Frame, FrameError, Join, Params
from streamer.formats import MAX_SIDE

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["Mosaic", "MosaicParams"]


def _size(text: str) -> str:
    parse_size(text)
    return text


def _colour(text: str) -> str:
    parse_colour(text)
    return text


class MosaicParams(Params):
    """How the tiles are laid out."""

    columns: int | None = Field(default=None, ge=1, le=64)
    """tiles in one row; by default all of them"""

    size: Annotated[str, AfterValidator(_size)] | None = Field(
        default=None, json_schema_extra={"unit": "px"}
    )
    """WIDTHxHEIGHT of one tile; by default that of the first input's picture"""

    gap: int = Field(default=0, ge=0, le=512, json_schema_extra={"unit": "px"})
    """space between tiles"""

    background: Annotated[str, AfterValidator(_colour)] = "#101010"
    """colour of gaps, bars and tiles without a picture: a name or #rrggbb"""

    labels: bool = False
    """write the name of its input on each tile"""


class Mosaic(Join[MosaicParams]):
    """Shows several pictures at once, each in a tile of its own; one that is missing stays dark."""

    Params = MosaicParams
    accepts = ("rgb24",)
    emits = ("rgb24",)
    partial = True

    def process(self, frames: Mapping[str, Frame | None]) -> Frame:
        """Makes one picture of all; its times are those of the first input's.

        A picture of another shape than its tile is shown whole, with bars.

        Args:
            frames: one rgb24 picture of each input, None where there is none yet; the first
                input's is always there.

        Raises:
            FrameError: the whole would be larger than a picture may be.
        """
        shown = list(frames.items())
        leader = next(frame for _, frame in shown if frame is not None)
        params = self.params
        width, height = parse_size(params.size) if params.size else (leader.width, leader.height)
        columns = min(params.columns or len(shown), len(shown))
        rows = -(-len(shown) // columns)
        whole = (
            columns * width + (columns - 1) * params.gap,
            rows * height + (rows - 1) * params.gap,
        )
        if max(whole) > MAX_SIDE:
            raise FrameError(
                f"{columns}x{rows} tiles of {width}x{height} make {whole[0]}x{whole[1]} pixels, "
                f"more than {MAX_SIDE} a side; give a smaller size"
            )
        made = self.context.allocate(*whole, "rgb24", like=leader.header)
        try:
            self._fill(made, shown, columns=columns, tile=(width, height))
        except BaseException:
            made.release()
            raise
        return made

    def _fill(
        self,
        made: Frame,
        shown: list[tuple[str, Frame | None]],
        *,
        columns: int,
        tile: tuple[int, int],
    ) -> None:
        canvas, (width, height), gap = made.numpy(), tile, self.params.gap
        background = parse_colour(self.params.background)
        if gap or len(shown) % columns:
            canvas[:] = background
        for index, (name, frame) in enumerate(shown):
            top = index // columns * (height + gap)
            left = index % columns * (width + gap)
            place = canvas[top : top + height, left : left + width]
            if frame is None:
                place[:] = background
            else:
                _show(frame.numpy(), place, background)
            if self.params.labels:
                _label(place, name)


def _show(
    picture: npt.NDArray[np.uint8],
    place: npt.NDArray[np.uint8],
    background: tuple[int, int, int],
) -> None:
    """Scales a picture into the middle of a place, and paints the bars beside it."""
    from nodes.preprocess.geometry import layout
    from nodes.preprocess.shape import cut_out, scale
    from nodes.sizes import Rect

    height, width = place.shape[:2]
    whole = Rect(0, 0, picture.shape[1], picture.shape[0])
    target = layout(whole, (width, height), "contain", even=False).target
    if target[2:] != (width, height):
        place[:] = background
    scale(picture, target.width, target.height, target=cut_out(place, target))


def _label(place: npt.NDArray[np.uint8], text: str) -> None:
    """Writes a text into the lower left corner, white on a dark strip."""
    import cv2
    import numpy as np

    height, width = place.shape[:2]
    # About a twentieth of the tile's height, readable on small tiles too.
    factor = max(0.35, height / 20 / 22)
    thickness = max(1, round(factor * 1.5))
    (wide, high), below = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, factor, thickness)
    margin = below
    strip = place[max(0, height - high - below - margin) :, : min(width, wide + 2 * margin)]
    strip[:] = strip // 4
    # OpenCV draws on contiguous memory only, and a tile is a part of a larger picture.
    drawn = np.ascontiguousarray(strip)
    at = (margin, drawn.shape[0] - below)
    white = (255, 255, 255)
    cv2.putText(drawn, text, at, cv2.FONT_HERSHEY_SIMPLEX, factor, white, thickness, cv2.LINE_AA)
    strip[:] = drawn
