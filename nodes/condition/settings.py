"""What is drawn, and how: kinds of conditions with their thresholds, as plain data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

from nodes.condition.taps import MAX_SIGMA

Kind = Literal["sketch", "canny", "soft", "luminance", "depth"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)

MAX_THRESHOLD: Final = 2048
"""No gradient is larger: 8-bit steps give up to 2040."""
MAX_WEIGHT: Final = 2

SURROUND: Final = 2.0
"""Standard deviation of the surroundings that a sketch's lines stand out from, pixels."""

# low, high, blur
_DEFAULTS: Final[dict[Kind, tuple[float, float, float]]] = {
    "sketch": (2.0, 8.0, 1.0),
    "canny": (100.0, 200.0, 0.0),
    "soft": (20.0, 400.0, 0.0),
    "luminance": (0.0, 255.0, 0.0),
    "depth": (0.0, 255.0, 0.0),
}


@dataclass(frozen=True, slots=True)
class Setting:
    """One condition.

    Attributes:
        kind: what is drawn.
        low: lower threshold; see `setting`.
        high: upper threshold.
        blur: of the picture beforehand: standard deviation, pixels.
        weight: of this condition among several, 0 to 2.
    """

    kind: Kind
    low: float
    high: float
    blur: float
    weight: float


def setting(
    kind: Kind,
    *,
    low: float | None = None,
    high: float | None = None,
    blur: float | None = None,
    weight: float = 1.0,
) -> Setting:
    """A condition, with the defaults of its kind.

    Args:
        kind: `sketch`, `canny`, `soft`, `luminance` or `depth`.
        low: `sketch`: grey levels darker than the surroundings at which a line begins to show
            (2). `canny`: gradient at which an edge goes on (100). `soft`: gradient that is black
            (20). `luminance` and `depth`: level that becomes black (0). All 0 to 2048.
        high: likewise: solid line (8); gradient that begins an edge (200); gradient that is
            white (400); level that becomes white (255).
        blur: standard deviation of a Gaussian blur beforehand, 0 to 3 pixels (`sketch`: 1, which
            sets the width of lines; else 0).
        weight: 0 to 2.

    Raises:
        ValueError: a value is out of range, or does not go with another.
    """
    if kind not in KINDS:
        raise ValueError(f"a kind is one of {', '.join(KINDS)}, not {kind!r}")
    usual = _DEFAULTS[kind]
    if kind == "depth" and blur:
        raise ValueError("depth takes no blur: its model sees the picture as it is")
    made = Setting(
        kind,
        usual[0] if low is None else float(low),
        usual[1] if high is None else float(high),
        usual[2] if blur is None else float(blur),
        float(weight),
    )
    for name, value, most in (
        ("low", made.low, MAX_THRESHOLD),
        ("high", made.high, MAX_THRESHOLD),
        ("blur", made.blur, MAX_SIGMA),
        ("weight", made.weight, MAX_WEIGHT),
    ):
        if not 0 <= value <= most:
            raise ValueError(f"{kind}: {name} is 0 to {most:g}, not {value:g}")
    if made.low > made.high or (made.low == made.high and kind != "canny"):
        raise ValueError(f"{kind}: low must be below high, not {made.low:g} to {made.high:g}")
    return made


def dark_on_white(settings: Sequence[Setting], *, invert: bool = False) -> bool:
    """Whether marks are shown black on white: where a sketch is among them, unless inverted.

    The published sketch ControlNet was trained on dark strokes on white paper; edges and depth
    are customarily white on black.
    """
    return any(one.kind == "sketch" for one in settings) != invert
