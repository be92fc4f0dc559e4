"""What the report says of copies between host and GPU, and of the GPU's codecs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from plans import chain

from streamer.runtime.report import Circumstances, Report, build
from streamer.status import Count
from streamer.telemetry.board import Board

PLAN = chain(Path("tape"))  # src -> work -> out


def reported(*on_gpu: str) -> Report:
    nodes = tuple(replace(n, gpu=0 if n.name in on_gpu else None) for n in PLAN.nodes)
    plan = replace(PLAN, nodes=nodes)
    board = Board([n.name for n in plan.nodes], [link.key for link in plan.links])
    board.nodes["src"].emitted.set(4)
    board.nodes["out"].delivered.set(3)
    board.nodes["src"].uploaded.set(600)
    board.nodes["out"].downloaded.set(301)
    board.nodes["src"].counts[Count.HARDWARE].set(2)
    return build(plan, board, Circumstances())


def test_bytes_are_told_by_picture_of_nodes_with_a_gpu() -> None:
    data = reported("src", "work", "out").to_dict()["nodes"]
    ways = ("to_gpu_bytes", "from_gpu_bytes", "hardware")
    assert [data["src"][key] for key in ways] == [150.0, 0.0, 2]
    assert [data["out"][key] for key in ways] == [0.0, 100.3, 0]
    assert [data["work"].get(key) for key in ways] == [0.0, 0.0, None]


def test_of_nodes_without_a_gpu_nothing_is_said() -> None:
    data = reported().to_dict()["nodes"]
    for node in data.values():
        assert node.keys().isdisjoint({"to_gpu_bytes", "from_gpu_bytes", "hardware"})
