"""Where packets come from: read here and now, or by a thread where reading may block.

A file is read in the thread that decodes it. A network source or a device is opened and read in a
thread of its own: FFmpeg may block there as long as it likes, and the decoder still ends at once
when the run does, and still finds that the source is silent. What it hands over is bounded, and it
notes the time of arrival before anything waits.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

from av.error import FFmpegError, InvalidDataError

if TYPE_CHECKING:
    from av.packet import Packet as AVPacket
    from av.stream import Stream

    from nodes.decoder.input import Input

    Item: TypeAlias = tuple[AVPacket[Stream], int]
    _Handed: TypeAlias = Item | Exception | None

_POLL: Final = 0.1
"""Seconds between two looks at whether the run is ending."""
_DEPTH: Final = 64
"""Packets between the thread that reads and the one that decodes: a burst of a quarter of a second,
so that arrival is noted when it happens."""
_FAREWELL: Final = 0.5
"""Seconds that a thread is given to end: FFmpeg's own deadline is soon after the decoder's."""
_MOST_AHEAD: Final = 500
_ABSENCE: Final = 0.5
"""Seconds beyond which a wait says that this process, or the whole machine, stood still: what came
in meanwhile lies there, and gets as long to show itself."""
_QUIET: Final = 0.008
"""Seconds without a packet after which all that had come in before has been taken."""
_LONGEST_LOOK: Final = 0.25
_BAD_READS: Final = 100
"""Failed reads without a packet between them after which a file is given up."""


class Stopped(Exception):  # noqa: N818 - no error: the run is ending
    """The run is ending, and a wait was broken off."""


class Broken(Exception):  # noqa: N818 - a signal to the player, which knows the address
    """Reading failed; `error` is FFmpeg's, or None for silence."""

    def __init__(self, error: FFmpegError | None) -> None:
        super().__init__(str(error))
        self.error = error


class NoAnswer(Exception):  # noqa: N818 - a signal, as `Broken`
    """Opening took longer than it may."""


class Feed(Protocol):
    """A source of packets, each with the CLOCK_MONOTONIC nanoseconds of its arrival."""

    def open(self) -> Input:
        """Opens the source; raises SourceError, NoAnswer or Stopped."""
        ...

    def backlog(self) -> list[Item]:
        """Packets that have come in while the source was being opened; they are not used up."""
        ...

    def packets(self) -> Iterator[Item]:
        """Packets up to the end, then one empty packet for each stream; raises Broken, Stopped."""
        ...

    def close(self) -> None:
        """Closes the source."""
        ...


def read(source: Input) -> Iterator[Item]:
    """Packets of the chosen streams of an opened source, as they are read.

    A stretch that cannot be read is skipped where FFmpeg can go on behind it.

    Raises:
        FFmpegError: reading failed for good.
    """
    streams = [source.video] if source.audio is None else [source.video, source.audio]
    failures = 0
    while True:
        try:
            for packet in source.container.demux(*streams):
                failures = 0
                yield packet, time.monotonic_ns()
            return
        except InvalidDataError:
            failures += 1
            if failures > _BAD_READS:
                raise


class DirectFeed:
    """Reads in the calling thread.

    Args:
        opener: opens the source.
        stopping: set when the run is ending.
    """

    def __init__(self, opener: Callable[[], Input], stopping: threading.Event) -> None:
        self._opener = opener
        self._stopping = stopping
        self._source: Input | None = None

    def open(self) -> Input:
        """Opens the source."""
        self._source = self._opener()
        return self._source

    def backlog(self) -> list[Item]:
        """Nothing: what can be read here and now does not come in."""
        return []

    def packets(self) -> Iterator[Item]:
        """See `Feed.packets`."""
        assert self._source is not None, "open() comes first"
        try:
            for item in read(self._source):
                if self._stopping.is_set():
                    raise Stopped
                yield item
        except FFmpegError as error:
            raise Broken(error) from error

    def close(self) -> None:
        """Closes the source."""
        if self._source is not None:
            self._source.container.close()
            self._source = None


class ThreadFeed:
    """Opens and reads in a thread of its own, which also closes.

    Args:
        opener: opens the source.
        stopping: set when the run is ending.
        timeout: seconds without a packet of the picture after which the source counts as broken.
        patience: seconds that opening may take; None for as long as it likes.
        waiting: called with the seconds that nothing has come, while that is so.
    """

    def __init__(
        self,
        opener: Callable[[], Input],
        stopping: threading.Event,
        *,
        timeout: float,
        patience: float | None = None,
        waiting: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        self._opener = opener
        self._stopping = stopping
        self._timeout = timeout
        self._patience = patience
        self._waiting = waiting
        self._closing = threading.Event()
        self._source: Input | None = None
        self._ahead: deque[_Handed] = deque()
        self._handed: queue.Queue[_Handed] = queue.Queue(_DEPTH)
        self._opened: queue.Queue[Input | Exception] = queue.Queue(1)
        # A daemon: one that FFmpeg never lets go must not keep the process alive.
        self._thread = threading.Thread(target=self._work, name="decoder-read", daemon=True)

    def open(self) -> Input:
        """Opens the source in the thread and waits for it.

        Raises:
            NoAnswer: it took longer than it may.
        """
        self._thread.start()
        begun = time.monotonic()
        while not self._stopping.is_set():
            try:
                opened = self._opened.get(timeout=_POLL)
            except queue.Empty:
                passed = time.monotonic() - begun
                if self._patience is not None and passed > self._patience:
                    raise NoAnswer from None
                self._waiting(passed)
                continue
            if isinstance(opened, Exception):
                raise opened
            self._source = opened
            return opened
        raise Stopped

    def backlog(self) -> list[Item]:
        """Packets that have come in already, while the source was being opened.

        Waits for the first one; the rest are those that come without a wait between them. They
        are yielded by `packets` nonetheless.

        Raises:
            Broken, Stopped: as `packets`.
        """
        begun, quiet, silent = time.monotonic(), False, 0.0
        while not quiet and len(self._ahead) < _MOST_AHEAD:
            waiting = time.monotonic()
            try:
                item = self._handed.get(timeout=_QUIET if self._ahead else _POLL)
            except queue.Empty:
                quiet = bool(self._ahead)
                if not quiet:
                    silent = self._silence(silent, waiting)
                continue
            self._ahead.append(item)
            quiet = not isinstance(item, tuple) or time.monotonic() - begun > _LONGEST_LOOK
        return [item for item in self._ahead if isinstance(item, tuple)]

    def packets(self) -> Iterator[Item]:
        """See `Feed.packets`."""
        silent = 0.0
        while not self._stopping.is_set():
            # Only waiting here is silence of the source; what others do with a packet is not.
            begun = time.monotonic()
            try:
                item = self._ahead.popleft() if self._ahead else self._handed.get(timeout=_POLL)
            except queue.Empty:
                silent = self._silence(silent, begun)
                continue
            if item is None:
                return
            if isinstance(item, FFmpegError):
                raise Broken(item) from item
            if isinstance(item, Exception):
                raise item
            # Sound alone is no sign of life: pictures that stand still are what one sees.
            if self._source is None or item[0].stream is self._source.video:
                silent = 0.0
            else:
                silent = self._silence(silent, begun)
            yield item
        raise Stopped

    def close(self) -> None:
        """Lets the thread end, which closes the source; a blocked one is left behind."""
        self._closing.set()
        self._thread.join(timeout=_FAREWELL)
        if self._thread.is_alive():
            _left_behind.append(self._thread)

    def _silence(self, silent: float, begun: float) -> float:
        """Seconds of silence, those of a wait included; raises if they are too many."""
        wait = time.monotonic() - begun
        if wait > _ABSENCE:
            # It counts, but is not the last straw.
            silent = min(silent + wait, max(silent, self._timeout - _ABSENCE))
        else:
            silent += wait
        if self._stopping.is_set():
            raise Stopped
        if silent > self._timeout:
            raise Broken(None)
        self._waiting(silent)
        return silent

    def _work(self) -> None:
        try:
            source = self._opener()
        except Exception as error:
            self._opened.put(error)
            return
        self._opened.put(source)
        try:
            for item in read(source):
                if not self._hand(item):
                    return
            self._hand(None)
        except Exception as error:
            self._hand(error)
        finally:
            # Until then the decoder still asks the streams about themselves.
            self._closing.wait()
            source.container.close()

    def _hand(self, item: _Handed) -> bool:
        while not self._closing.is_set():
            try:
                self._handed.put(item, timeout=_POLL)
                return True
            except queue.Full:
                continue
        return False


_left_behind: list[threading.Thread] = []


def left_behind() -> int:
    """How many threads were given up and still hang inside FFmpeg."""
    _left_behind[:] = [thread for thread in _left_behind if thread.is_alive()]
    return len(_left_behind)
