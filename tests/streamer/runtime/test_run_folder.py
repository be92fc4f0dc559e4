"""Folders of runs: found while the run goes on, removed when it was killed, else left alone."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from streamer.errors import RunError
from streamer.runtime.folder import RunFolder, descriptions, remove_abandoned

HOLDER = """
import sys, time
from streamer.runtime.folder import RunFolder
folder = RunFolder()
folder.describe(graph="held", pid=1)
print(folder.path, flush=True)
time.sleep(600)
"""


def killed() -> Path:
    """A folder whose run was killed."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": tempfile.gettempdir()},
    ) as process:
        assert process.stdout is not None
        path = Path(process.stdout.readline().strip())
        process.send_signal(signal.SIGKILL)
    assert (path / "run.json").exists()
    return path


def test_a_folder_is_found_as_long_as_it_is_held() -> None:
    folder = RunFolder()
    folder.describe(graph="mine", pid=7)
    path = Path(folder.path)
    assert dict(descriptions())[path] == {"graph": "mine", "pid": 7}
    inode, held = path.stat().st_ino, sorted(os.listdir(path))
    remove_abandoned()
    assert (path.stat().st_ino, sorted(os.listdir(path))) == (inode, held)
    folder.remove()
    folder.remove()
    assert path not in dict(descriptions())
    assert not path.exists()


def test_the_folder_of_a_killed_run_is_not_found_and_is_removed() -> None:
    path = killed()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path / "control"))
    listener.close()
    assert path not in dict(descriptions())
    assert remove_abandoned() >= 1
    assert not path.exists()


def test_what_a_run_would_not_put_there_is_nobodys_to_remove() -> None:
    folder = killed()
    (folder / "notes.txt").write_text("mine")
    named = Path(tempfile.gettempdir(), "streamer-projects")
    named.mkdir(mode=0o700)
    shared = Path(tempfile.gettempdir(), "streamer-abcdefgh")
    shared.mkdir(mode=0o755)
    remove_abandoned()
    assert (folder / "notes.txt").read_text() == "mine"
    assert (folder / "run.json").exists()
    assert named.is_dir()
    assert shared.is_dir()
    (folder / "notes.txt").unlink()
    remove_abandoned()
    assert not folder.exists()
    named.rmdir()
    shared.rmdir()


def test_nonsense_in_a_description_hides_the_run_and_harms_nobody() -> None:
    folder = RunFolder()
    Path(folder.path, "run.json").write_text("[1, 2")
    assert Path(folder.path) not in dict(descriptions())
    Path(folder.path, "run.json").write_text("[1, 2]")
    assert Path(folder.path) not in dict(descriptions())
    folder.remove()


def test_a_folder_that_is_gone_is_said() -> None:
    folder = RunFolder()
    os.rmdir(folder.path)
    with pytest.raises(RunError, match="cannot be written to: No such file or directory"):
        folder.describe(graph="x", pid=1)
    folder.remove()
