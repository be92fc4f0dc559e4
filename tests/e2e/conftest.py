"""Whole graphs, run as a user runs them: the installed command, real files, real processes."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from e2e_support import STREAMER, make_clip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker("e2e")


@pytest.fixture(autouse=True)
def private_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where runs put their sockets in this test; it must be empty in the end."""
    with tempfile.TemporaryDirectory(prefix="e2e-") as folder:
        monkeypatch.setenv("TMPDIR", folder)
        yield Path(folder)
        assert os.listdir(folder) == []


@pytest.fixture
def streamer(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs `streamer ARGUMENTS` to its end, in an empty folder."""

    def run(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
        options = {"cwd": tmp_path, "timeout": 120, **options}
        return subprocess.run(
            [STREAMER, *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            **options,
        )

    return run


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts `streamer ARGUMENTS` in a session of its own, and ends it if the test did not."""
    running: list[subprocess.Popen[str]] = []

    def start(*arguments: object) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [STREAMER, *map(str, arguments)],
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        running.append(process)
        return process

    yield start
    for process in running:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """90 frames of 320x240 at 30 a second with moving texture, and three seconds of sound."""
    path = tmp_path_factory.mktemp("clips") / "clip.mp4"
    make_clip(path, frames=90)
    return path
