"""What a percent sign in the name of an output stands for: a moment, or a picture's number."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Final

_MOMENTS: Final = "aAbBcCdeFgGhHIjklmMpPrRsSTuUVwWXyYzZ"
"""directives of strftime, as the manual of the C library names them, that suit a file's name"""
_UNSUITED: Final = {"D": "slashes", "x": "slashes", "n": "a new line", "t": "a tab"}
"""the others, and what they would put into it"""
_USUAL: Final = "%Y %m %d %H %M %S %j %a %b %F %T %s %z"
_MOMENT: Final = re.compile(f"%(?:[-_0^#]?[{_MOMENTS}]|%)")
_ANY: Final = re.compile(r"%(?:[-_0^#]*\d*[A-Za-z+]|[-_0^#]*\d+|%)")
_NUMBER: Final = re.compile(r"%0?\d*d")


def is_pattern(path: Path) -> bool:
    """Whether a path tells the time at which its file begins, as `rec-%Y%m%d-%H%M%S.mp4` does."""
    return _MOMENT.search(str(path)) is not None


def at_moment(path: Path, moment: float) -> Path:
    """The path with the local time put in.

    Args:
        path: for which `is_pattern` holds.
        moment: seconds since 1970.
    """
    return Path(time.strftime(str(path), time.localtime(moment)))


def wrong_moment(path: str) -> str | None:
    """What is wrong with the directives in the path of a recording; None if nothing is.

    A percent sign before anything but a letter or a number is one.
    """
    for found in _ANY.findall(path):
        if _MOMENT.fullmatch(found):
            continue
        if _NUMBER.fullmatch(found):
            return (
                f"{found} is for pictures (.png, .jpg): the files of a recording are numbered "
                "without it, as segment_seconds or segment_megabytes ask for (name-0001.mp4)"
            )
        if (puts := _UNSUITED.get(found[-1])) is not None:
            return f"{found} would put {puts} into it; use others, such as {_USUAL}"
        return (
            f"{found} is no directive of strftime; usual ones are {_USUAL}, and a percent sign is "
            "written %%"
        )
    return None


def is_numbered(path: str) -> bool:
    """Whether a path holds a number of pictures, as `out/%04d.png` does."""
    return _NUMBER.search(path) is not None


def wrong_number(path: str) -> str | None:
    """What is wrong with the number in the path of pictures; None if nothing is."""
    numbers = _NUMBER.findall(path)
    if len(numbers) > 1:
        return f"it has {len(numbers)} numbers, {' and '.join(numbers)}; one counts the pictures"
    others = [found for found in _ANY.findall(path) if found not in numbers and found != "%%"]
    if others:
        return (
            f"{others[0]} is no number of a picture, as %04d is; only the name of a recording "
            "can tell the time, and a percent sign is written %%"
        )
    return None
