"""Recordings by size: made in the background, kept while they are used."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from functools import cache
from queue import SimpleQueue
from typing import Final, Generic, Protocol, TypeVar

KEPT: Final = 4
"""recordings that stay in memory; the one unused for longest goes first"""
RETURN: Final = 60.0
"""seconds after which one that had to go may be made again: where more are in use than are kept,
each that is made throws out one that is wanted again a moment later"""


class Entry(Protocol):
    """What is kept."""

    def retire(self) -> None:
        """Waits until no device works with it any more; afterwards it is let go of."""
        ...


K = TypeVar("K", bound=Hashable)
E = TypeVar("E", bound=Entry)


class Captures(Generic[K, E]):
    """Makes entries in another thread, the one asked for last first, and keeps a few.

    Whoever asks goes on without until his entry is there. What cannot be made is said once, and
    not tried again.

    Args:
        what: Names what is made under a key, for the log.
        log: Receives warnings.
        kept: Entries at most.
    """

    def __init__(
        self, what: Callable[[K], str], *, log: logging.Logger | None = None, kept: int = KEPT
    ) -> None:
        self.log = log or logging.getLogger("nodes.sdxs")
        self._what = what
        self._kept = kept
        self._ready: OrderedDict[K, E] = OrderedDict()
        self._failed: dict[K, str] = {}
        self._went: dict[K, float] = {}
        self._wanted: tuple[K, Callable[[], E]] | None = None
        self._changed = threading.Condition()
        self._working = self._making = False
        self._closed = False

    def get(self, key: K, make: Callable[[], E]) -> E | None:
        """What is kept under a key; None if it is not there yet.

        Args:
            key: Of it.
            make: Makes it, in another thread.
        """
        with self._changed:
            found = self._ready.get(key)
            if found is not None:
                self._ready.move_to_end(key)
                return found
            went = self._went.get(key)
            late = went is not None and time.monotonic() - went < RETURN
            if not (self._closed or late or key in self._failed):
                self._wanted = key, make
                if not self._working:
                    self._working = True
                    _tasks().put(self._work)
        return None

    def wait(self, key: K, *, seconds: float | None = None) -> bool:
        """Waits until what was asked for is there, or has failed, or is no longer being made.

        Returns:
            Whether it is there.
        """
        with self._changed:
            self._changed.wait_for(lambda: key in self._ready or not self._working, seconds)
            return key in self._ready

    @property
    def keys(self) -> tuple[K, ...]:
        """Of what is there, the one unused for longest first."""
        with self._changed:
            return tuple(self._ready)

    @property
    def failures(self) -> dict[K, str]:
        """What could not be made, and why."""
        with self._changed:
            return dict(self._failed)

    def clear(self) -> None:
        """Lets go of all, to be made anew."""
        with self._changed:
            former = list(self._ready.values())
            self._ready.clear()
            self._failed.clear()
            self._went.clear()
        for one in former:
            one.retire()

    def stop(self) -> None:
        """Makes nothing any more, and lets go of all; of what is being made once it comes."""
        with self._changed:
            self._closed, self._wanted = True, None
        self.clear()

    def close(self) -> None:
        """Makes nothing any more, waits for what is being made, and lets go of all."""
        with self._changed:
            self._closed, self._wanted = True, None
            # Not for its turn, which comes after whatever others have made meanwhile.
            self._changed.wait_for(lambda: not self._making)
        self.clear()

    def _work(self) -> None:
        while True:
            with self._changed:
                wanted, self._wanted = self._wanted, None
                self._working = self._making = wanted is not None
                self._changed.notify_all()
                if wanted is None:
                    return
            key, make = wanted
            # Asked for again while it was being made.
            if key not in self._ready and key not in self._failed:
                self._make(key, make)

    def _make(self, key: K, make: Callable[[], E]) -> None:
        former: list[E] = []
        try:
            made = make()
        except Exception as error:  # whatever a compiler or a driver comes up with
            reason = str(error).strip().split("\n", 1)[0] or type(error).__name__
            self.log.warning("%s: %s; pictures go on without", self._what(key), reason)
            with self._changed:
                self._failed[key] = reason
                self._changed.notify_all()
            return
        with self._changed:
            if self._closed:
                former.append(made)
            else:
                self._ready[key] = made
            self._went.pop(key, None)
            while len(self._ready) > self._kept:
                oldest, entry = self._ready.popitem(last=False)
                self._went[oldest] = time.monotonic()
                former.append(entry)
            self._changed.notify_all()
        for one in former:
            try:
                one.retire()
            except Exception as error:  # the thread is everybody's: it goes on
                self.log.warning("%s: what it replaces is not let go: %s", self._what(key), error)


_starting = threading.Lock()


def _tasks() -> SimpleQueue[Callable[[], None]]:
    """What the process's one thread for recordings is to do next."""
    with _starting:
        return _started()


@cache
def _started() -> SimpleQueue[Callable[[], None]]:
    # One for all recordings: cuDNN's plans are made anew in each thread, which takes seconds, and
    # torch keeps them for ever, also when the thread has ended.
    tasks: SimpleQueue[Callable[[], None]] = SimpleQueue()

    def work() -> None:
        while True:
            tasks.get()()

    threading.Thread(target=work, name="sdxs-capture", daemon=True).start()
    return tasks
