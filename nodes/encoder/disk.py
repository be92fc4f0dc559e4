"""What keeps a recording safe from others: a lock on its file, and room on its disk."""

from __future__ import annotations

import errno
import fcntl
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from nodes.encoder.failures import failure
from nodes.encoder.outputs import Output
from streamer import SinkError

FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""errors of a disk or a quota that is used up"""
_EVERY: Final = 0.2
"""seconds between two looks at the disk"""
_PARTS: Final = 16
"""a look is also due when one of so many parts of what is to be kept free has been written"""
_AGAIN: Final = 1.25
"""how much more than what is to be kept free must be free before a recording goes on"""
_WAITS: Final = (10.0, 300.0)
"""seconds from a failure to the next try: after the first one, and at most"""


class FileLock:
    """Holds a file for one writer, in this process and in all others; a dead one holds nothing.

    Args:
        output: for messages.
        path: created if it is not there.

    Raises:
        SinkError: another output writes to it, or it cannot be created.
    """

    def __init__(self, output: Output, path: Path) -> None:
        self._file = -1
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.release()
            raise SinkError(
                f"cannot write {output.shown}: another output is writing to it, in this run or in "
                "another; give each a file of its own, or stop the other run"
            ) from None
        except OSError as error:
            if error.errno in (errno.ENOLCK, errno.ENOTSUP):
                return  # a file system without locks
            self.release()
            raise failure(output, "write", error) from error

    def release(self) -> None:
        """Lets others have it; further calls do nothing."""
        file, self._file = self._file, -1
        if file >= 0:
            os.close(file)


class Room:
    """Looks after the space on the disk of a recording.

    Args:
        folder: on that disk.
        keep_free: bytes that must stay free; 0 looks at nothing.
    """

    def __init__(self, folder: Path, keep_free: int) -> None:
        self.keep_free = keep_free
        self._folder = folder
        self._looked = -_EVERY
        self._written = 0
        self._enough = True

    @property
    def free(self) -> int:
        """Bytes that this user may still write."""
        found = os.statvfs(self._folder)
        return found.f_bavail * found.f_frsize

    def enough(self, size: int = 0, *, after_full: bool = False) -> bool:
        """Whether the recording may go on; now and then the disk is looked at for that.

        Args:
            size: bytes that are to be written now.
            after_full: whether it has stopped before, so that it takes more to begin again.
        """
        now = time.monotonic()
        self._written += size
        often = self._written * _PARTS > self.keep_free
        if self.keep_free and (often or now - self._looked >= _EVERY):
            self._looked, self._written = now, 0
            wanted = self.keep_free * (_AGAIN if after_full else 1)
            self._enough = self.free >= wanted
        return self._enough


class Retry:
    """Tells when to try again after a disk has refused to take more: ever later.

    What is free tells nothing there: a quota may be used up on a disk with room.

    Args:
        clock: seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._wait = _WAITS[0]
        self._next = -math.inf

    def failed(self) -> float:
        """Notes a failure, and returns the seconds until the next try."""
        wait, self._wait = self._wait, min(2 * self._wait, _WAITS[1])
        self._next = self._clock() + wait
        return wait

    def went_well(self) -> None:
        """Notes that a try was worth it: the next failure is a first one."""
        self._wait, self._next = _WAITS[0], -math.inf

    @property
    def due(self) -> bool:
        """Whether it is time to try."""
        return self._clock() >= self._next


def bytes_shown(count: int) -> str:
    """A number of bytes as people read it: `1.5 GB`."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count} bytes"
