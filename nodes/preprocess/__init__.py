"""Preprocess: size, crop, mirror, pixel format and frame rate of pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from nodes.rate import RateLimit, exact_rate
from nodes.sizes import parse_colour, parse_rect, parse_size
from streamer import Drop, Frame, Params, Transform
from streamer.formats import YUV_FORMATS

if TYPE_CHECKING:
    from nodes.preprocess.shape import Shaper

__all__ = ["Preprocess", "PreprocessParams"]

_EMITS = ("rgb24", "yuv420p", "nv12", "bgr24", "gray")


def _size(text: str) -> str:
    parse_size(text)
    return text


def _crop(text: str) -> str:
    parse_rect(text)
    return text


def _colour(text: str) -> str:
    parse_colour(text)
    return text


class PreprocessParams(Params):
    """What pictures shall look like."""

    size: Annotated[str, AfterValidator(_size)] | None = Field(
        default=None, json_schema_extra={"unit": "px"}
    )
    """WIDTHxHEIGHT, 512x512 say; by default the size that pictures have, or that of the crop"""

    fit: Literal["cover", "contain", "stretch"] = "cover"
    """how a picture of another shape fills the size: cover cuts off what sticks out, contain adds \
bars, stretch distorts"""

    crop: Annotated[str, AfterValidator(_crop)] | None = Field(
        default=None, json_schema_extra={"unit": "px"}
    )
    """part that is used, before anything else: WIDTHxHEIGHT+X+Y from the upper left corner"""

    mirror: Literal["none", "horizontal", "vertical", "both"] = "none"
    """horizontal changes left and right, vertical top and bottom"""

    background: Annotated[str, AfterValidator(_colour)] = "black"
    """colour of the bars, and behind pictures that can be seen through: a name or #rrggbb"""

    format: Literal["auto", "rgb24", "yuv420p", "nv12", "bgr24", "gray"] = "auto"
    """pixel format to hand on; by default the cheapest one that the next nodes take"""

    fps: float | None = Field(
        default=None, gt=0, le=1000, allow_inf_nan=False, json_schema_extra={"unit": "1/s"}
    )
    """most frames a second to let through, chosen by presentation time"""

    @model_validator(mode="after")
    def _even(self) -> Self:
        if self.format in YUV_FORMATS:
            for name, sides in (
                ("size", self.size and parse_size(self.size)),
                ("crop", not self.size and self.crop and parse_rect(self.crop)[2:]),
            ):
                if sides and (sides[0] % 2 or sides[1] % 2):
                    raise ValueError(
                        f"{name}: {self.format} needs even sides, not {sides[0]}x{sides[1]}"
                    )
        return self


class Preprocess(Transform[PreprocessParams]):
    """Crops, scales, mirrors and converts pictures, and limits their rate."""

    Params = PreprocessParams
    memory = ("cuda", "host")
    preload: ClassVar[tuple[str, ...]] = ("nodes.preprocess.shape",)
    accepts = ("yuv420p", "nv12", "rgb24", "bgr24", "rgba", "gray")
    emits = _EMITS
    _shaper: Shaper | None = None
    _gate: RateLimit | None = None

    def open(self) -> None:
        """Gets ready.

        Raises:
            ParameterError: the pixel format is none that the next nodes take.
        """
        from nodes.preprocess.shape import Shaper

        self._shaper = Shaper(self.params, self.context, emits=_EMITS)
        if self.params.fps is not None:
            self._gate = RateLimit(exact_rate(self.params.fps))

    def process(self, frame: Frame) -> Frame | None:
        """Makes the picture, or drops it with reason `rate`.

        Args:
            frame: of any format of the graph.

        Raises:
            NodeError: the crop reaches beyond the very first picture, or none of the formats that
                the next nodes take can hold the picture.
            FrameError: the crop reaches beyond a later picture, that became smaller.
        """
        assert self._shaper is not None, "open() comes first"
        if self._gate is not None and not self._gate.passes(frame.pts * frame.time_base):
            self.context.drop(Drop.RATE)
            return None
        return self._shaper.shaped(frame)

    def close(self) -> None:
        """Frees the scaler."""
        self._shaper = None
