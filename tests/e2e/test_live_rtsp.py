"""`configs/rtsp-to-obs.yaml` against a real RTSP server, received as OBS receives it."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import pytest
from e2e_support import ROOT, STREAMER, alive, free_port, read_report, wait_for, workers_of
from rtsp_rig import CAMERA, PYTHON, needs_server

pytestmark = needs_server


@pytest.fixture
def camera() -> Iterator[Callable[[int], subprocess.Popen[str]]]:
    running: list[subprocess.Popen[str]] = []

    def start(port: int) -> subprocess.Popen[str]:
        process = subprocess.Popen([PYTHON, CAMERA, str(port)], stdout=subprocess.PIPE, text=True)
        running.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in running:
        process.kill()
        process.communicate()


def test_a_camera_is_restyled_live_and_may_go_away(
    camera: Callable[[int], subprocess.Popen[str]], tmp_path: Path
) -> None:
    port, obs = free_port(), free_port(kind="udp")
    first = camera(port)
    report, log = tmp_path / "r.json", tmp_path / "log"
    with log.open("w") as lines:
        run = subprocess.Popen(
            [STREAMER, "run", ROOT / "configs/rtsp-to-obs.yaml", "--report", report],
            cwd=tmp_path,
            env={
                **os.environ,
                "RTSP_URL": f"rtsp://anna:secret@127.0.0.1:{port}/live",
                "OBS_URL": f"udp://127.0.0.1:{obs}",
            },
            stdin=subprocess.DEVNULL,
            stdout=lines,
            stderr=lines,
            start_new_session=True,
        )
    try:
        times = receive(obs, 40)
        assert times == sorted(set(times))
        first.kill()
        first.wait()
        wait_for(lambda: "refused" in log.read_text() or "reconnecting" in log.read_text())
        camera(port)
        later = receive(obs, 40)
        assert later == sorted(set(later))
        assert later[0] > times[-1]  # the stream's clock went on while the camera was away
        workers = workers_of(run.pid)
        run.send_signal(signal.SIGINT)
        assert run.wait(timeout=60) == 0, log.read_text()
    finally:
        if run.poll() is None:
            run.kill()
            run.wait()
    result = read_report(report)
    assert result["nodes"]["camera"]["restarts"] == 0  # its process lived on
    assert result["nodes"]["camera"]["reconnects"] == 1
    assert result["nodes"]["camera"]["status"] == "live"
    # On a slow machine many of the pictures that were received are the last one, shown again.
    delivered, filled = result["sinks"]["obs"]["delivered"], result["nodes"]["obs"]["filled"]
    assert delivered > 0
    assert delivered + filled >= 80
    assert "secret" not in log.read_text() + report.read_text()
    assert not [pid for pid in workers.values() if alive(pid)]


def receive(port: int, count: int) -> list[float]:
    """Receives styled frames over UDP as a player does and returns their times in seconds."""
    times: list[float] = []
    with av.open(f"udp://127.0.0.1:{port}", format="mpegts", timeout=(60, 30)) as container:
        for frame in container.decode(video=0):
            assert (frame.width, frame.height) == (256, 256)
            assert frame.time is not None
            times.append(frame.time)
            if len(times) == count:
                break
    return times
