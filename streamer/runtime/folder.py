"""The folder of a run: its sockets, and `run.json`, by which other programs find it.

It belongs to its user alone (0700), and is locked (flock) as long as the supervisor lives, which
the kernel sees to however that ends. A folder without its lock was left by a run that was killed
together with its workers; whoever comes by removes it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from streamer.errors import RunError

DESCRIPTION: Final = "run.json"
LONGEST_BASE: Final = 70
"""bytes of a temporary folder's path; a socket's path has at most 107"""
_NAME: Final = re.compile(r"streamer-[a-z0-9_]{8}")
_MOST_ATTEMPTS: Final = 10
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC


class RunFolder:
    """A new folder, held until `remove`.

    Raises:
        RunError: none can be made.
    """

    def __init__(self) -> None:
        base = tempfile.gettempdir()
        if len(base.encode()) > LONGEST_BASE:
            base = "/tmp"
        try:
            for _ in range(_MOST_ATTEMPTS):
                self.path = tempfile.mkdtemp(prefix="streamer-", dir=base)
                lock = _lock(self.path, fcntl.LOCK_EX)
                # Somebody who cleans up may have taken it for abandoned just before.
                if lock is not None:
                    self._lock = lock
                    return
        except OSError as error:
            raise RunError(f"no folder for sockets in {base}: {error.strerror}") from error
        raise RunError(f"no folder for sockets in {base}: others keep removing it")

    def describe(self, **about: Any) -> None:
        """Writes what other programs find the run by.

        Raises:
            RunError: it cannot be written.
        """
        part = Path(self.path, f".{DESCRIPTION}")
        try:
            with open(os.open(part, _NEW, 0o600), "w", encoding="utf-8") as file:
                json.dump(about, file)
            part.rename(Path(self.path, DESCRIPTION))
        except OSError as error:
            raise RunError(f"{self.path} cannot be written to: {error.strerror}") from error

    def remove(self) -> None:
        """Removes it with all that is in it."""
        if self._lock >= 0:
            _empty(self.path)
            os.close(self._lock)
            self._lock = -1

    def __repr__(self) -> str:
        return f"<RunFolder {self.path}>"


def descriptions() -> Iterator[tuple[Path, dict[str, Any]]]:
    """Folders of this user's runs that go on, and what is written there of each."""
    for path in _folders():
        if goes_on(path):
            with contextlib.suppress(OSError, ValueError):
                about = json.loads((path / DESCRIPTION).read_text(encoding="utf-8"))
                if isinstance(about, dict):
                    yield path, about


def remove_abandoned() -> int:
    """Removes folders of this user's runs that were killed; how many there were."""
    removed = 0
    for path in _folders():
        with contextlib.suppress(OSError):
            if not _only_ours(path):
                continue
            lock = _lock(os.fspath(path), fcntl.LOCK_EX)
            if lock is None:
                continue
            try:
                _empty(os.fspath(path))
                removed += 1
            finally:
                os.close(lock)
    return removed


def _folders() -> Iterator[Path]:
    for base in dict.fromkeys((tempfile.gettempdir(), "/tmp")):
        with contextlib.suppress(OSError):
            with os.scandir(base) as found:
                entries = sorted(found, key=lambda entry: entry.name)
            for entry in entries:
                with contextlib.suppress(OSError):
                    about = entry.stat(follow_symlinks=False)
                    ours = about.st_uid == os.getuid() and stat.S_IMODE(about.st_mode) == 0o700
                    if stat.S_ISDIR(about.st_mode) and ours and _NAME.fullmatch(entry.name):
                        yield Path(entry.path)


def _only_ours(folder: Path) -> bool:
    """Whether a folder holds what a run puts there, and nothing else."""
    with os.scandir(folder) as found:
        entries = list(found)
    return bool(entries) and all(
        entry.name in (DESCRIPTION, f".{DESCRIPTION}")
        or stat.S_ISSOCK(entry.stat(follow_symlinks=False).st_mode)
        for entry in entries
    )


def _lock(path: str, how: int) -> int | None:
    """A descriptor that holds the lock of a folder that is still there; None if another does."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, how | fcntl.LOCK_NB)
        if os.fstat(fd).st_ino == os.stat(path, follow_symlinks=False).st_ino:
            return fd
    except (BlockingIOError, FileNotFoundError):
        pass
    except OSError:
        os.close(fd)
        raise
    os.close(fd)
    return None


def goes_on(path: Path) -> bool:
    """Whether the run that a folder belongs to has not ended, however it stands."""
    try:
        lock = _lock(os.fspath(path), fcntl.LOCK_SH)
    except OSError:
        return False
    if lock is None:
        return path.exists()
    os.close(lock)
    return False


def _empty(path: str) -> None:
    with contextlib.suppress(OSError):
        for name in os.listdir(path):
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(path, name))
        os.rmdir(path)
