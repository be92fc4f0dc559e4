"""After every test: no process, no descriptor, no socket's folder is left behind."""

from __future__ import annotations

import gc
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


def children() -> list[int]:
    """Processes whose parent is this one, those that nobody has waited for included."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                stat = Path(f"/proc/{entry}/stat").read_text()
            except OSError:
                continue
            if int(stat.rpartition(")")[2].split()[1]) == os.getpid():
                found.append(int(entry))
    return found


@pytest.fixture(autouse=True)
def nothing_left_behind(
    old_heap: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[None]:
    folder = tempfile.mkdtemp(prefix="st-", dir="/tmp")  # not tmp_path, too long for a socket
    monkeypatch.setattr(tempfile, "tempdir", folder)
    gc.collect()
    before, relatives = set(os.listdir("/proc/self/fd")), set(children())
    yield
    gc.collect()
    left = [
        os.readlink(f"/proc/self/fd/{fd}")
        for fd in os.listdir("/proc/self/fd")
        if fd not in before and os.path.exists(f"/proc/self/fd/{fd}")
    ]
    sockets = os.listdir(folder)
    shutil.rmtree(folder)
    assert set(children()) <= relatives
    assert not left
    assert not sockets
