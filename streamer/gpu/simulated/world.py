"""What the processes that share simulated devices share: settings, books of memory, violations."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

_SETTINGS: Final = "settings.json"
_LEDGER: Final = "ledger.json"
_VIOLATIONS: Final = "violations.txt"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What simulated devices are like.

    Attributes:
        memory: bytes that each has.
        devices: how many there are.
        delay: seconds that each piece of work takes at least.
        ipc: whether memory can be exported; False is a driver without IPC.
        opening: error of opening a handle; empty where that works. Processes in PID namespaces of
            their own get `invalid device context`.
        same_handles: whether new memory may get the handle of memory that was freed, byte for
            byte, as some drivers do.
    """

    memory: int = 1 << 30
    devices: int = 1
    delay: float = 0.0
    ipc: bool = True
    opening: str = ""
    same_handles: bool = True


def make(folder: str | Path, **settings: Any) -> Path:
    """Makes a folder of simulated devices; the arguments are those of `Settings`."""
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    for left in path.iterdir():
        left.unlink()
    (path / _SETTINGS).write_text(json.dumps(asdict(Settings(**settings))))
    (path / _LEDGER).write_text(json.dumps(_EMPTY))
    (path / _VIOLATIONS).write_text("")
    (path / "lock").write_text("")
    return path


def change(folder: str | Path, **settings: Any) -> None:
    """Changes settings of all processes' devices from now on."""
    path = Path(folder)
    changed = replace(settings_of(path), **settings)
    fresh = path / f"{_SETTINGS}.{os.getpid()}"
    fresh.write_text(json.dumps(asdict(changed)))
    fresh.replace(path / _SETTINGS)


def break_here(folder: str | Path) -> None:
    """Has every call of this process fail from now on, as after a kernel's illegal access."""
    (Path(folder) / f"broken-{os.getpid()}").touch()


def is_broken(folder: Path) -> bool:
    """Whether `break_here` was called in this process."""
    return (folder / f"broken-{os.getpid()}").exists()


def settings_of(folder: Path) -> Settings:
    """The settings as they are now."""
    return Settings(**json.loads((folder / _SETTINGS).read_text()))


def violations(folder: str | Path) -> list[str]:
    """What was done in a wrong order, one line each."""
    return (Path(folder) / _VIOLATIONS).read_text().splitlines()


def used(folder: str | Path) -> int:
    """Bytes of device memory that living processes have."""
    with world(Path(folder)).ledger() as ledger:
        return sum(entry["bytes"] for entry in ledger["memory"].values())


_EMPTY: Final[dict[str, Any]] = {"next": 1, "memory": {}, "opened": [], "events": {}, "lanes": {}}


_worlds: dict[Path, World] = {}
_finding = threading.RLock()


def world(folder: Path) -> World:
    """The books of a folder, one object for all of this process: they share one lock."""
    with _finding:
        key = folder.resolve()
        if key not in _worlds:
            _worlds[key] = World(key)
        return _worlds[key]


class World:
    """The books of one folder; every change is made under one lock of all processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._threads = threading.RLock()
        self._lock = os.open(folder / "lock", os.O_RDWR | os.O_CLOEXEC)
        self._depth = 0
        self._ledger: dict[str, Any] | None = None

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Holds off all other processes and threads."""
        with self._threads:
            self._depth += 1
            if self._depth == 1:
                fcntl.flock(self._lock, fcntl.LOCK_EX)
            try:
                yield
            finally:
                self._depth -= 1
                if self._depth == 0:
                    fcntl.flock(self._lock, fcntl.LOCK_UN)

    @contextlib.contextmanager
    def ledger(self) -> Iterator[dict[str, Any]]:
        """The books, rid of dead processes; what is changed is written back."""
        with self.locked():
            if self._ledger is not None:  # garbage is collected while it is open, say
                yield self._ledger
                return
            path = self.folder / _LEDGER
            before = path.read_text()
            self._ledger = json.loads(before)
            try:
                self._bury(self._ledger)
                yield self._ledger
                if (after := json.dumps(self._ledger)) != before:
                    fresh = self.folder / f"{_LEDGER}.new"
                    fresh.write_text(after)
                    fresh.replace(path)  # whole, even if the process is killed here
            finally:
                self._ledger = None

    def violation(self, text: str) -> None:
        """Writes down what was done in a wrong order."""
        with open(self.folder / _VIOLATIONS, "a", encoding="utf-8") as file:
            file.write(f"process {os.getpid()}: {text}\n")

    def _bury(self, ledger: dict[str, Any]) -> None:
        for key in [k for k, entry in ledger["memory"].items() if not alive(entry["pid"])]:
            del ledger["memory"][key]
            for name in (f"memory-{key}", f"pages-{key}"):
                (self.folder / name).unlink(missing_ok=True)
        for key in [k for k, entry in ledger["events"].items() if not alive(entry["pid"])]:
            del ledger["events"][key]
        for key in [k for k, pid in ledger["lanes"].items() if not alive(pid)]:
            del ledger["lanes"][key]
        ledger["opened"] = [entry for entry in ledger["opened"] if alive(entry["pid"])]


def alive(pid: int) -> bool:
    """Whether a process is there and has not ended."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except (OSError, IndexError):
        return False
