"""Kinds of nodes, built-in and third-party alike, found by installed packages' entry points."""

from __future__ import annotations

import importlib
import os
import re
import sys
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from streamer.errors import StreamerError
from streamer.nodebase import Node

GROUP = "streamer.nodes"
_PLACE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


class UnknownKindError(StreamerError):
    """No installed package offers a node of this kind."""

    exit_status = 2


def kinds() -> dict[str, str]:
    """Names of all kinds and where each is (`package.module:Class`), without importing any."""
    return {point.name: point.value for point in sorted(_points(), key=lambda p: p.name)}


def load(kind: str) -> type[Node[Any]]:
    """The class of a kind: an entry point's name, or `package.module:Class` for one not installed.

    Raises:
        UnknownKindError: there is no such kind, two packages offer it, its module cannot be
            imported, or what is there is no node.
    """
    places = sorted({point.value for point in _points() if point.name == kind})
    if len(places) > 1:
        raise UnknownKindError(
            f"{len(places)} installed packages offer a node {kind!r}: name the one you mean, "
            f"{' or '.join(places)}"
        )
    where = kinds().get(kind, kind)
    module_name, _, attribute = where.partition(":")
    if not _PLACE.fullmatch(where):
        raise UnknownKindError(f"unknown kind of node {kind!r}; known: {', '.join(kinds())}")
    try:
        found = getattr(importlib.import_module(module_name), attribute)
    except (Exception, SystemExit) as error:  # someone's code, which may fail in any way
        reason = str(error) if isinstance(error, ImportError | AttributeError) else repr(error)
        if isinstance(error, SystemExit):
            reason = "it ends the program when it is imported"
        raise UnknownKindError(
            f"node {kind!r} cannot be imported from {where}: {reason}"
        ) from error
    if not (isinstance(found, type) and issubclass(found, Node)):
        raise UnknownKindError(f"{where} is not a node class")
    return found


def _points() -> tuple[EntryPoint, ...]:
    return _points_on(tuple((folder, _changed(folder)) for folder in sys.path))


def _changed(folder: str) -> int:
    """When something was last installed in a folder, or removed."""
    try:
        return os.stat(folder or ".").st_mtime_ns
    except OSError:
        return 0


@lru_cache(maxsize=1)
def _points_on(folders: tuple[tuple[str, int], ...]) -> tuple[EntryPoint, ...]:
    # Looks through every installed package, which takes longer than all else in a check.
    return tuple(entry_points(group=GROUP))
