"""Where packets come from: read here and now, or by a thread where reading may block.

A file is read in the thread that decodes it. A network source or a device is opened and read in a
thread of its own: FFmpeg may block there as long as it likes, and the decoder still ends at once
when the run does. It hands over a few packets at most, so no delay can build up behind it, and it
notes the time of arrival before anything waits.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final, Protocol

from av.error import FFmpegError, InvalidDataError

if TYPE_CHECKING:
    from av.packet import Packet as AVPacket
    from av.stream import Stream

    from nodes.decoder.input import Input

_POLL: Final = 0.1
"""Seconds between two looks at whether the run is ending."""
_DEPTH: Final = 8
_BAD_READS: Final = 100
"""Failed reads without a packet between them after which a file is given up."""


class Stopped(Exception):  # noqa: N818 - no error: the run is ending
    """The run is ending, and a wait was broken off."""


class Broken(Exception):  # noqa: N818 - a signal to the player, which knows the address
    """Reading failed; `error` is FFmpeg's, or None for silence."""

    def __init__(self, error: FFmpegError | None) -> None:
        super().__init__(str(error))
        self.error = error


class Feed(Protocol):
    """A source of packets, each with the CLOCK_MONOTONIC nanoseconds of its arrival."""

    def open(self) -> Input:
        """Opens the source; raises SourceError or Stopped."""
        ...

    def packets(self) -> Iterator[tuple[AVPacket[Stream], int]]:
        """Packets up to the end, then one empty packet for each stream; raises Broken, Stopped."""
        ...

    def close(self) -> None:
        """Closes the source."""
        ...


def read(source: Input) -> Iterator[tuple[AVPacket[Stream], int]]:
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

    def packets(self) -> Iterator[tuple[AVPacket[Stream], int]]:
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
    """Opens and reads in a thread of its own.

    Args:
        opener: opens the source.
        stopping: set when the run is ending.
        timeout: seconds without a packet after which the source counts as broken.
    """

    def __init__(
        self, opener: Callable[[], Input], stopping: threading.Event, *, timeout: float
    ) -> None:
        self._opener = opener
        self._stopping = stopping
        self._timeout = timeout
        self._closing = threading.Event()
        self._source: Input | None = None
        self._handed: queue.Queue[tuple[AVPacket[Stream], int] | Exception | None] = queue.Queue(
            _DEPTH
        )
        self._opened: queue.Queue[Input | Exception] = queue.Queue(1)
        # A daemon: one that FFmpeg never lets go must not keep the process alive.
        self._thread = threading.Thread(target=self._work, name="decoder-read", daemon=True)

    def open(self) -> Input:
        """Opens the source in the thread and waits for it."""
        self._thread.start()
        while not self._stopping.is_set():
            try:
                opened = self._opened.get(timeout=_POLL)
            except queue.Empty:
                continue
            if isinstance(opened, Exception):
                raise opened
            self._source = opened
            return opened
        raise Stopped

    def packets(self) -> Iterator[tuple[AVPacket[Stream], int]]:
        """See `Feed.packets`."""
        last = time.monotonic()
        while not self._stopping.is_set():
            try:
                item = self._handed.get(timeout=_POLL)
            except queue.Empty:
                if time.monotonic() - last > self._timeout:
                    raise Broken(None) from None
                continue
            if item is None:
                return
            if isinstance(item, FFmpegError):
                raise Broken(item) from item
            if isinstance(item, Exception):
                raise item
            yield item
            last = time.monotonic()
        raise Stopped

    def close(self) -> None:
        """Lets the thread end, which closes the source; a blocked one is left behind."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join(timeout=2 * _POLL)
        if self._source is not None and not self._thread.is_alive():
            self._source.container.close()

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
            # Else `close` does it: until then the decoder still asks the streams about themselves.
            if self._closing.is_set():
                source.container.close()

    def _hand(self, item: tuple[AVPacket[Stream], int] | Exception | None) -> bool:
        while not self._closing.is_set():
            try:
                self._handed.put(item, timeout=_POLL)
                return True
            except queue.Full:
                continue
        return False
