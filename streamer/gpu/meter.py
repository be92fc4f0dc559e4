"""Bytes copied between host and GPU, counted for the node whose thread asks for the copy.

A process may hold several nodes, and devices are shared by all of it; each node has its thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

from streamer.gpu.device import Copy

Meters = Mapping[Copy, Callable[[int], None]]
"""called with the bytes of each copy, by the way it goes"""

_mine = threading.local()


def use(meters: Meters) -> None:
    """Has what this thread copies counted from now on."""
    _mine.meters = meters


def in_use() -> Meters:
    """What counts this thread's copies, to be handed on to a thread that copies for it."""
    meters: Meters = getattr(_mine, "meters", {})
    return meters


def count(kind: Copy, nbytes: int) -> None:
    """Counts a copy; devices call it, and whoever has a library copy in their place."""
    meter = in_use().get(kind)
    if meter is not None:
        meter(nbytes)
