"""Whole graphs on a simulated GPU: where frames lie, what is copied, what a death leaves."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import streamer
from streamer.gpu import simulated


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))


def run(
    tmp_path: Path,
    *,
    first: dict[str, Any] | None = None,
    second: dict[str, Any] | None = None,
    source: dict[str, Any] | None = None,
    together: bool = False,
    kind: str = "Add",
) -> tuple[Any, list[tuple[int, bool, str]]]:
    """Runs count → add → add → check; returns the report and what the sink saw."""
    path = tmp_path / "seen.txt"
    nodes: dict[str, Any] = {
        "count": {"uses": "cuda_nodes:Count", "with": source or {}},
        "one": {"uses": f"cuda_nodes:{kind}", "from": "count", "gpu": 0, "with": first or {}},
        "two": {"uses": "cuda_nodes:Add", "from": "one", "gpu": 0, "with": second or {}},
        "check": {
            "uses": "cuda_nodes:Check",
            "from": "two",
            "with": {"path": str(path), "added": 2},
        },
    }
    data: dict[str, Any] = {"name": "on-gpu", "nodes": nodes}
    if together:
        data["workers"] = {"gpu0": ["one", "two"]}
    report = streamer.run(streamer.Graph.from_dict(data))
    seen = [line.split() for line in path.read_text().splitlines()]
    return report, [(int(seq), bool(int(right)), where) for seq, right, where in seen]


def copies(report: Any) -> dict[str, float]:
    return {name: node.copies_per_frame for name, node in report.nodes.items()}


@pytest.mark.parametrize("together", [False, True])
def test_frames_stay_on_the_gpu_between_nodes(
    tmp_path: Path, simulated_gpu: Path, together: bool
) -> None:
    simulated.change(simulated_gpu, delay=0.001)
    report, seen = run(tmp_path, together=together)
    assert seen == [(seq, True, "host") for seq in range(60)]
    # Up to the GPU once, where it is first needed, and down once, for the sink.
    assert copies(report) == {"count": 0, "one": 1, "two": 1, "check": 0}
    kinds = {key: link.kind for key, link in report.links.items()}
    assert kinds == {
        "count->one": "memfd",
        "one->two": "local" if together else "cuda",
        "two->check": "memfd",
    }
    assert simulated.used(simulated_gpu) == 0


def test_an_array_of_the_gpu_is_copied_there_and_counted(
    tmp_path: Path, simulated_gpu: Path
) -> None:
    report, seen = run(tmp_path, second={"returns_array": True}, source={"count": 5})
    assert seen == [(seq, True, "host") for seq in range(5)]
    assert copies(report)["two"] == 2


def test_a_node_that_is_killed_comes_back_and_its_memory_is_freed(
    tmp_path: Path, simulated_gpu: Path
) -> None:
    report, seen = run(tmp_path, source={"count": 300, "live": True}, second={"dies_at": 20})
    seqs = [seq for seq, _, _ in seen]
    assert all(right for _, right, _ in seen)
    assert seqs == sorted(set(seqs))
    assert seqs[-1] == 299
    assert report.exit_status == 0
    assert report.nodes["two"].restarts == 1
    assert simulated.used(simulated_gpu) == 0


@pytest.mark.parametrize("at", ["first", "second"])
def test_a_process_that_lost_its_gpu_is_replaced_at_once(
    tmp_path: Path, simulated_gpu: Path, at: str
) -> None:
    breaks: Any = {at: {"breaks_at": 20}}
    report, seen = run(tmp_path, source={"count": 300, "live": True}, **breaks)
    seqs = [seq for seq, _, _ in seen]
    assert all(right for _, right, _ in seen)
    assert seqs == sorted(set(seqs))
    assert seqs[-1] == 299
    # One that rests, as after a fault that stays, would miss the rest of the pictures.
    assert report.nodes["one" if at == "first" else "two"].restarts == 1
    assert report.exit_status == 0
    sink = report.sinks["check"]
    assert sink.captured == 300 == sink.delivered + sum(sink.dropped.values())
    assert simulated.used(simulated_gpu) == 0


@pytest.mark.parametrize("kind", ["Add", "Bare"])
def test_memory_that_runs_short_in_mid_run_costs_pictures_which_are_counted(
    tmp_path: Path, simulated_gpu: Path, kind: str
) -> None:
    simulated.change(simulated_gpu, memory=5 << 20)
    report, seen = run(tmp_path, source={"count": 40, "larger_from": 30}, kind=kind)
    assert report.exit_status == 0
    assert all(right for _, right, _ in seen)
    assert [seq for seq, _, _ in seen][:30] == list(range(30))
    sink = report.sinks["check"]
    assert sink.captured == 40 == sink.delivered + sum(sink.dropped.values())
    assert len(seen) == sink.delivered
    assert sink.dropped == {"no_slot": 40 - len(seen)}


def test_a_graph_without_the_gpu_it_names_runs_on_the_host_or_says_why_not(
    tmp_path: Path, simulated_gpu: Path
) -> None:
    simulated.change(simulated_gpu, devices=0)
    report, seen = run(tmp_path, source={"count": 5})
    assert seen == [(seq, True, "host") for seq in range(5)]
    assert copies(report) == {"count": 0, "one": 0, "two": 0, "check": 0}
    with pytest.raises(streamer.RunError) as caught:
        run(tmp_path, kind="OnlyGpu")
    said = "one: takes frames on a GPU only: there is no gpu 0: 0 are simulated, from 0"
    assert str(caught.value) == said


def test_memory_that_is_short_from_the_start_ends_the_run_with_a_clear_sentence(
    tmp_path: Path, simulated_gpu: Path
) -> None:
    simulated.change(simulated_gpu, memory=1 << 20)
    with pytest.raises(streamer.RunError) as caught:
        run(tmp_path, source={"count": 5, "live": True})
    assert re.match(
        r"one: gpu 0 has no 2 MiB for \d+ frames of 12288 bytes: 1 of 1 MiB are free; make the "
        "pictures smaller, end other programs on it, or give the node another gpu",
        str(caught.value),
    )
