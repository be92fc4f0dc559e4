"""A slot in device memory: where its bytes are, and the event that orders who uses them.

The event is an interprocess event of the slot, recorded anew for every picture once the producing
node's work is in its stream. A consumer's stream waits for it on the device. Events are preferred
to counters in exported memory (timeline values): CuPy has every call for them, the host can ask
them whether they have passed, and an event that is recorded again cannot be mistaken for its
former self here, since a slot is written again only when every consumer has given it back.

A stream that waits for the event of a process that has died waits for ever, and holds up its
whole node. So before a wait is put into a stream the host asks the event until it has passed, no
longer than a deadline, and looks whether its owner is alive. Within one process that is needless.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

from streamer.errors import DeviceError, FrameError
from streamer.gpu.device import Device

_log = logging.getLogger("streamer.gpu")

DEADLINE: Final = 2.0
"""seconds that a picture's producer has to finish the work that it has announced"""
_SPIN: Final = 0.0002
"""seconds in which the event is asked again at once"""
_NAP: Final = 0.00005
_LOOK: Final = 0.02
"""seconds between two looks whether the producer is alive"""


class DevicePixels:
    """The bytes of one slot for one lease.

    Args:
        device: whose memory it is.
        pointer: first byte.
        nbytes: bytes of the slot.
        event: of the slot.
        wait: whether the bytes come from another stream, whose event has to be waited for.
        alive: whether the process that records the event lives; None within one process.

    Attributes:
        streams: streams that have used the bytes during this lease.
    """

    __slots__ = (
        "__weakref__", "_alive", "_event", "_wait", "device", "nbytes", "pointer", "streams",
    )  # fmt: skip

    def __init__(
        self,
        device: Device,
        pointer: int,
        nbytes: int,
        event: int,
        *,
        wait: bool,
        alive: Callable[[], bool] | None = None,
    ) -> None:
        self.device = device
        self.pointer = pointer
        self.nbytes = nbytes
        self.streams: list[int] = []
        self._event = event
        self._wait = wait
        self._alive = alive

    def __len__(self) -> int:
        return self.nbytes

    def use(self, stream: int | None = None) -> int:
        """Orders a stream, by default this thread's, behind the bytes' writer; returns it.

        Raises:
            FrameError: the writer has not finished within `DEADLINE`, or has died before.
        """
        if stream is None:
            stream = self.device.stream()
        if stream not in self.streams:
            if self._wait:
                if self._alive is not None:
                    self._passed(self._alive)
                self.device.stream_wait_event(stream, self._event)
            self.streams.append(stream)
        return stream

    def seal(self) -> None:
        """Records the slot's event behind what the writing node has put into its stream."""
        stream = self.streams[-1] if self.streams else self.device.stream()
        self.device.event_record(self._event, stream)

    def _passed(self, alive: Callable[[], bool]) -> None:
        began = looked = time.monotonic()
        while not self.device.event_query(self._event):
            now = time.monotonic()
            if now - looked > _LOOK:
                looked = now
                if not alive():
                    raise FrameError("its producer died before its GPU had finished the picture")
                if now - began > DEADLINE:
                    raise FrameError(
                        f"gpu {self.device.ordinal} has not finished the picture within "
                        f"{DEADLINE:g} s of its being announced: other programs keep it busy, or "
                        "its producer hangs"
                    )
            if now - began > _SPIN:
                time.sleep(_NAP)

    def __repr__(self) -> str:
        return f"<DevicePixels {self.nbytes} B on gpu {self.device.ordinal}>"


class Root:
    """What all arrays of a lease's pixels keep alive, so that its death is theirs."""

    __slots__ = ("__weakref__", "_pixels")

    def __init__(self, pixels: object) -> None:
        self._pixels = pixels


class Releases:
    """Calls back when streams have done what was put into them; in threads of its own.

    For each stream there is one thread, which sleeps on one event after the other. So nobody who
    has a frame loop or serves a socket waits for a GPU, and one that hangs holds up no other.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()  # garbage, and frames with it, may be collected inside
        self._queues: dict[tuple[int, int], _Queue] = {}

    def after(self, device: Device, streams: list[int], callback: Callable[[], None]) -> None:
        """Has `callback` called when the streams have done all that is in them now.

        Args:
            device: of the streams.
            streams: at least one.
            callback: called in a thread of this object.
        """
        with self._lock:
            key = (id(device), streams[0])
            waiting = self._queues.get(key)
            if waiting is None:
                waiting = self._queues[key] = _Queue(device)
        waiting.put(streams, callback)


class _Queue:
    def __init__(self, device: Device) -> None:
        self._device = device
        self._idle: list[int] = []
        self._items: list[tuple[list[int], Callable[[], None]]] = []
        self._news = threading.Condition()
        threading.Thread(target=self._run, name="gpu-release", daemon=True).start()

    def put(self, streams: list[int], callback: Callable[[], None]) -> None:
        with self._news:
            events = [self._idle.pop() if self._idle else -1 for _ in streams]
        for index, stream in enumerate(streams):
            if events[index] < 0:
                events[index] = self._device.event_create()
            self._device.event_record(events[index], stream)
        with self._news:
            self._items.append((events, callback))
            self._news.notify()

    def _run(self) -> None:
        while True:
            with self._news:
                while not self._items:
                    self._news.wait()
                events, callback = self._items.pop(0)
            try:
                for event in events:
                    self._device.event_synchronize(event)
            except DeviceError as error:
                if error.lost:
                    # The node will find it, too; when the process has ended, the slots that it
                    # held are taken back.
                    continue
                # It must not end this thread: nothing would be given back any more.
                _log.warning("what waited for a stream is given back without it: %s", error)
                events = []
            with self._news:
                self._idle.extend(events)
            callback()


releases: Final = Releases()
"""of this process"""
