"""Names of the files of a recording, and what is there already."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Final

from nodes.encoder.directives import at_moment, is_pattern
from streamer import ParameterError

_NUMBER = re.compile(r"%0?\d*d")
_DIGITS: Final = 4


def part_path(path: Path, number: int) -> Path:
    """Where a part goes: `name.mp4`, then `name-2.mp4`, `name-3.mp4` and so on."""
    return path if number == 1 else path.with_name(f"{path.stem}-{number}{path.suffix}")


def first_free_number(path: Path) -> int:
    """The lowest number from 1 on whose part is not there yet."""
    number = 1
    while part_path(path, number).exists():
        number += 1
    return number


def segment_path(path: Path, number: int) -> Path:
    """Where a segment goes: `name-0001.mp4`, `name-0002.mp4` and so on."""
    return path.with_name(f"{path.stem}-{number:0{_DIGITS}d}{path.suffix}")


def last_segment(path: Path) -> int:
    """The highest number of the segments of this name that are there; 0 if there are none."""
    if not path.parent.is_dir():
        return 0
    return _highest(path.parent, path.stem + "-", rf"(\d{{{_DIGITS},}})", path.suffix)


def pictures_in(pattern: Path) -> int:
    """The highest number of the pictures of a sequence that are there; 0 if there are none.

    Args:
        pattern: a path whose name holds a number such as `%04d`.
    """
    match = _NUMBER.search(pattern.name)
    if match is None:
        return 0
    before, after = pattern.name[: match.start()], pattern.name[match.end() :]
    return _highest(pattern.parent, before, r"(\d+)", after)


def _highest(folder: Path, before: str, number: str, after: str) -> int:
    name = re.compile(re.escape(before) + number + re.escape(after))
    matches = (name.fullmatch(item.name) for item in folder.iterdir())
    return max((int(match[1]) for match in matches if match), default=0)


class Names:
    """Gives every file of a recording its name.

    A name with a moment in it gets the present one; segments are numbered, after those that are
    there already, so that nothing recorded is ever replaced; anything else is `name.mp4` and, when
    it has to go on in another file, `name-2.mp4` and so on: the first that is not there yet. Only
    the name that the user gave may replace a file.

    Args:
        path: as the user gave it.
        segmented: whether the recording is divided by time or size.
        anew: whether the node was started again in this run, and keeps what was recorded.
        overwrite: whether a file of the very name that was given may be replaced.
    """

    def __init__(self, path: Path, *, segmented: bool, anew: bool, overwrite: bool) -> None:
        self.path = path
        self._overwrite = overwrite
        self._segmented = segmented
        self._anew = anew
        self._given = 0

    def next(self, moment: float) -> Path:
        """The name of the next file.

        Args:
            moment: seconds since 1970.

        Raises:
            ParameterError: it is there already and must not be replaced.
        """
        self._given += 1
        if is_pattern(self.path):
            path = at_moment(self.path, moment)
            return part_path(path, first_free_number(path))
        if self._segmented:
            return segment_path(self.path, last_segment(self.path) + 1)
        if self._anew or self._given > 1:
            return part_path(self.path, first_free_number(self.path))
        if not self._overwrite and self.path.exists():
            raise ParameterError(
                f"the file {self.path} exists already and overwrite is false; remove it"
            )
        return self.path

    @property
    def begun(self) -> bool:
        """Whether a file of this recording has had its name, in this process or in a former one."""
        return self._anew or self._given > 0

    @property
    def planned(self) -> bool:
        """Whether the user has asked for other names than the one that was given."""
        return self._segmented or is_pattern(self.path)

    @property
    def folder(self) -> Path:
        """Where the next file goes, or the nearest folder above that is there already."""
        folder = (at_moment(self.path, time.time()) if is_pattern(self.path) else self.path).parent
        while not folder.exists() and folder != folder.parent:
            folder = folder.parent
        return folder
