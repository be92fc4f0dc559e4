"""How the whole graph is measured: its clip, its bytes, and which pictures are late."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import pytest

import streamer
from nodes.sdxs.bench import graphs, prompts
from nodes.sdxs.bench.probe import Arrival, Probe, arrivals
from streamer.bench.acceptance.goals import Conditions
from streamer.testing import solo


def test_the_clip_begins_slowly_and_keeps_its_pace(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    graphs.make_clip(path, side=64, fps=60, slow=2, frames=30)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.width, stream.height) == ("h264", 64, 64)
        assert stream.codec_context.pix_fmt == "yuv420p"
        times = [Fraction(f.pts) * f.time_base for f in container.decode(stream)]
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert gaps == [Fraction(5, 2)] * 2 + [Fraction(1, 60)] * 29


def report(**hardware: int) -> Any:
    def node(up: float, down: float, done: int = 0) -> Any:
        return SimpleNamespace(frames=100, to_gpu_bytes=up, from_gpu_bytes=down, hardware=done)

    return SimpleNamespace(
        nodes={
            "clip": node(6144.0, 0.0, hardware.get("clip", 0)),
            "crop": node(0.0, 0.0),
            "style": SimpleNamespace(
                frames=100, to_gpu_bytes=None, from_gpu_bytes=None, hardware=None
            ),
            "out": node(0.0, 6144.0, hardware.get("out", 0)),
        }
    )


@pytest.mark.parametrize(
    ("hardware", "least"),
    [
        ({}, (6144.0, 6144.0)),
        ({"clip": 100}, (0.0, 6144.0)),
        ({"clip": 100, "out": 100}, (0.0, 0.0)),
        ({"clip": 25}, (4608.0, 6144.0)),
    ],
)
def test_the_least_is_what_the_gpu_s_codecs_leave(
    hardware: dict[str, int], least: tuple[float, float]
) -> None:
    found = report(**hardware)
    assert graphs.bytes_moved(found) == (6144.0, 6144.0)
    assert graphs.bytes_at_least(found, 64) == least


def test_the_graph_is_one_of_four_nodes_on_the_gpu(tmp_path: Path) -> None:
    made = graphs.graph(Conditions(fake=True, folder=tmp_path), fps=60)
    plan = made.plan()
    assert [(node.name, node.gpu) for node in plan.nodes] == [
        ("clip", 0), ("crop", 0), ("style", 0), ("out", 0),
    ]  # fmt: skip
    assert [worker.nodes for worker in plan.workers] == [
        ("clip",), ("crop",), ("style",), ("out",),
    ]  # fmt: skip


def test_pictures_after_a_change_are_counted_until_the_first_new_one() -> None:
    ms = 1_000_000
    seen = [Arrival(seq, generation, when * ms) for seq, generation, when in (
        (1, 0, 10), (2, 0, 20), (3, 0, 30), (4, 0, 40), (6, 1, 55), (7, 1, 60),
    )]  # fmt: skip
    assert prompts.behind(seen, 25 * ms, 1) == (2, 30.0)
    assert prompts.behind(seen, 41 * ms, 1) == (0, 14.0)
    assert prompts.behind(seen, 25 * ms, 2) is None
    assert prompts.behind(seen[:4], 25 * ms, 1) is None


def test_the_probe_writes_down_what_comes(tmp_path: Path) -> None:
    import numpy as np

    path = tmp_path / "arrivals"
    probe = solo(Probe, path=str(path))
    for _ in range(2):
        probe.process(streamer.Frame.of(np.zeros((4, 4, 3), np.uint8)))
    found = arrivals(path)
    assert len(found) == 2
    assert found[0].when_ns < found[1].when_ns
    probe.close()
    path.write_text(path.read_text() + "3 0 77")  # a line that is being written
    assert arrivals(path) == found
