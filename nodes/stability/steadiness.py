"""The score of a whole video, source and result side by side."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from nodes.stability.flow import Bytes, Flow, check_pair
from nodes.stability.measures import warp_error


@dataclass(frozen=True, slots=True)
class Result:
    """How steady a video is, before and after styling.

    Attributes:
        pairs: neighbouring pictures that were compared.
        cuts: neighbouring pictures without common motion, which were not.
        source_error: mean warp error of the source, grey levels: noise, light, and what the flow
            gets wrong.
        styled_error: mean warp error of the result by the source's motion, grey levels.
        source_contrast: mean standard deviation of the source's pictures, grey levels.
        styled_contrast: mean standard deviation of the result's pictures.
    """

    pairs: int
    cuts: int
    source_error: float
    styled_error: float
    source_contrast: float
    styled_contrast: float

    @property
    def score(self) -> float | None:
        """Temporal stability: the source's error over the result's, each for its own contrast.

        1 is as steady as the source, 0.5 means twice as unsteady. Errors count in proportion to
        contrast, since ink on paper changes by more grey levels than fog when it moves as much;
        so a result without contrast gains nothing by being flat. None where one of them does not
        change at all or has no contrast.
        """
        if not (self.source_error and self.styled_error and self.source_contrast):
            return None
        return (self.source_error / self.source_contrast) / (
            self.styled_error / self.styled_contrast
        )

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON types."""
        return {**asdict(self), "score": self.score}


class Steadiness:
    """Takes pictures and their styled counterparts one after the other, and keeps one pair."""

    def __init__(self) -> None:
        self._flow = Flow()
        self._last: tuple[Bytes, Bytes] | None = None
        self._errors: list[tuple[float, float]] = []
        self._contrasts: list[tuple[float, float]] = []
        self._cuts = 0

    def add(self, source: Bytes, styled: Bytes) -> None:
        """Takes the next picture.

        Args:
            source: uint8 of shape (H, W, 3), RGB, or (H, W).
            styled: uint8 of the same height and width.

        Raises:
            ValueError: shapes or types do not fit each other or the pictures before.
        """
        if source.shape[:2] != styled.shape[:2]:
            raise ValueError(
                f"source and result differ in size: {source.shape[:2]} and {styled.shape[:2]}"
            )
        last = self._last
        if last is not None:
            check_pair(last[1], styled)
            motion = self._flow.between(last[0], source)
            before = warp_error(last[0], source, motion)
            after = warp_error(last[1], styled, motion)
            if before is None or after is None:
                self._cuts += 1
            else:
                self._errors.append((before, after))
        else:
            check_pair(source, source)
            check_pair(styled, styled)
        self._contrasts.append((float(source.std()), float(styled.std())))
        self._last = (source.copy(), styled.copy())

    def result(self) -> Result:
        """What was measured.

        Raises:
            ValueError: no two neighbouring pictures could be compared.
        """
        if not self._errors:
            raise ValueError(
                f"of {len(self._contrasts)} pictures no two neighbours have a motion in common; "
                "stability takes two that follow each other"
            )
        source_error, styled_error = (float(x) for x in np.mean(self._errors, axis=0))
        source_contrast, styled_contrast = (float(x) for x in np.mean(self._contrasts, axis=0))
        return Result(
            pairs=len(self._errors),
            cuts=self._cuts,
            source_error=source_error,
            styled_error=styled_error,
            source_contrast=source_contrast,
            styled_contrast=styled_contrast,
        )
