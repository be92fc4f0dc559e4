"""Recordings of live graphs: beside a stream, cut off by SIGKILL, and on a disk that fills up."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from subprocess import Popen

import av
import pytest
from e2e_support import alive, read_report, wait_for, workers_of
from outputs_support import Receiver, make_flashing_clip

SECONDS = 10


@pytest.fixture(scope="module")
def flashing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("flashing") / "clip.mp4"
    make_flashing_clip(path, seconds=SECONDS)
    return path


@pytest.fixture(autouse=True)
def nodes_of_these_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))


def shown(path: Path) -> tuple[int, float]:
    """How many pictures of a recording can be shown, and seconds at which the last one is."""
    count, last = 0, 0.0
    try:
        with av.open(str(path)) as container:
            for frame in container.decode(video=0):
                count, last = count + 1, float(frame.time or 0)
    except av.error.FFmpegError:
        pass  # the last packet may be cut in two
    return count, last


def test_a_stream_and_recordings_beside_it_all_play(
    started: Callable[..., Popen[str]], flashing: Path, tmp_path: Path
) -> None:
    receiver = Receiver()
    graph = tmp_path / "graph.yaml"
    graph.write_text(
        "version: 1\n"
        "nodes:\n"
        f"  camera: {{uses: decoder, with: {{url: '{flashing}', realtime: true}}}}\n"
        f"  obs: {{uses: encoder, from: camera,"
        f" with: {{url: 'udp://127.0.0.1:{receiver.port}', audio: none}}}}\n"
        "  whole: {uses: encoder, from: {node: camera, queue: wait, depth: 4},"
        " with: {url: whole.mkv}}\n"
        "  parts: {uses: encoder, from: {node: camera, queue: wait, depth: 4},"
        " with: {url: 'parts-%Y.mp4', segment_seconds: 3}}\n"
    )
    run = started("run", graph, "--report", tmp_path / "r.json", "--frames", 210)
    output, _ = run.communicate(timeout=120)
    assert run.returncode == 0, output
    sinks = read_report(tmp_path / "r.json")["sinks"]
    assert shown(tmp_path / "whole.mkv")[0] == sinks["whole"]["delivered"] == 210
    parts = sorted(tmp_path.glob("parts-*.mp4"), key=lambda path: path.stat().st_mtime_ns)
    assert len(parts) == 3
    assert sum(shown(part)[0] for part in parts) == sinks["parts"]["delivered"] == 210
    with av.open(receiver.end()) as container:
        received = sum(1 for _ in container.decode(video=0))
    assert received >= sinks["obs"]["delivered"] - 1


def test_recordings_play_to_their_last_seconds_after_sigkill_to_everything(
    started: Callable[..., Popen[str]], flashing: Path, tmp_path: Path, private_folder: Path
) -> None:
    names = ["a.mp4", "b.mkv", "c.ts", "d.mp4"]
    every = "from: {node: camera, queue: wait, depth: 4}"
    graph = tmp_path / "graph.yaml"
    graph.write_text(
        "version: 1\n"
        "nodes:\n"
        f"  camera: {{uses: decoder, with: {{url: '{flashing}', realtime: true}}}}\n"
        "  ticker: {uses: 'outputs_nodes:Ticker', from: camera, with: {file: ticked}}\n"
        f"  a: {{uses: encoder, {every}, with: {{url: a.mp4}}}}\n"
        f"  b: {{uses: encoder, {every}, with: {{url: b.mkv}}}}\n"
        f"  c: {{uses: encoder, {every}, with: {{url: c.ts}}}}\n"
        f"  d: {{uses: encoder, {every}, with: {{url: d.mp4, segment_seconds: 2}}}}\n"
    )
    run = started("run", graph)
    ticked = tmp_path / "ticked"
    wait_for(lambda: ticked.exists() and float(ticked.read_text()) > 5)
    pids = [run.pid, *workers_of(run.pid).values()]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not any(alive(pid) for pid in pids[1:]))
    run.wait()
    until = float(ticked.read_text())
    for name in names:
        if name == "d.mp4":
            parts = sorted(tmp_path.glob("d-*.mp4"))
            assert len(parts) >= 2
            counts = [shown(part) for part in parts]
            end = 2.0 * (len(parts) - 1) + counts[-1][1]
            assert all(abs(last - 2.0) < 0.2 for _, last in counts[:-1])
        else:
            end = shown(tmp_path / name)[1]
        if name == "c.ts":
            end -= _start(tmp_path / name)
        assert until - end <= 2.0, name
    for folder in private_folder.iterdir():
        shutil.rmtree(folder)  # nobody was left to do it


def _start(path: Path) -> float:
    with av.open(str(path)) as container:
        return float(next(container.decode(video=0)).time or 0)


def test_a_disk_that_fills_up_ends_its_recording_and_nothing_else(
    streamer: Callable[..., subprocess.CompletedProcess[str]],
    flashing: Path,
    tmp_path: Path,
    small_disk: Callable[[str], Path],
) -> None:
    disk = small_disk("8m")
    every = "from: {node: camera, queue: wait, depth: 4}"
    graph = tmp_path / "graph.yaml"
    graph.write_text(
        "version: 1\n"
        "nodes:\n"
        f"  camera: {{uses: decoder, with: {{url: '{flashing}', realtime: true}}}}\n"
        f"  large: {{uses: encoder, {every},"
        f" with: {{url: '{disk / 'large.mkv'}', codec: rawvideo, keep_free: 4M}}}}\n"
        f"  other: {{uses: encoder, {every}, with: {{url: other.mkv}}}}\n"
    )
    done = streamer("run", graph, "--report", "r.json")
    assert done.returncode == 1, done.stderr
    assert "keep_free" in done.stderr
    report = read_report(tmp_path / "r.json")
    large, other = report["sinks"]["large"], report["sinks"]["other"]
    assert large["dropped"]["no_space"] > 10
    assert shown(disk / "large.mkv")[0] == large["delivered"] > 10
    assert "no_space" not in other["dropped"]
    assert shown(tmp_path / "other.mkv")[0] == other["delivered"]
    assert shown(tmp_path / "other.mkv")[1] > SECONDS - 1
    assert report["nodes"]["large"]["restarts"] == 0
    assert "pictures were not recorded" in report["errors"][0]
