"""Names of the parts of a recording, and what is there already."""

from __future__ import annotations

import re
from pathlib import Path

_NUMBER = re.compile(r"%0?\d*d")


def part_path(path: Path, number: int) -> Path:
    """Where a part goes: `name.mp4`, then `name-2.mp4`, `name-3.mp4` and so on."""
    return path if number == 1 else path.with_name(f"{path.stem}-{number}{path.suffix}")


def first_free_number(path: Path) -> int:
    """The lowest number from 1 on whose part is not there yet."""
    number = 1
    while part_path(path, number).exists():
        number += 1
    return number


def pictures_in(pattern: Path) -> int:
    """The highest number of the pictures of a sequence that are there; 0 if there are none.

    Args:
        pattern: a path whose name holds a number such as `%04d`.
    """
    before, found, after = _split(pattern.name)
    if not found:
        return 0
    name = re.compile(re.escape(before) + r"(\d+)" + re.escape(after))
    matches = (name.fullmatch(item.name) for item in pattern.parent.iterdir())
    return max((int(match[1]) for match in matches if match), default=0)


def _split(name: str) -> tuple[str, bool, str]:
    match = _NUMBER.search(name)
    if match is None:
        return name, False, ""
    return name[: match.start()], True, name[match.end() :]
