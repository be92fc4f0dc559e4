"""Which part of a picture goes where: pure arithmetic on whole pixels."""

from __future__ import annotations

from typing import Literal, NamedTuple

from nodes.sizes import Rect

Fit = Literal["cover", "contain", "stretch"]


class Layout(NamedTuple):
    """One part of the source, and the part of the result that it fills.

    Attributes:
        source: in pixels of the source.
        target: in pixels of the result; what lies around it is background.
        size: width and height of the result.
    """

    source: Rect
    target: Rect
    size: tuple[int, int]


def layout(
    area: Rect, size: tuple[int, int] | None, fit: Fit, *, even: bool, pairs: bool = False
) -> Layout:
    """How an area of a picture fills a size.

    Args:
        area: the part of the source that is used, in its pixels.
        size: width and height of the result; the area's own if None.
        fit: `cover` uses the largest part of the area that has the result's shape, from its
            middle; `contain` shows all of it in the middle of the result; `stretch` distorts.
        even: whether all of the result's positions must be even, as halved chroma wants it.
        pairs: whether the part of an even area shall begin and end at even pixels too, so that
            its halved chroma can be cut out.
    """
    width, height = size or (area.width, area.height)
    whole = Rect(0, 0, width, height)
    if (area.width, area.height) == (width, height) or fit == "stretch":
        return Layout(area, whole, (width, height))
    if fit == "cover":
        step = 2 if pairs and not any(number % 2 for number in area) else 1
        # Compared by cross-multiplication, so that no rounding tilts the shape.
        if area.width * height > area.height * width:
            part = _near(area.height * width / height, step, area.width)
            source = Rect(area.x + _middle(area.width, part, step), area.y, part, area.height)
        else:
            part = _near(area.width * height / width, step, area.height)
            source = Rect(area.x, area.y + _middle(area.height, part, step), area.width, part)
        return Layout(source, whole, (width, height))
    step = 2 if even else 1
    if area.width * height > area.height * width:
        part = _near(width * area.height / area.width, step, height)
        target = Rect(0, _middle(height, part, step), width, part)
    else:
        part = _near(height * area.width / area.height, step, width)
        target = Rect(_middle(width, part, step), 0, part, height)
    return Layout(area, target, (width, height))


def _near(length: float, step: int, most: int) -> int:
    return min(most, max(step, round(length / step) * step))


def _middle(length: int, part: int, step: int) -> int:
    return (length - part) // 2 // step * step
