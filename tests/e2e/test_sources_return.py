"""A recording of a real camera that is unplugged, and of one that freezes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from e2e_support import nodes_of, read_report, wait_for
from rtsp_rig import CAMERA, PYTHON, needs_server

pytestmark = needs_server

GRAPH = """
version: 1
name: recorder
nodes:
  camera: {{uses: decoder, with: {{url: "rtsp://127.0.0.1:{port}/live", timeout: {timeout}}}}}
  crop:   {{uses: preprocess, from: camera, with: {{size: 128x96}}}}
  file:   {{uses: encoder, from: crop, with: {{url: out.mkv}}}}
"""


class Camera:
    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = int(probe.getsockname()[1])
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(
            [PYTHON, CAMERA, str(self.port), "--clapper"], stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def freeze(self) -> None:
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)

    def kill(self) -> str:
        """Ends it, and returns what it said about its flashes and ticks."""
        if self._process is None:
            return ""
        self._process.kill()
        said, _ = self._process.communicate()
        self._process = None
        return said


@pytest.fixture
def camera() -> Iterator[Camera]:
    one = Camera()
    yield one
    one.kill()


def test_a_recording_goes_on_in_sync_when_its_camera_is_back(
    camera: Camera, started: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    def stands(status: str, reconnects: int, *, more: int = 0) -> bool:
        """Whether the camera stands so, and so many pictures have gone to the file since."""
        now = nodes_of(run.pid)
        if "file" not in now or now["camera"].get("status") != status:
            return False
        written = int(now["file"]["frames"])
        begun.setdefault((status, reconnects), written)
        return written >= begun[status, reconnects] + more

    begun: dict[tuple[str, int], int] = {}
    camera.start()
    (tmp_path / "graph.yaml").write_text(GRAPH.format(port=camera.port, timeout=6))
    run = started("run", "graph.yaml", "--report", "r.json")
    wait_for(lambda: stands("live", 0, more=90))
    truths = [truth(camera.kill())]
    wait_for(lambda: stands("reconnecting", 0))
    camera.start()
    wait_for(lambda: stands("live", 1, more=30))
    camera.freeze()
    wait_for(lambda: stands("reconnecting", 1))
    camera.kill()
    camera.start()
    wait_for(lambda: stands("live", 2, more=90))
    run.send_signal(signal.SIGINT)
    assert run.wait(timeout=60) == 0
    truths.append(truth(camera.kill()))
    node: dict[str, Any] = read_report(tmp_path / "r.json")["nodes"]["camera"]
    assert (node["restarts"], node["reconnects"], node["mended"]) == (0, 2, 0)
    times, flashes, ticks = seen_and_heard(tmp_path / "out.mkv")
    assert all(later > sooner for sooner, later in pairwise(times))
    # However soon it is back, nothing else takes as long.
    longest = sorted((later - sooner, later) for sooner, later in pairwise(times))[-2:]
    assert longest[0][0] > 0.1
    gaps = sorted(later for _, later in longest)
    before = offsets([flash for flash in flashes if flash < gaps[0]], ticks)
    after = offsets([flash for flash in flashes if flash > gaps[1]], ticks)
    assert len(before) >= 2
    assert len(after) >= 2
    print(f"flash after tick: {before}, truly {truths[0]}; then {after}, truly {truths[1]}")
    assert max(abs(offset - truths[0]) for offset in before) < 0.04
    assert max(abs(offset - truths[1]) for offset in after) < 0.04


def truth(said: str) -> float:
    """Seconds by which the camera's flashes come after its ticks, by its own clock."""
    lines = [line.split() for line in said.splitlines()]
    flashes = [float(time) for what, time in lines if what == "flash"]
    ticks = [float(time) for what, time in lines if what == "tick"]
    return float(np.median(offsets(flashes[1:], ticks)))


def offsets(flashes: list[float], ticks: list[float]) -> list[float]:
    """Seconds by which flashes come after the ticks that are nearest to them."""
    found = [min((flash - tick for tick in ticks), key=abs) for flash in flashes]
    return [offset for offset in found if abs(offset) < 0.5]


def seen_and_heard(path: Path) -> tuple[list[float], list[float], list[float]]:
    """Times in seconds of a file's pictures, of those that flash, and of the ticks in its sound."""
    times, flashes, ticks, quiet = [], [], [], -1.0
    with av.open(str(path)) as container:
        for frame in container.decode():
            assert frame.time is not None
            if isinstance(frame, av.VideoFrame):
                times.append(frame.time)
                if frame.to_ndarray(format="gray").mean() > 150:
                    flashes.append(frame.time)
                continue
            samples = frame.to_ndarray()
            scale = 32768 if samples.dtype == np.int16 else 1
            for sample in np.flatnonzero(np.abs(samples[0]) > 0.125 * scale):
                time = frame.time + float(sample) / frame.sample_rate
                if time - quiet > 0.3:
                    ticks.append(time)
                quiet = time
    return times, flashes, ticks
