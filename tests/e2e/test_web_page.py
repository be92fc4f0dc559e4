"""The web output in whole runs: real processes, a real kill, a real end."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import browser
import pytest
from e2e_support import free_port, read_report, wait_for, workers_of

needs_browser = pytest.mark.skipif(
    bool(browser.MISSING), reason=f"needs {' and '.join(browser.MISSING)}"
)
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


@needs_browser
def test_a_page_that_media_do_not_reach_shows_pictures(
    page: Callable[[int], subprocess.Popen[str]],
) -> None:
    port = free_port()
    run = page(port)
    wait_for(lambda: (health(port) or {}).get("frames"))
    with browser.Browser() as viewer:
        # No relay is there, and no other way is allowed: as behind a proxy, or without UDP.
        viewer.before(
            "const Real = RTCPeerConnection; window.RTCPeerConnection = function (settings) "
            "{ return new Real({ ...settings, iceTransportPolicy: 'relay' }); };"
        )
        viewer.open(f"http://127.0.0.1:{port}/")
        wait_for(lambda: figures(viewer).get("frames", 0) > 5)
        shown = figures(viewer)
        assert (shown["state"], shown["via"], shown["connects"]) == ("live", "mjpeg", 1)
        assert viewer.video("img") is not None
        # Nothing is left of the attempt.
        wait_for(lambda: health(port)["viewers"] == {"webrtc": 0, "ts": 0, "mjpeg": 1})
    run.send_signal(signal.SIGINT)
    output, _ = run.communicate(timeout=60)
    assert run.returncode == 0, output


@needs_browser
def test_a_page_waits_for_a_source_that_is_not_there_yet(
    started: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    port, camera = free_port(), free_port()
    (tmp_path / "graph.yaml").write_text(
        GRAPH.format(port=port).replace(
            '"demo:", loop: true, realtime: true', f'"rtsp://127.0.0.1:{camera}/live"'
        )
    )
    run = started("run", "graph.yaml")
    wait_for(lambda: health(port) is not None)
    with browser.Browser() as viewer:
        viewer.open(f"http://127.0.0.1:{port}/")
        wait_for(lambda: health(port)["viewers"]["webrtc"] == 1)
        time.sleep(10)  # longer than a connection may take to come about
        shown = figures(viewer)
        assert (shown["state"], shown["error"], shown["via"]) == ("connecting", "", "webrtc")
        assert health(port)["viewers"]["webrtc"] == 1
    run.send_signal(signal.SIGINT)
    output, _ = run.communicate(timeout=60)
    assert run.returncode == 0, output


def figures(viewer: browser.Browser) -> dict[str, Any]:
    """What the page tells of itself."""
    return viewer.run("return window.streamerStats") or {}


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
