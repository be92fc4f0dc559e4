"""The web output in whole runs: real processes, a real kill, a real end."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import threading
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import pytest
from e2e_support import free_port, read_report, wait_for, workers_of

GRAPH = """
version: 1
nodes:
  source: {{uses: decoder, with: {{url: "demo:", loop: true, realtime: true}}}}
  page: {{uses: web, from: source, with: {{listen: "127.0.0.1:{port}", codec: libx264}}}}
"""


@pytest.fixture
def page(
    started: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> Callable[[int], subprocess.Popen[str]]:
    """Starts a run whose page listens on a port."""

    def start(port: int) -> subprocess.Popen[str]:
        (tmp_path / "graph.yaml").write_text(GRAPH.format(port=port))
        return started("run", "graph.yaml", "--report", "report.json")

    return start


def health(port: int) -> Any:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=10) as answer:
            return json.load(answer)
    except OSError:
        return None


def shows(port: int, count: int) -> bool:
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


def test_a_killed_server_comes_back_and_the_run_adds_up(
    page: Callable[[int], subprocess.Popen[str]], tmp_path: Path
) -> None:
    port = free_port()
    run = page(port)
    wait_for(lambda: (health(port) or {}).get("frames"))
    assert shows(port, 20)
    watching = threading.Thread(target=lambda: shows(port, 10_000))
    watching.start()  # somebody watches while it dies
    wait_for(lambda: health(port)["viewers"]["ts"] == 1)
    victim = workers_of(run.pid)["page"]
    os.kill(victim, signal.SIGKILL)
    watching.join()
    wait_for(lambda: (health(port) or {}).get("frames"))
    assert workers_of(run.pid)["page"] != victim
    assert shows(port, 20)
    os.killpg(run.pid, signal.SIGINT)
    output, _ = run.communicate(timeout=60)
    assert run.returncode == 0, output
    report = read_report(tmp_path / "report.json")
    assert report["nodes"]["page"]["restarts"] == 1
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))  # nothing listens any more


def test_a_port_in_use_ends_the_run_with_a_sentence(
    page: Callable[[int], subprocess.Popen[str]],
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        run = page(port)
        output, _ = run.communicate(timeout=60)
    assert run.returncode == 1
    assert f"page: cannot listen on 127.0.0.1:{port}: another program uses port {port}" in output
    assert "Traceback" not in output
