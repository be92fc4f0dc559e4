"""`streamer status`, `get` and `set` against real runs, of which two have one name."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

STREAMER = Path(sys.executable).parent / "streamer"
NODES = """
import time
import numpy as np
import streamer
from fractions import Fraction

class Camera(streamer.Source):
    @classmethod
    def is_live(cls, params):
        return True

    def frames(self):
        number = 0
        self.context.status(streamer.Status.LIVE)
        while not self.context.stopping.wait(0.02):
            number += 1
            if number == 10:
                self.context.status(streamer.Status.RECONNECTING, "rtsp://a:b@cam is away")
            frame = self.context.allocate(16, 16, pts=number, time_base=Fraction(1, 50))
            frame.numpy()[:] = 0
            yield frame

class Screen(streamer.Sink):
    class Params(streamer.Params):
        level: int = streamer_field(1)
        address: str = ""

    def process(self, frame):
        self.context.viewers(3)
"""
GRAPH = """
version: 1
name: show
nodes:
  camera: {uses: "status_nodes:Camera"}
  screen: {uses: "status_nodes:Screen", from: camera, with: {level: 4, address: "http://me:hush@h/x"}}
"""


def cli(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [STREAMER, *arguments], cwd=cwd, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], int]]:
    code = NODES.replace("streamer_field(1)", "1")
    (tmp_path / "status_nodes.py").write_text(code)
    (tmp_path / "show.yaml").write_text(GRAPH)
    with tempfile.TemporaryDirectory(prefix="st-", dir="/tmp") as temporary:
        monkeypatch.setenv("TMPDIR", temporary)
        running: list[subprocess.Popen[bytes]] = []

        def run() -> int:
            process = subprocess.Popen(
                [STREAMER, "run", "show.yaml", "-q"], cwd=tmp_path, stdin=subprocess.DEVNULL
            )
            running.append(process)
            until = time.monotonic() + 60
            while time.monotonic() < until:
                found = [r for r in status(tmp_path) if r["pid"] == process.pid]
                if found and found[0]["nodes"]["screen"]["frames"] > 20:
                    return process.pid
                time.sleep(0.1)
            raise AssertionError("the run did not start")

        yield run
        for process in running:
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=60) in (0, -signal.SIGKILL)
        cli("status", cwd=tmp_path)
        assert os.listdir(temporary) == []


def status(cwd: Path, *arguments: str) -> list[dict[str, Any]]:
    done = cli("status", "--json", *arguments, cwd=cwd)
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def test_two_runs_of_one_name_are_told_apart(start: Callable[[], int], tmp_path: Path) -> None:
    one, two = start(), start()
    # Others may run graphs on this machine meanwhile.
    assert {run["pid"] for run in status(tmp_path)} >= {one, two}
    assert {run["pid"] for run in status(tmp_path, "show")} >= {one, two}
    (only,) = status(tmp_path, str(two))
    assert (only["graph"], only["phase"], only["pid"]) == ("show", "running", two)
    camera, screen = only["nodes"]["camera"], only["nodes"]["screen"]
    assert (camera["state"], camera["status"]) == ("running", "reconnecting")
    assert camera["status_text"] == "rtsp://***@cam is away"
    assert (screen["viewers"], screen["restarts"]) == (3, 0)
    assert Path(f"/proc/{screen['pid']}").exists()
    shown = cli("status", cwd=tmp_path).stdout
    assert f"show (pid {one}), running" in shown
    assert "reconnecting" in shown
    assert "3 watching" in shown
    assert "a:b" not in shown
    unclear = cli("get", "screen.level", cwd=tmp_path)
    assert unclear.returncode == 2
    assert f"show (pid {one})" in unclear.stderr
    assert f"show (pid {two})" in unclear.stderr
    plain = cli("get", "screen.level", "--run", str(one), cwd=tmp_path)
    assert (plain.stdout, plain.stderr) == ("4\n", "")
    masked = cli("get", "screen.address", "--run", str(one), cwd=tmp_path)
    assert masked.stdout == "http://***@h/x\n"
    assert "screen.address: *** stands for a secret, which is never shown" in masked.stderr


def test_a_run_that_is_stopped_hides_no_other(start: Callable[[], int], tmp_path: Path) -> None:
    frozen, other = start(), start()
    os.kill(frozen, signal.SIGSTOP)
    try:
        told = cli("status", cwd=tmp_path)
        machine = cli("status", "--json", str(frozen), cwd=tmp_path)
        unread = cli("get", "screen.level", "--run", str(frozen), cwd=tmp_path)
        alone = cli("status", str(frozen), cwd=tmp_path)
    finally:
        os.kill(frozen, signal.SIGCONT)
    assert f"show (pid {other}), running" in told.stdout
    for done in (told, unread, alone):
        assert f"show (pid {frozen}) does not answer: it is stopped" in done.stderr
        assert f"kill -CONT {frozen}" in done.stderr
    assert (told.returncode, unread.returncode, alone.returncode) == (0, 1, 1)
    # A program that looks after it must not take it for gone.
    assert machine.returncode == 1
    said = {"pid": frozen, "graph": "show", "phase": "silent", "nodes": {}}
    assert json.loads(machine.stdout) == [said]


def test_status_without_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory(prefix="st-", dir="/tmp") as temporary:
        monkeypatch.setenv("TMPDIR", temporary)
        done = cli("status", "nosuch", cwd=tmp_path)
        assert done.returncode == 2
        assert "no graph 'nosuch' is running" in done.stderr


def test_the_folder_of_a_run_whose_processes_were_all_killed_is_removed(
    start: Callable[[], int], tmp_path: Path
) -> None:
    pid = start()
    workers = [node["pid"] for node in status(tmp_path, str(pid))[0]["nodes"].values()]
    for victim in (pid, *workers):
        os.kill(victim, signal.SIGSTOP)  # so that none sees another end
    for victim in (pid, *workers):
        os.kill(victim, signal.SIGKILL)
    (folder,) = Path(os.environ["TMPDIR"]).glob("streamer-*")
    while any(_alive(victim) for victim in workers):
        time.sleep(0.05)
    assert str(pid) not in cli("status", cwd=tmp_path).stdout
    assert not folder.exists()


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
