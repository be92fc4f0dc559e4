"""Where the frames went that no counter knows: the balance of each hop, by what befell it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from plans import chain

from streamer.drops import COUNTED, Drop
from streamer.runtime.report import Circumstances, build
from streamer.telemetry.board import Board

PLAN = chain(Path("tape"))  # src -> work -> out


def board(
    captured: int, offered: int, received: int, onward: int, arrived: int, delivered: int
) -> Board:
    made = Board([n.name for n in PLAN.nodes], [link.key for link in PLAN.links])
    made.nodes["src"].captured.set(captured)
    made.links["src->work"].offered.set(offered)
    made.links["src->work"].received.set(received)
    made.links["work->out"].offered.set(onward)
    made.links["work->out"].received.set(arrived)
    made.nodes["out"].delivered.set(delivered)
    return made


@given(
    st.lists(st.integers(0, 1000), min_size=6, max_size=6),
    st.lists(st.sampled_from(COUNTED), max_size=8),
    st.builds(
        Circumstances,
        final=st.booleans(),
        aborted=st.booleans(),
        crashed=st.frozensets(st.sampled_from(["src", "work", "out"])),
        failed=st.frozensets(st.sampled_from(["src", "work", "out"])),
    ),
)
def test_every_report_adds_up(counts: list[int], drops: list[Drop], what: Circumstances) -> None:
    made = board(*sorted(counts, reverse=True))
    for number, reason in enumerate(drops):
        made.nodes[PLAN.nodes[number % 3].name].dropped[reason].add()
        made.links[PLAN.links[number % 2].key].dropped[reason].add()
    sink = build(PLAN, made, what).sinks["out"]
    assert sink.captured == sink.delivered + sum(sink.dropped.values())


@pytest.mark.parametrize(
    ("what", "dropped"),
    [
        (Circumstances(), {"unaccounted": 50}),
        (Circumstances(final=False), {"in_flight": 50}),
        (Circumstances(aborted=True), {"aborted": 50}),
        # Hops from left to right lose 1, 4, 10, 15 and 20.
        (Circumstances(crashed=frozenset({"src"})), {"crashed": 5, "unaccounted": 45}),
        (Circumstances(crashed=frozenset({"work"})), {"crashed": 29, "unaccounted": 21}),
        (Circumstances(crashed=frozenset({"out"})), {"crashed": 35, "unaccounted": 15}),
        (Circumstances(crashed=frozenset({"out"}), aborted=True), {"crashed": 35, "aborted": 15}),
        (
            Circumstances(failed=frozenset({"work"}), aborted=True),
            {"consumer_gone": 4, "failed": 25, "aborted": 21},
        ),
        (
            Circumstances(failed=frozenset({"out"}), aborted=True),
            {"consumer_gone": 15, "failed": 20, "aborted": 15},
        ),
    ],
)
def test_what_is_missing_belongs_to_what_befell_its_hop(
    what: Circumstances, dropped: dict[str, int]
) -> None:
    assert build(PLAN, board(100, 99, 95, 85, 70, 50), what).sinks["out"].dropped == dropped


def test_numbers_of_nodes_and_links() -> None:
    made = board(10, 10, 10, 10, 10, 10)
    work, out = made.nodes["work"], made.nodes["out"]
    work.emitted.set(10)
    work.copies.set(5)
    for us in (1000, 2000, 3000):
        work.process.add_ns(us * 1000)
    out.first_ns.set(1_000_000_000)
    out.last_ns.set(3_000_000_000)
    what = Circumstances(seconds=2.5, restarts={"work": 3}, rss_mb={"work": 47.123})
    report = build(PLAN, made, what, errors=["one"], exit_status=1)
    node = report.nodes["work"]
    assert (node.frames, node.copies_per_frame, node.restarts, node.rss_mb) == (10, 0.5, 3, 47.1)
    assert node.process_ms["p50"] == pytest.approx(2, rel=0.01)
    assert report.nodes["src"].process_ms == {"p50": None, "p95": None, "p99": None}
    assert (report.fps, report.seconds, report.errors, report.exit_status) == (5, 2.5, ["one"], 1)
    assert str(report) == "test: out: 10 of 10 frames, 5.0 fps, 2.5 s"
    assert report.to_dict()["links"]["src->work"]["kind"] == "memfd"
