"""Clips, reports and processes, for tests that run whole graphs."""

from __future__ import annotations

import json
import os
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
import pytest

from streamer.errors import StreamerError
from streamer.runtime.remote import Remote, choose

ROOT = Path(__file__).parents[2]
STREAMER = Path(sys.executable).parent / "streamer"


def make_clip(path: Path, *, frames: int, width: int = 320, height: int = 240) -> None:
    """A clip of coloured texture that moves, with a tone beside it."""
    rng = np.random.default_rng(7)
    coarse = rng.integers(0, 255, (height // 8, width // 8 + frames, 3), dtype=np.uint8)
    texture = coarse.repeat(8, axis=0).repeat(8, axis=1)
    tone = (np.sin(np.arange(48000 * frames // 30) * 0.05) * 8000).astype(np.int16)
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=30, options={"preset": "ultrafast"})
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        audio = container.add_stream("aac", rate=48000)
        audio.layout = "mono"
        for number in range(frames):
            picture = np.ascontiguousarray(texture[:height, number * 2 : number * 2 + width])
            frame = av.VideoFrame.from_ndarray(picture, "rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 30)
            container.mux(video.encode(frame))
        for start in range(0, len(tone) - 1023, 1024):
            sound = av.AudioFrame.from_ndarray(tone[None, start : start + 1024], "s16", "mono")
            sound.sample_rate, sound.pts, sound.time_base = 48000, start, Fraction(1, 48000)
            container.mux(audio.encode(sound))
        container.mux(audio.encode(None))
        container.mux(video.encode(None))


def read_report(path: Path) -> dict[str, Any]:
    """A report; asserts on the way that every sink adds up and nothing went unaccounted."""
    report: dict[str, Any] = json.loads(path.read_text())
    for name, sink in report["sinks"].items():
        lost = sum(sink["dropped"].values())
        assert sink["captured"] == sink["delivered"] + lost, (name, sink)
        assert "unaccounted" not in sink["dropped"], (name, sink)
        assert "in_flight" not in sink["dropped"], (name, sink)
    return report


def workers_of(pid: int) -> dict[str, int]:
    """Process ids of a supervisor's workers, by worker name."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if parent == pid and b"streamer.runtime.worker" in words:
                found[words[words.index(b"streamer.runtime.worker") + 1].decode()] = int(entry.name)
    return found


def nodes_of(pid: int) -> dict[str, Any]:
    """How the nodes of a run stand, as `streamer status` tells it; empty if it does not answer."""
    with pytest.MonkeyPatch.context() as patch:
        # This process may have looked for the folder before the test had one of its own.
        patch.setattr(tempfile, "tempdir", os.environ["TMPDIR"])
        try:
            with Remote(choose(str(pid))) as run:
                nodes: dict[str, Any] = run.status()["nodes"]
        except StreamerError:
            return {}
    return nodes


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_for(condition: Callable[[], Any], *, seconds: float = 60.0) -> Any:
    """Waits until a condition holds and returns its value; fails after a generous deadline."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > end:
            pytest.fail(f"still waiting for {condition} after {seconds:.0f} s")
        time.sleep(0.05)
    return value


def free_port(*, kind: Literal["tcp", "udp"] = "tcp") -> int:
    """A port of the loopback interface that nobody uses."""
    with socket.socket(
        socket.AF_INET, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM
    ) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def frames_of(path: Path) -> list[tuple[Fraction, np.ndarray[Any, Any]]]:
    """Times in seconds and rgb24 pictures of a file, all decoded."""
    with av.open(str(path)) as container:
        return [
            (frame.pts * frame.time_base, frame.to_ndarray(format="rgb24"))
            for frame in container.decode(video=0)
        ]
