"""Sound in step with the pictures of a slow pipeline, that are dropped and killed on their way."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from subprocess import Popen

import pytest
from e2e_support import read_report, wait_for, workers_of
from outputs_support import Receiver, make_flashing_clip, marks, offsets

IN_SYNC = 0.040
"""seconds"""


@pytest.fixture(scope="module")
def flashing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("flashing") / "clip.mp4"
    make_flashing_clip(path, seconds=16)
    return path


def test_sound_stays_with_its_pictures_to_a_stream_and_a_recording(
    started: Callable[..., Popen[str]],
    flashing: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    receiver = Receiver()
    graph = tmp_path / "graph.yaml"
    graph.write_text(
        "version: 1\n"
        "nodes:\n"
        f"  camera: {{uses: decoder, with: {{url: '{flashing}', realtime: true}}}}\n"
        "  slow: {uses: 'outputs_nodes:Slow', from: camera, with: {seconds: 0.08}}\n"
        f"  obs: {{uses: encoder, from: slow, with: {{url: 'udp://127.0.0.1:{receiver.port}'}}}}\n"
        "  record: {uses: encoder, from: slow, with: {url: out.mkv, segment_seconds: 60}}\n"
    )
    run = started("run", graph, "--report", tmp_path / "r.json")
    # The transform is killed once some of the clip has gone by.
    wait_for(lambda: receiver.size > 40_000 or run.poll() is not None)
    os.kill(workers_of(run.pid)["slow"], signal.SIGKILL)
    output, _ = run.communicate(timeout=120)
    assert run.returncode == 0, output
    report = read_report(tmp_path / "r.json")
    assert report["nodes"]["slow"]["restarts"] == 1
    for sink in report["sinks"].values():
        # A node of 80 ms passes every third picture of 30 a second.
        assert sink["dropped"]["replaced"] > sink["captured"] / 3
    stream = receiver.end()
    recorded = tmp_path / "out-0001.mkv"
    for source in (stream, str(recorded)):
        found = offsets(source)
        assert len(found) >= 5
        # The flash is in the first picture of its second that was not dropped: up to three
        # pictures late; the one that comes right on time tells the offset.
        assert abs(min(found, key=abs)) <= IN_SYNC
        stream.seek(0)
    _assert_in_sync(recorded, flashing)


def _assert_in_sync(recorded: Path, clip: Path) -> None:
    """Every picture has its own time: a flash is never before its beep, nor long after it."""
    flashes, beeps = marks(str(recorded))
    wanted, _ = marks(str(clip))
    assert len(beeps) >= len(wanted) - 2
    for at in beeps:
        assert abs(at - round(at)) <= IN_SYNC
    for at in flashes:
        assert -0.001 <= at - round(at - 0.05) <= 0.1
