"""A real run that pushes to a real RTSP server, which is killed and started again."""

from __future__ import annotations

import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import Popen

import pytest
from e2e_support import free_port, read_report, wait_for
from outputs_support import make_flashing_clip
from rtsp_rig import PYTHON, RECORDER, needs_server

pytestmark = needs_server


class Recorder:
    """The server, and what it says of each picture that came."""

    def __init__(self, port: int) -> None:
        self.pictures: list[str] = []
        self.process = Popen([PYTHON, RECORDER, str(port)], stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.pictures.append(line)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join()
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def serve() -> Iterator[Callable[[int], Recorder]]:
    running: list[Recorder] = []

    def start(port: int) -> Recorder:
        running.append(Recorder(port))
        return running[-1]

    yield start
    for recorder in running:
        recorder.kill()


def test_a_run_outlasts_the_server_that_it_pushes_to(
    started: Callable[..., Popen[str]],
    serve: Callable[[int], Recorder],
    tmp_path: Path,
) -> None:
    clip, port = tmp_path / "clip.mp4", free_port()
    make_flashing_clip(clip, seconds=60)
    graph = tmp_path / "graph.yaml"
    graph.write_text(
        "version: 1\n"
        "nodes:\n"
        f"  camera: {{uses: decoder, with: {{url: '{clip}', realtime: true}}}}\n"
        "  push: {uses: encoder, from: camera,"
        f" with: {{url: 'rtsp://me:hidden@127.0.0.1:{port}/live', audio: none}}}}\n"
        "  file: {uses: encoder, from: camera, with: {url: out.mkv}}\n"
    )
    run = started("run", graph, "--report", tmp_path / "r.json")
    wait_for(lambda: (tmp_path / "out.mkv").exists())  # pictures flow, and nothing listens yet
    first = serve(port)
    wait_for(lambda: len(first.pictures) > 40)
    first.kill()
    second = serve(port)
    wait_for(lambda: len(second.pictures) > 40)
    run.send_signal(signal.SIGINT)
    output, _ = run.communicate(timeout=120)
    assert run.returncode == 0, output
    report = read_report(tmp_path / "r.json")
    push, file = report["sinks"]["push"], report["sinks"]["file"]
    assert push["dropped"]["disconnected"] > 0
    assert "disconnected" not in file["dropped"]
    assert push["delivered"] >= len(first.pictures) + len(second.pictures) - 5
    assert report["nodes"]["push"]["reconnects"] == 1
    assert report["nodes"]["push"]["restarts"] == 0
    for recorder in (first, second):
        assert recorder.pictures[0].startswith("key")
    assert "is connected again after" in output
    assert "hidden" not in output
