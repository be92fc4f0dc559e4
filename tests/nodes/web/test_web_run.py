"""The web output in whole runs: real processes, a real kill, a real end."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path

import av
import pytest
from web_stage import wait_for

STREAMER = Path(sys.executable).parent / "streamer"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def graph(port):
    return f"""
version: 1
nodes:
  source: {{uses: decoder, with: {{url: "demo:", loop: true, realtime: true}}}}
  page: {{uses: web, from: source, with: {{listen: "127.0.0.1:{port}", codec: libx264}}}}
"""


@pytest.fixture
def started(tmp_path, monkeypatch):
    (tmp_path / "t").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "t"))
    running = []

    def start(port, *more):
        (tmp_path / "graph.yaml").write_text(graph(port))
        process = subprocess.Popen(
            [STREAMER, "run", "graph.yaml", "--report", "report.json", *more],
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


def health(port):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=10) as answer:
            return json.load(answer)
    except OSError:
        return None


def shows(port, count):
    """Whether a player of MPEG-TS gets so many pictures."""
    shown = 0
    with (
        contextlib.suppress(av.error.FFmpegError),
        av.open(f"http://127.0.0.1:{port}/stream.ts", timeout=20) as container,
    ):
        for _ in container.decode(video=0):
            shown += 1
            if shown == count:
                return True
    return False


def worker_of(pid, name):
    """Process id of a supervisor's worker."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                words = (entry / "cmdline").read_bytes().split(b"\0")
                if parent == pid and b"streamer.runtime.worker" in words and name in words:
                    return int(entry.name)
    return None


def test_a_killed_server_comes_back_and_the_run_adds_up(started, tmp_path):
    port = free_port()
    run = started(port)
    wait_for(lambda: (health(port) or {}).get("frames"), seconds=60)
    assert shows(port, 20)
    watching = threading.Thread(target=lambda: shows(port, 10_000))
    watching.start()  # somebody watches while it dies
    wait_for(lambda: health(port)["viewers"]["ts"] == 1)
    victim = worker_of(run.pid, b"page")
    os.kill(victim, signal.SIGKILL)
    watching.join()
    wait_for(lambda: (health(port) or {}).get("frames"), seconds=60)
    assert worker_of(run.pid, b"page") != victim
    assert shows(port, 20)
    os.killpg(run.pid, signal.SIGINT)
    output, _ = run.communicate(timeout=60)
    assert run.returncode == 0, output
    report = json.loads((tmp_path / "report.json").read_text())
    sink = report["sinks"]["page"]
    assert sink["captured"] == sink["delivered"] + sum(sink["dropped"].values())
    assert "unaccounted" not in sink["dropped"]
    assert report["nodes"]["page"]["restarts"] == 1
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))  # nothing listens any more


def test_a_port_in_use_ends_the_run_with_a_sentence(started):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        run = started(port)
        output, _ = run.communicate(timeout=60)
    assert run.returncode == 1
    assert f"page: cannot listen on 127.0.0.1:{port}: another program uses port {port}" in output
    assert "Traceback" not in output
