"""Nodes of several inputs: which pictures come together, and that no branch stands still."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from plans import Listener, link, node, others, pictures, plan, run

from streamer.graph.plan import Plan
from streamer.runtime import Supervisor


def diamond(tape: Path, *, leader: dict[str, Any], other: dict[str, Any], **more: Any) -> Plan:
    """One source, two branches, joined again; the other branch adds 100 to every pixel."""
    return plan(
        [
            node("src", "Ticks", count=more.get("count", 50)),
            node("a", "Work", **leader),
            node("b", "Work", add=100, **other),
            node("pair", "Pair", **more.get("pair", {})),
            node("out", "Tape", path=str(tape)),
        ],
        [
            link("src", "a", depth=more.get("depths", (4, 4))[0]),
            link("src", "b", depth=more.get("depths", (4, 4))[1]),
            link("a", "pair", depth=more.get("depths", (4, 4))[0]),
            link("b", "pair", leading=False, depth=more.get("depths", (4, 4))[1]),
            link("pair", "out"),
        ],
        together=more.get("together", ("src", "a", "b", "pair", "out")),
    )


@pytest.mark.parametrize("together", [(), ("src", "a", "b", "pair", "out")])
def test_branches_of_one_stream_meet_by_number(tmp_path: Path, together: tuple[str, ...]) -> None:
    tape = tmp_path / "tape"
    report = run(diamond(tape, leader={}, other={"seconds": 0.001}, together=together))
    shown = pictures(tape)
    assert [p.seq for p in shown] == list(range(50))
    assert all((p.low, p.high, p.size) == (p.seq, p.seq + 100, "32x48") for p in shown)
    assert report.sinks["out"].delivered == 50


def test_a_branch_that_drops_gives_its_newest_earlier_picture(tmp_path: Path) -> None:
    tape = tmp_path / "tape"
    run(diamond(tape, leader={}, other={"skip_from": 10, "skip_to": 40}))
    by_seq = {p.seq: p.high for p in pictures(tape)}
    assert list(by_seq) == list(range(50))
    assert all(by_seq[seq] == 109 for seq in range(10, 40))
    assert all(by_seq[seq] == seq + 100 for seq in (*range(10), *range(40, 50)))


def test_a_leading_branch_that_drops_holds_up_nobody(tmp_path: Path) -> None:
    tape = tmp_path / "tape"
    report = run(diamond(tape, leader={"skip_from": 5, "skip_to": 45}, other={}))
    assert [(p.seq, p.high) for p in pictures(tape)] == [
        (seq, seq + 100) for seq in (*range(5), *range(45, 50))
    ]
    assert report.sinks["out"].dropped == {"filtered": 40}


def test_both_branches_may_drop_at_the_same_time(tmp_path: Path) -> None:
    tape = tmp_path / "tape"
    run(
        diamond(
            tape,
            leader={"skip_from": 0, "skip_to": 30},
            other={"skip_from": 20, "skip_to": 48, "bad_every": 7},
        )
    )
    # The other branch gives 19 until it gives 48; 49 fails in it.
    assert [(p.seq, p.high) for p in pictures(tape)] == [
        *((seq, 119) for seq in range(30, 48)),
        (48, 148),
        (49, 148),
    ]


def test_pictures_before_the_other_input_has_any_are_unmatched(tmp_path: Path) -> None:
    report = run(diamond(tmp_path / "tape", leader={}, other={"skip_from": 0, "skip_to": 20}))
    assert report.sinks["out"].dropped == {"unmatched": 20}
    assert report.sinks["out"].delivered == 30


def test_a_branch_that_gives_nothing_at_all_ends(tmp_path: Path) -> None:
    report = run(diamond(tmp_path / "tape", leader={}, other={"skip_from": 0, "skip_to": 999}))
    assert report.sinks["out"].dropped == {"unmatched": 50}
    assert others(tmp_path / "tape") == ["open 1", "end"]


@pytest.mark.parametrize("victim", ["leader", "other", "pair"])
def test_a_branch_that_dies_holds_up_nobody(tmp_path: Path, victim: str) -> None:
    # Whatever the dead one was sent and had not handed on never comes; the rest must. It hangs for
    # a while before it dies and has the longer queues: all that the source can give, it has, and
    # nothing could move any more if somebody waited for what was lost.
    tape = tmp_path / "tape"
    given: dict[str, Any] = {"leader": {}, "other": {}, "pair": {}}
    given[victim] = {"kill_at": 20, "kill_after": 0.3}
    depths = (6, 1) if victim == "leader" else (1, 6)
    report = run(diamond(tape, count=60, depths=depths, together=(), **given))
    assert report.errors == []
    shown = pictures(tape)
    assert shown[-1].seq == 59
    assert report.sinks["out"].captured == 60
    dropped = report.sinks["out"].dropped
    assert dropped.keys() <= {"crashed", "unmatched"}  # the partner may be among the lost
    assert 60 - len(shown) == sum(dropped.values())
    assert {"a": "leader", "b": "other", "pair": "pair"}[
        next(name for name, entry in report.nodes.items() if entry.restarts)
    ] == victim


def test_streams_of_their_own_meet_by_time(tmp_path: Path) -> None:
    # The leader shows a picture each 2/30 s from 0 on, the other one each 5/30 s from 3/30 s on.
    tape = tmp_path / "tape"
    report = run(
        plan(
            [
                node("one", "Ticks", count=30, step=2),
                node("two", "Ticks", count=12, step=5, first_pts=3),
                node("later", "Work", add=100),
                node("pair", "Pair"),
                node("out", "Tape", path=str(tape)),
            ],
            [
                link("one", "pair"),
                link("two", "later"),
                link("later", "pair", leading=False),
                link("pair", "out"),
            ],
            together=("one", "two", "later", "pair", "out"),
        )
    )
    shown = {p.pts: p.high - 100 for p in pictures(tape)}
    assert shown == {pts: min(11, (pts - 3) // 5) for pts in range(0, 60, 2) if pts >= 3}
    assert report.sinks["out"].dropped == {"unmatched": 2}


@pytest.mark.parametrize(("leader", "other"), [(0, 10**6), (10**6, 0)])
def test_cameras_that_opened_at_other_times_are_both_shown_as_they_are_now(
    tmp_path: Path, leader: int, other: int
) -> None:
    # By their times no picture of the later one would ever be shown beside the sooner one's.
    tape = tmp_path / "tape"

    def enough(supervisor: Supervisor) -> None:
        if tape.exists() and len({p.high for p in pictures(tape)}) > 5:
            supervisor.interrupt()

    run(
        plan(
            [
                node("one", "Ticks", live=True, count=10**6, fps=60, first_pts=leader),
                node("two", "Ticks", live=True, count=10**6, fps=60, first_pts=other),
                node("later", "Work", live=True, add=100),
                node("pair", "Pair", live=True),
                node("out", "Tape", live=True, path=str(tape)),
            ],
            [
                link("one", "pair", queue="latest"),
                link("two", "later", queue="latest"),
                link("later", "pair", queue="latest", leading=False),
                link("pair", "out", queue="latest"),
            ],
            together=("one", "two", "later", "pair", "out"),
        ),
        Listener(on_tick=enough),
    )
    shown = pictures(tape)
    assert [p.pts for p in shown] == [leader + p.seq for p in shown]
    assert len({p.high for p in shown}) > 5


def test_a_clip_beside_a_camera_plays_at_its_own_pace(tmp_path: Path) -> None:
    # The clip could be read in no time; its pictures come up by its times all the same.
    tape = tmp_path / "tape"
    run(
        plan(
            [
                node("one", "Ticks", live=True, count=60, fps=60),
                node("clip", "Ticks", count=100),
                node("later", "Work", add=100),
                node("pair", "Pair", live=True),
                node("out", "Tape", live=True, path=str(tape)),
            ],
            [
                link("one", "pair", queue="latest"),
                link("clip", "later"),
                link("later", "pair", leading=False),
                link("pair", "out", queue="latest"),
            ],
            together=("one", "clip", "later", "pair", "out"),
        )
    )
    shown = pictures(tape)
    assert shown
    assert all(p.high - 100 <= p.seq for p in shown)


def test_a_leader_that_ends_first_ends_the_run(tmp_path: Path) -> None:
    # The other source would go on for hours, and shares a worker with the join that has ended.
    report = run(
        plan(
            [
                node("one", "Ticks", count=20),
                node("two", "Ticks", count=10**6, fps=30),
                node("pair", "Pair"),
                node("out", "Tape", path=str(tmp_path / "tape")),
            ],
            [link("one", "pair"), link("two", "pair", leading=False), link("pair", "out")],
            together=("two", "pair"),
        )
    )
    assert report.errors == []
    assert report.sinks["out"].delivered == 20


def test_an_input_by_latest_is_not_waited_for(tmp_path: Path) -> None:
    report = run(
        plan(
            [
                node("src", "Ticks", count=100),
                node("b", "Work", seconds=0.02, skip_from=30, skip_to=100),
                node("pair", "Pair"),
                node("out", "Tape", path=str(tmp_path / "tape")),
            ],
            [
                link("src", "pair"),
                link("src", "b", queue="latest"),
                link("b", "pair", queue="latest", leading=False),
                link("pair", "out"),
            ],
            together=("src", "b", "pair", "out"),
        )
    )
    assert report.sinks["out"].captured == 100
    assert report.sinks["out"].dropped.keys() <= {"unmatched"}


def test_a_live_join_goes_on_while_a_branch_is_away(tmp_path: Path) -> None:
    tape = tmp_path / "tape"
    before = set(range(100, 120))  # what b gives before it dies

    def is_back() -> bool:
        return tape.exists() and any(not before & {p.low, p.high} for p in pictures(tape))

    def stop_once_it_is_back(supervisor: Supervisor) -> None:
        if is_back():
            supervisor.interrupt()

    report = run(
        plan(
            [
                node("src", "Ticks", live=True, count=10**6, fps=100),
                node("b", "Work", live=True, add=100, kill_at=20),
                node("pair", "Pair", live=True),
                node("out", "Tape", live=True, path=str(tape)),
            ],
            [
                link("src", "pair", queue="latest"),
                link("src", "b", queue="latest"),
                link("b", "pair", queue="latest", leading=False),
                link("pair", "out", queue="latest"),
            ],
        ),
        Listener(on_tick=stop_once_it_is_back),
    )
    assert report.nodes["b"].restarts == 1
    assert any(p.seq > 20 and p.high in before for p in pictures(tape))  # with b's last picture
    assert is_back()
