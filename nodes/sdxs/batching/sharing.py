"""Loaded models of this process, each of them once, however many nodes paint with it."""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nodes.sdxs.batching.passes import MOST, Fence, Passes

if TYPE_CHECKING:
    from nodes.sdxs.engine import OneStep


@dataclass(eq=False, slots=True)
class _Place:
    """Where one model stands, or is to stand.

    Attributes:
        loading: held by who loads it; others wait for the model in place of loading it again.
        passes: of the model, which they keep; nothing here does.
    """

    loading: threading.Lock = field(default_factory=threading.Lock)
    passes: weakref.ref[Passes] | None = None


class Shelf:
    """Engines by what tells them apart. It holds none: the last to let go of one frees it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._places: dict[Hashable, _Place] = {}

    def share(
        self,
        key: Hashable,
        load: Callable[[], OneStep],
        *,
        together: bool = True,
        alive: Callable[[], None] = lambda: None,
        log: logging.Logger | None = None,
    ) -> OneStep:
        """An engine with settings of its own and a model that all with the same key share.

        All of them take turns; each serves one thread at a time. The model is closed and freed
        when nothing holds any of them any longer, in whichever thread that is.

        Args:
            key: all that the model and its arithmetic depend on.
            load: loads it; called if nobody has it, and by one at a time.
            together: whether its pictures may be painted in one pass with others'.
            alive: called about once a second while it waits for its turn.
            log: receives its warnings; that of the engine by default.

        Raises:
            Exception: What `load` raises. Who waited for it tries for itself.
        """
        with self._lock:
            place = self._places.setdefault(key, _Place())
        with place.loading:
            passes = place.passes() if place.passes is not None else None
            if passes is None:
                engine = load()
                # One after another, the first would wait for those behind it.
                most = MOST if engine.paints_together else 1
                passes = Passes(engine, fence=fence_of(engine.device), most=most)
                place.passes = weakref.ref(passes)
                weakref.finalize(passes, engine.close)
            engine = passes.engine.sibling()
        engine.log = log or engine.log
        engine.turns = passes.join(together=together, alive=alive)
        return engine

    def __len__(self) -> int:
        """How many models are in memory."""
        with self._lock:
            places = list(self._places.values())
        return sum(place.passes is not None and place.passes() is not None for place in places)


_shelf = Shelf()
share = _shelf.share
"""`Shelf.share` of the shelf of this process."""


def fence_of(device: str) -> Fence | None:
    """What tells when a pass on a device has ended; None where it has when its call returns."""
    if not device.startswith("cuda"):
        return None
    import torch

    make: Any = torch.cuda.Event  # has no types

    def fence() -> Callable[[], None]:
        # Blocking: the thread sleeps, where it would else keep a core busy.
        event = make(blocking=True)
        event.record(torch.cuda.current_stream(device))
        wait: Callable[[], None] = event.synchronize
        return wait

    return fence
