"""Streams and events of a simulated device: work is done in order, later, by a thread."""

from __future__ import annotations

import mmap
import os
import queue
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np

EVENTS: Final = 8192
"""events that a folder's processes can have at once"""
_DTYPE: Final = np.dtype(
    [("recorded", "<u8"), ("done", "<u8"), ("stream", "<u4"), ("number", "<u8")]
)
_LOOK: Final = 0.0001


class Stream:
    """A queue of work and the thread that does it.

    Args:
        identity: number among all streams of the folder.
        lane: in the books of who reads what.
        delay: tells how many seconds each piece of work takes at least.

    Attributes:
        number: of the latest piece of work that was put in.
        knows: for other streams, the number of work that has been waited for.
    """

    def __init__(self, identity: int, lane: int, delay: Callable[[], float]) -> None:
        self.identity = identity
        self.lane = lane
        self.number = 0
        self.knows: dict[int, int] = {}
        self._delay = delay
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        threading.Thread(target=self._run, name=f"stream {identity}", daemon=True).start()

    def put(self, work: Callable[[], None]) -> None:
        """Puts in what is done when all before it is done."""
        self._work.put(work)

    def end(self) -> None:
        """Ends the thread when all work is done."""
        self._work.put(None)

    def synchronize(self) -> None:
        """Waits until all work is done."""
        done = threading.Event()
        self.put(done.set)
        done.wait()

    def slow(self) -> None:
        """Takes the time that a piece of work takes."""
        seconds = self._delay()
        if seconds:
            time.sleep(seconds)

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            work()


class Events:
    """The states of all events, in a file that all processes map."""

    def __init__(self, folder: Path) -> None:
        descriptor = os.open(folder / "events", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            size = EVENTS * _DTYPE.itemsize
            os.ftruncate(descriptor, size)
            self._events = np.frombuffer(mmap.mmap(descriptor, size), dtype=np.uint8).view(_DTYPE)
        finally:
            os.close(descriptor)

    def clear(self, index: int) -> None:
        """Makes an event anew: it stands for nothing."""
        self._events[index] = (0, 0, 0, 0)

    def record(self, index: int, stream: Stream) -> None:
        """Has an event stand for all that was put into a stream."""
        event = self._events[index]
        event["recorded"] += 1
        event["stream"], event["number"] = stream.identity, stream.number
        count = int(event["recorded"])

        def pass_it() -> None:
            event["done"] = max(int(event["done"]), count)

        stream.put(pass_it)

    def wait(self, index: int, stream: Stream) -> None:
        """Has a stream wait for an event as it is recorded now."""
        event = self._events[index]
        count, writer = int(event["recorded"]), int(event["stream"])
        if writer:
            stream.knows[writer] = max(stream.knows.get(writer, 0), int(event["number"]))

        def wait_for_it() -> None:
            while event["done"] < count:  # for ever, if the process that recorded it has died
                time.sleep(_LOOK)

        stream.put(wait_for_it)

    def passed(self, index: int) -> bool:
        """Whether all that an event stands for is done."""
        event = self._events[index]
        return bool(event["done"] >= event["recorded"])
