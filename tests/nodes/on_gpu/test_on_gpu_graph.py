"""Whole graphs on a GPU: what moves between it and the host, told by the report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from test_on_gpu_decoder import clip

import streamer
from streamer.gpu.device import Device

SIZE, STYLED, COUNT = (96, 64), (64, 64), 12
LOSSLESS = {"codec": "libx264", "options": {"qp": 0, "crf": -1}}


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))


def run(
    tmp_path: Path, *, on_gpu: tuple[str, ...], together: bool = False, name: str = "film.mkv"
) -> Any:
    """Runs decoder → preprocess → invert → encoder; nodes in `on_gpu` have the GPU."""
    source = tmp_path / "clip.mkv"
    if not source.exists():
        clip(source, size=SIZE, count=COUNT)
    nodes: dict[str, Any] = {
        "camera": {"uses": "decoder", "with": {"url": str(source)}},
        "crop": {"uses": "preprocess", "from": "camera", "with": {"size": "64x64"}},
        "style": {"uses": "gpu_graph_nodes:Invert", "from": "crop"},
        "film": {
            "uses": "encoder",
            "from": "style",
            "with": {"url": str(tmp_path / name), **LOSSLESS},
        },
    }
    for one in (*on_gpu, "style"):
        nodes[one]["gpu"] = 0
    data: dict[str, Any] = {"name": "moves", "nodes": nodes}
    if together:
        data["workers"] = {"gpu0": ["crop", "style"]}
    report = streamer.run(streamer.Graph.from_dict(data))
    assert report.exit_status == 0
    assert (report.sinks["film"].delivered, report.sinks["film"].dropped) == (COUNT, {})
    return report


def moved(report: Any) -> dict[str, tuple[float, float]]:
    """Bytes a picture up and down, of nodes with a GPU."""
    nodes = report.to_dict()["nodes"]
    ways = ("to_gpu_bytes", "from_gpu_bytes")
    return {n: tuple(node[w] for w in ways) for n, node in nodes.items() if ways[0] in node}


def shown(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray().astype(int) for frame in container.decode(video=0)]


UP = SIZE[0] * SIZE[1] * 3 / 2
DOWN = STYLED[0] * STYLED[1] * 3 / 2


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("decoder", [True, False], ids=["decoder on gpu", "decoder on cpu"])
def test_a_picture_goes_up_once_and_down_once_for_one_and_a_half_bytes_a_pixel(
    tmp_path: Path, device: Device, decoder: bool, together: bool
) -> None:
    first = ("camera",) if decoder else ()
    report = run(tmp_path, on_gpu=(*first, "crop", "film"), together=together)
    expected = {"crop": (0 if decoder else UP, 0), "style": (0, 0), "film": (0, DOWN)}
    assert moved(report) == ({"camera": (UP, 0)} if decoder else {}) | expected
    # The runtime copied none of its own accord, but the picture that came to it on the host.
    copies = {name: node.copies_per_frame for name, node in report.nodes.items()}
    assert copies == {"camera": 0, "crop": 0 if decoder else 1, "style": 0, "film": 0}
    kinds = {key: link.kind for key, link in report.links.items() if "audio" not in key}
    assert kinds == {
        "camera->crop": "cuda" if decoder else "memfd",
        "crop->style": "local" if together else "cuda",
        "style->film": "cuda",
    }
    hardware = {name: node.hardware for name, node in report.nodes.items()}
    assert hardware == {
        "camera": 0 if decoder else None, "crop": None, "style": None, "film": 0,
    }  # fmt: skip


def test_the_film_is_the_one_that_the_cpu_makes(tmp_path: Path, device: Device) -> None:
    run(tmp_path, on_gpu=("camera", "crop", "film"))
    report = run(tmp_path, on_gpu=(), name="like.mkv")
    # Nodes on the host move red, green and blue: twice as much, which the report tells.
    rgb = STYLED[0] * STYLED[1] * 3
    assert moved(report) == {"style": (rgb, rgb)}
    pictures, expected = shown(tmp_path / "film.mkv"), shown(tmp_path / "like.mkv")
    assert len(pictures) == len(expected) == COUNT
    # Twice over conversions that round differently from swscale's.
    assert max(np.abs(a - b).max() for a, b in zip(pictures, expected, strict=True)) <= 10
    assert np.mean([np.abs(a - b).mean() for a, b in zip(pictures, expected, strict=True)]) <= 2
