"""Commands that installed packages add, found by entry points as kinds of nodes are.

A package that has a command says so in its metadata::

    [project.entry-points."streamer.commands"]
    pull = "package.module:function"

and the same under `streamer.benches` for a part of `streamer bench`. The function's parameters are
annotated for Typer, and the first line of its docstring is its line in the help; its module should
be quick to import.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from streamer.errors import StreamerError

COMMANDS = "streamer.commands"
BENCHES = "streamer.benches"


def points(group: str) -> dict[str, EntryPoint]:
    """What installed packages offer in a group, by name and in order of names."""
    return {point.name: point for point in sorted(entry_points(group=group), key=lambda p: p.name)}


def load(point: EntryPoint) -> Callable[..., Any]:
    """The function of a command.

    Raises:
        StreamerError: Its module cannot be imported, or has no such function.
    """
    try:
        function: Callable[..., Any] = point.load()
    except Exception as error:  # the module is someone's code, and may fail in any way
        raise StreamerError(
            f"the command {point.name!r} cannot be loaded from {point.value}: {error}"
        ) from error
    return function


def summary(point: EntryPoint) -> str:
    """A command's line in the help."""
    try:
        text = load(point).__doc__ or ""
    except StreamerError as error:
        return str(error)
    return text.strip().partition("\n")[0]


def later(point: EntryPoint) -> Callable[..., Any]:
    """The function of a command, or one that says why there is none when it is called."""
    try:
        return load(point)
    except StreamerError as error:
        said = str(error)

    def broken() -> None:
        raise StreamerError(said)

    broken.__doc__ = said
    return broken
