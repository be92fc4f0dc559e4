"""A real run that pushes to a real RTSP server, which is killed and started again."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import Popen

import pytest
from e2e_support import frames_of, free_port, nodes_of, read_report, wait_for
from outputs_support import make_flashing_clip
from rtsp_rig import PYTHON, RECORDER, needs_server

pytestmark = needs_server


class Recorder:
    """The server, and what it says of each picture that came."""

    def __init__(self, port: int, *arguments: str) -> None:
        self.pictures: list[str] = []
        command = [PYTHON, RECORDER, str(port), *arguments]
        self.process = Popen(command, stdout=subprocess.PIPE, text=True)
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
def serve() -> Iterator[Callable[..., Recorder]]:
    running: list[Recorder] = []

    def start(port: int, *arguments: str) -> Recorder:
        running.append(Recorder(port, *arguments))
        return running[-1]

    yield start
    for recorder in running:
        recorder.kill()


def write_graph(folder: Path, port: int) -> Path:
    clip, graph = folder / "clip.mp4", folder / "graph.yaml"
    make_flashing_clip(clip, seconds=60)
    graph.write_text(
        "version: 1\n"
        "nodes:\n"
        f"  camera: {{uses: decoder, with: {{url: '{clip}', realtime: true}}}}\n"
        "  push: {uses: encoder, from: camera,"
        f" with: {{url: 'rtsp://me:hidden@127.0.0.1:{port}/live', audio: none}}}}\n"
        "  file: {uses: encoder, from: camera, with: {url: out.mkv}}\n"
    )
    return graph


@pytest.mark.parametrize("failing", ["password", "path"])
def test_a_recording_goes_on_beside_a_push_that_is_refused(
    started: Callable[..., Popen[str]],
    serve: Callable[..., Recorder],
    tmp_path: Path,
    failing: str,
) -> None:
    port = free_port()
    serve(port, *(["/live", "me", "secret"] if failing == "password" else ["/other"]))
    run = started("run", write_graph(tmp_path, port), "--report", tmp_path / "r.json")
    wanted = {"password": ("failed", "(401)"), "path": ("connecting", "(404)")}[failing]

    def is_refused() -> bool:
        push = nodes_of(run.pid).get("push", {})
        return push.get("status") == wanted[0] and wanted[1] in push.get("status_text", "")

    wait_for(is_refused)
    before = nodes_of(run.pid)["file"]["captured"]
    wait_for(lambda: nodes_of(run.pid)["file"]["captured"] > before + 40)
    run.send_signal(signal.SIGINT)
    output, _ = run.communicate(timeout=120)
    assert run.returncode == 1, output
    report = read_report(tmp_path / "r.json")
    (error,) = report["errors"]
    assert wanted[1] in error
    assert error in output
    assert report["sinks"]["push"]["delivered"] == 0
    assert report["sinks"]["file"]["delivered"] == len(frames_of(tmp_path / "out.mkv")) > before
    assert "hidden" not in output + json.dumps(report)


def test_a_recording_of_a_file_is_made_although_the_server_beside_it_never_comes(
    started: Callable[..., Popen[str]], tmp_path: Path
) -> None:
    clip = tmp_path / "clip.mp4"
    make_flashing_clip(clip, seconds=4)
    (tmp_path / "graph.yaml").write_text(
        "version: 1\n"
        "nodes:\n"
        "  source: {uses: decoder, with: {url: clip.mp4}}\n"
        "  push: {uses: encoder, from: source,"
        f" with: {{url: 'rtsp://127.0.0.1:{free_port()}/live', timeout: 1}}}}\n"
        "  file: {uses: encoder, from: source, with: {url: out.mkv}}\n"
    )
    run = started("run", tmp_path / "graph.yaml", "--report", tmp_path / "r.json")
    output, _ = run.communicate(timeout=120)
    assert run.returncode == 1, output
    assert "is not there: pictures of the file go to the other outputs without it" in output
    report = read_report(tmp_path / "r.json")
    push, file = report["sinks"]["push"], report["sinks"]["file"]
    assert file["delivered"] == file["captured"] == len(frames_of(clip))
    assert push["dropped"] == {"disconnected": push["captured"]}
    assert "the connection was refused" in report["errors"][0]


def test_a_run_outlasts_the_server_that_it_pushes_to(
    started: Callable[..., Popen[str]],
    serve: Callable[..., Recorder],
    tmp_path: Path,
) -> None:
    port = free_port()
    graph = write_graph(tmp_path, port)
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
