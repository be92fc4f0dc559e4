"""A graph file as a tree of values that know where they stand."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from collections.abc import Mapping as AnyMapping
from collections.abc import Sequence as AnySequence
from dataclasses import dataclass, field
from typing import Any, Final

from streamer.errors import Problem
from streamer.masking import mask

MAX_DEPTH: Final = 32
"""Levels of nesting that a graph file may have."""
MAX_VALUES: Final = 20_000
"""Values that a graph file may hold once its aliases are written out."""
LEAST_INT: Final = -(1 << 63)
MOST_INT: Final = (1 << 64) - 1
"""Whole numbers that every message between processes can hold."""
MAX_MESSAGE: Final = 340
"""Characters of a message; what a file says is longer than anyone reads."""


def one_line(text: str, most: int = MAX_MESSAGE) -> str:
    """A text for a message: in one line, of bounded length, its credentials hidden.

    Args:
        text: may hold whatever a file holds.
        most: characters; of a longer text the beginning and the end are kept.
    """
    text = mask(text)  # first: half a URL cannot be told from other text
    if not text.isprintable():
        text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
    if len(text) > most:
        end = most // 3
        text = f"{text[: most - end - 3]} … {text[-end:]}"
    return text


def no_text(text: str) -> bool:
    """Whether a text holds a NUL or a lone surrogate, which no file name or URL can hold."""
    return any(c == "\0" or "\ud800" <= c <= "\udfff" for c in text)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value stands: a file with a 1-based line and column, or `--set ...` without."""

    file: str
    line: int = 0
    column: int = 0

    def problem(self, message: str) -> Problem:
        """A mistake at this place."""
        return Problem(self.file, self.line, self.column, one_line(message))


@dataclass(slots=True)
class Scalar:
    """A single value.

    Attributes:
        value: as YAML resolved it.
        place: where it stands.
        variables: names of the environment variables that its text was taken from.
        known: False where a variable was not set, so that nothing can be said about the value.
        mistakes: in its substitution, which count if nothing else takes its place.
    """

    value: bool | int | float | str | None
    place: Place
    variables: tuple[str, ...] = ()
    known: bool = True
    mistakes: tuple[Problem, ...] = ()

    def plain(self) -> Any:
        """The value as JSON types."""
        return self.value


@dataclass(slots=True)
class Sequence:
    """A list of values."""

    place: Place
    items: list[Value] = field(default_factory=list)

    def plain(self) -> list[Any]:
        """The list as JSON types."""
        return [item.plain() for item in self.items]


@dataclass(slots=True)
class Entry:
    """A value under a key; `place` is that of the key."""

    place: Place
    value: Value


@dataclass(slots=True)
class Mapping:
    """Values under keys, in the order of the file."""

    place: Place
    entries: dict[str, Entry] = field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        """The mapping as JSON types."""
        return {key: entry.value.plain() for key, entry in self.entries.items()}

    def get(self, key: str) -> Value | None:
        """The value under a key, or None."""
        entry = self.entries.get(key)
        return None if entry is None else entry.value


Value = Scalar | Sequence | Mapping


def walk(value: Value) -> Iterator[Value]:
    """The value and everything in it."""
    yield value
    if isinstance(value, Sequence):
        for item in value.items:
            yield from walk(item)
    elif isinstance(value, Mapping):
        for entry in value.entries.values():
            yield from walk(entry.value)


@dataclass(frozen=True, slots=True)
class Spot:
    """What a path through a tree leads to.

    Attributes:
        path: keys and indices that exist, from the start of the search.
        place: of the last key or value on the path.
        key: the last key on the path, or the empty string.
        value: the value there.
    """

    path: tuple[str | int, ...]
    place: Place
    key: str
    value: Value


def find(value: Value, path: AnySequence[str | int], place: Place | None = None) -> Spot:
    """Follows a path of keys and indices as far as it goes, skipping steps that do not exist.

    A validator's path also names alternatives of a union that are no keys of the file.

    Args:
        value: where to start.
        path: keys and indices.
        place: of `value`, its own by default.
    """
    taken: list[str | int] = []
    key = ""
    at = place or value.place
    for step in path:
        if isinstance(value, Mapping) and isinstance(step, str) and step in value.entries:
            key, value = step, value.entries[step].value
            at = value.place
        elif isinstance(value, Sequence) and isinstance(step, int) and step < len(value.items):
            value = value.items[step]
            at = value.place
        else:
            continue
        taken.append(step)
    return Spot(tuple(taken), at, key, value)


def tree_of(data: Any, place: Place, report: Callable[[Problem], None]) -> Value:
    """A tree of Python values; tuples count as lists, and paths as texts.

    Args:
        data: None, bool, int, float, str, a path, or lists and mappings of these.
        place: given to every value.
        report: called for each value that has no place in a graph.
    """
    count = 0

    def convert(data: Any, path: str, depth: int) -> Value:
        nonlocal count
        count += 1
        if depth > MAX_DEPTH or count > MAX_VALUES:
            if count <= MAX_VALUES + 1:
                report(place.problem(f"{path}: nested or repeated too often"))
            count = MAX_VALUES + 2
            return Scalar(None, place, known=False)
        if isinstance(data, os.PathLike):
            data = os.fspath(data)
        if isinstance(data, int) and not LEAST_INT <= data <= MOST_INT:
            report(place.problem(f"{path}: a whole number must fit into 64 bits"))
            return Scalar(None, place, known=False)
        if isinstance(data, str) and no_text(data):
            report(place.problem(f"{path}: holds a NUL or half a character, which is no text"))
            return Scalar(None, place, known=False)
        if data is None or isinstance(data, bool | int | float | str):
            return Scalar(data, place)
        if isinstance(data, AnyMapping):
            mapping = Mapping(place)
            for key, item in data.items():
                if not isinstance(key, str):
                    report(place.problem(f"{path}: a key must be text, not {key!r}"))
                    continue
                inner = convert(item, f"{path}.{key}" if path else key, depth + 1)
                mapping.entries[key] = Entry(place, inner)
            return mapping
        if isinstance(data, list | tuple):
            items = [convert(item, f"{path}[{i}]", depth + 1) for i, item in enumerate(data)]
            return Sequence(place, items)
        message = f"{path or 'the graph'}: a {type(data).__name__} is no value of a graph"
        report(place.problem(f"{message}; use text, numbers, true, false, lists and mappings"))
        return Scalar(None, place, known=False)

    return convert(data, "", 0)
