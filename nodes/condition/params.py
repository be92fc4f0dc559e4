"""Parameters of the `condition` node."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from nodes.condition.depth_folder import check_folder
from nodes.condition.settings import (
    MAX_THRESHOLD,
    MAX_WEIGHT,
    Kind,
    Setting,
    dark_on_white,
    setting,
)
from nodes.condition.taps import MAX_SIGMA
from streamer import Params

_LIVE: dict[str, Any] = {"live": True}
_LIVE_PIXELS: dict[str, Any] = {"live": True, "unit": "px"}

Weight = Annotated[float, Field(ge=0, le=MAX_WEIGHT)]


class KindParams(Params):
    """One condition among several."""

    weight: Weight = Field(default=1.0, json_schema_extra=_LIVE)
    """share of its marks in the whole; weights of 1 lay marks over each other"""

    low: float | None = Field(default=None, ge=0, le=MAX_THRESHOLD, json_schema_extra=_LIVE)
    """lower threshold, as for a single kind"""

    high: float | None = Field(default=None, ge=0, le=MAX_THRESHOLD, json_schema_extra=_LIVE)
    """upper threshold, as for a single kind"""

    blur: float | None = Field(default=None, ge=0, le=MAX_SIGMA, json_schema_extra=_LIVE_PIXELS)
    """blur beforehand, as for a single kind"""


class ConditionParams(Params):
    """What is drawn of a picture, and how."""

    kind: Kind = Field(default="sketch", json_schema_extra=_LIVE)
    """sketch draws dark lines on white, as the sketch ControlNet wants them; canny thin edges, \
soft edges by their strength, luminance and depth (near is bright) white on black"""

    kinds: dict[Kind, Weight | KindParams] | None = Field(
        default=None, min_length=1, json_schema_extra=_LIVE
    )
    """several at once, each with its weight, {canny: 0.7, soft: 0.3} say, or with values of its \
own, {canny: {weight: 0.7, low: 50}}; dark on white if a sketch is among them"""

    low: float | None = Field(default=None, ge=0, le=MAX_THRESHOLD, json_schema_extra=_LIVE)
    """sketch: grey levels darker than the surroundings where a line begins to show (2); canny: \
gradient at which an edge goes on (100); soft: gradient that is black (20); luminance and depth: \
level that becomes black (0)"""

    high: float | None = Field(default=None, ge=0, le=MAX_THRESHOLD, json_schema_extra=_LIVE)
    """sketch: grey levels where a line is solid (8); canny: gradient that begins an edge (200); \
soft: gradient that is white (400); luminance and depth: level that becomes white (255)"""

    blur: float | None = Field(default=None, ge=0, le=MAX_SIGMA, json_schema_extra=_LIVE_PIXELS)
    """Gaussian blur beforehand, its standard deviation: it keeps noise from being drawn, and is \
the width of a sketch's lines; 1 for sketch, else 0"""

    invert: bool = Field(default=False, json_schema_extra=_LIVE)
    """swap black and white"""

    depth_model: str | None = None
    """folder with a depth model in transformers' layout; it is loaded when depth is drawn"""

    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    """where it runs; auto takes the node's GPU, or the CPU where it has none"""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.kinds is not None:
            given = self.model_fields_set & {"kind", "low", "high", "blur"}
            if given:
                raise ValueError(
                    f"kinds leaves no place for {' and '.join(sorted(given))}: give each kind its "
                    "own, as in {canny: {weight: 0.7, low: 50, high: 150}}"
                )
        settings = self.settings()
        if not any(one.weight for one in settings):
            raise ValueError("kinds: one weight at least must be above 0")
        wanted = any(one.kind == "depth" for one in settings)
        if wanted and self.depth_model is None:
            raise ValueError(
                "depth needs depth_model: a folder with a depth model in transformers' layout"
            )
        if self.depth_model is not None:
            try:
                check_folder(self.depth_model)
            except FileNotFoundError as error:
                raise ValueError(f"depth_model: {error}") from None
        return self

    def settings(self) -> tuple[Setting, ...]:
        """What is to be drawn, one for each kind.

        Raises:
            ValueError: thresholds that do not go together.
        """
        if self.kinds is None:
            return (setting(self.kind, low=self.low, high=self.high, blur=self.blur),)
        return tuple(
            setting(kind, low=one.low, high=one.high, blur=one.blur, weight=one.weight)
            if isinstance(one, KindParams)
            else setting(kind, weight=one)
            for kind, one in self.kinds.items()
        )

    @property
    def dark_on_white(self) -> bool:
        """Whether marks are black on white."""
        return dark_on_white(self.settings(), invert=self.invert)
