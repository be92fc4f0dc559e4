"""Nodes that fail: what is said, what the run returns, and what becomes of the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from plans import Listener, chain, kill, link, node, others, pictures, plan, run

from streamer.graph.plan import Plan
from streamer.runtime import Supervisor


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"work_mode": "keep_view"}, "work: a view of a frame's pixels is still in use"),
        ({"work_mode": "float"}, "work: returned a picture of float64 and shape (24, 32, 3)"),
        ({"work_mode": "text"}, "work: returned a picture of <U10 and shape ()"),
        ({"work_mode": "size"}, "work: cannot make this picture: a picture is 1 to 16384 pixels"),
        ({"work_mode": "drop_twice"}, "work: a frame can be counted as dropped only once"),
        ({"work_mode": "drop_and_return"}, "work: counted a frame as dropped and returned"),
        ({"work_fail_at": 5}, "work: the work cannot go on"),
        ({"work_fail_close": True}, "work: could not be closed: RuntimeError: closing went wrong"),
        ({"src_fail_at": 5}, "src: the source broke as asked"),
        ({"src_yields": "array"}, "src: yielded a ndarray; a source yields frames"),
        ({"src_yields": "twice"}, "was given back; its pixels can no longer be read"),
        ({"out_fail_at": 5}, "out: the disk is full as asked"),
        ({"out_fail_finish": "node"}, "out: the file cannot be completed"),
        ({"out_fail_finish": "surprise"}, "out: the output cannot be ended: RuntimeError: a sur"),
    ],
)
def test_a_failure_is_one_clear_sentence_and_ends_the_run(
    tmp_path: Path, params: dict[str, Any], said: str
) -> None:
    tape = tmp_path / "tape"
    listener = Listener()
    report = run(chain(tape, together=True, src_count=60, **params), listener)
    assert report.exit_status == 1
    assert len(report.errors) == 1, report.errors
    assert said in report.errors[0]
    assert all(entry.restarts == 0 for entry in report.nodes.values())
    assert ("out", "opening") in listener.states
    if not any(key.startswith("out_") for key in params):
        assert others(tape) == ["open 1", "end"]  # the output was closed properly


def test_what_a_source_gave_before_it_failed_is_delivered(tmp_path: Path) -> None:
    tape = tmp_path / "tape"
    report = run(chain(tape, src_count=60, src_fail_at=30, out_seconds=0.002))
    assert [p.seq for p in pictures(tape)] == list(range(30))
    assert report.sinks["out"].dropped == {}


def test_what_a_transform_gave_before_it_failed_is_delivered(tmp_path: Path) -> None:
    tape = tmp_path / "tape"
    report = run(chain(tape, src_count=60, work_fail_at=30, out_seconds=0.005))
    assert [p.seq for p in pictures(tape)] == list(range(30))
    assert report.sinks["out"].dropped.keys() <= {"failed", "consumer_gone"}


def test_a_failing_sink_does_not_spoil_the_other_one(tmp_path: Path) -> None:
    good, bad = tmp_path / "good", tmp_path / "bad"
    report = run(
        plan(
            [
                node("src", "Ticks", count=60, fps=200),
                node("good", "Tape", path=str(good)),
                node("bad", "Tape", path=str(bad), fail_at=10),
            ],
            [link("src", "good"), link("src", "bad")],
        )
    )
    assert report.exit_status == 1
    assert report.errors == ["bad: the disk is full as asked"]
    shown = [p.seq for p in pictures(good)]
    assert shown == list(range(len(shown)))
    assert len(shown) >= 10
    assert others(good)[-1] == "end"
    assert report.sinks["good"].dropped == {}
    assert report.sinks["bad"].delivered == 10


def live_outputs(tmp_path: Path, *, together: tuple[str, ...] = (), **fail_at: int) -> Plan:
    """A camera with an output for each name; a number is the picture at which it fails."""
    outputs = [
        node(name, "Tape", live=True, policy="always", path=str(tmp_path / name), fail_at=at)
        for name, at in fail_at.items()
    ]
    return plan(
        [node("src", "Ticks", live=True, policy="always", count=10**6, fps=100), *outputs],
        [link("src", name, queue="latest") for name in fail_at],
        together=together,
    )


@pytest.mark.parametrize("together", [(), ("src", "bad", "good")])
def test_a_live_output_that_never_worked_leaves_the_others_their_show(
    tmp_path: Path, together: tuple[str, ...]
) -> None:
    seen: list[tuple[str, str]] = []

    def look(supervisor: Supervisor) -> None:
        status = supervisor.status()
        seen.append((status["phase"], status["nodes"]["bad"]["state"]))
        if supervisor.report().sinks["bad"].dropped.get("consumer_gone", 0) > 50:
            supervisor.hang_up()

    listener = Listener(on_tick=look)
    report = run(live_outputs(tmp_path, good=-1, bad=0, together=together), listener)
    assert report.exit_status == 1
    assert report.errors == ["bad: the disk is full as asked"]
    assert "bad: the disk is full as asked; the other outputs go on" in listener.events
    assert ("running", "failed") in seen
    good, bad = report.sinks["good"], report.sinks["bad"]
    assert pictures(tmp_path / "good")[-1].seq == good.captured - 1
    assert others(tmp_path / "good") == ["open 1", "end"]
    assert good.captured == bad.captured
    assert bad.delivered == 0
    assert bad.dropped["consumer_gone"] > 50


@pytest.mark.parametrize("together", [("bad", "good"), ("src", "bad", "good")])
def test_an_output_that_was_given_up_is_not_started_again_with_its_group(
    tmp_path: Path, together: tuple[str, ...]
) -> None:
    killed: list[int] = []

    def look(supervisor: Supervisor) -> None:
        sinks = supervisor.report().sinks
        good = sinks["good"].delivered
        if not killed and sinks["bad"].dropped.get("consumer_gone") and good >= 10:
            assert kill("shared")
            killed.append(good)
        elif killed and good > killed[0] + 10:
            supervisor.hang_up()

    listener = Listener(on_tick=look)
    report = run(live_outputs(tmp_path, good=-1, bad=0, together=together), listener)
    assert (report.exit_status, report.errors) == (1, ["bad: the disk is full as asked"])
    (told,) = [event for event in listener.events if "starting it again" in event]
    assert (
        told == f"the process of {' and '.join(together)} was killed by SIGKILL; starting it again"
    )
    assert others(tmp_path / "bad") == ["open 1"]
    assert others(tmp_path / "good") == ["open 1", "open 2", "end"]
    assert report.nodes["good"].restarts == 1
    assert report.sinks["bad"].delivered == 0


def test_a_run_whose_live_outputs_have_all_failed_is_over(tmp_path: Path) -> None:
    report = run(live_outputs(tmp_path, one=0, two=0))
    assert sorted(report.errors) == [
        f"{name}: the disk is full as asked" for name in ("one", "two")
    ]
    assert report.sinks["one"].captured < 10**6


def test_a_refused_parameter_ends_the_run_before_any_frame(tmp_path: Path) -> None:
    tape = tmp_path / "tape"
    report = run(chain(tape, src_count=60, work_fail_open="add must be a prime number"))
    assert report.exit_status == 2
    assert report.errors == ["work: add must be a prime number"]
    assert report.sinks["out"].captured == 0
    assert pictures(tape) == []


def test_several_failures_are_all_told(tmp_path: Path) -> None:
    made = plan(
        [
            node("src", "Ticks", count=60),
            node("a", "Work", fail_open="one is wrong", open_seconds=0.3),
            node("b", "Work", fail_open="two is wrong", open_seconds=0.3),
            node("one", "Tape", path=str(tmp_path / "one")),
            node("two", "Tape", path=str(tmp_path / "two")),
        ],
        [link("src", "a"), link("src", "b"), link("a", "one"), link("b", "two")],
    )
    report = run(made)
    assert report.exit_status == 2
    assert sorted(report.errors) == ["a: one is wrong", "b: two is wrong"]


def test_credentials_in_an_error_are_masked(tmp_path: Path) -> None:
    listener = Listener()
    secret = "rtsp://user:hunter2@camera/stream is away"
    report = run(chain(tmp_path / "tape", src_count=5, work_fail_open=secret), listener)
    assert report.errors == ["work: rtsp://***@camera/stream is away"]
    assert "hunter2" not in repr(listener.lines) + repr(listener.events)


def test_an_unforeseen_error_restarts_the_node(tmp_path: Path) -> None:
    listener = Listener()
    report = run(chain(tmp_path / "tape", src_count=60, work_raise_at=20), listener)
    assert report.exit_status == 0
    assert report.nodes["work"].restarts == 1
    assert report.sinks["out"].dropped.keys() == {"crashed"}
    assert pictures(tmp_path / "tape")[-1].seq == 59
    assert "work: RuntimeError: an error that nobody foresaw; starting it again" in listener.events
    # The traceback is there for whoever wants to mend it.
    assert any("made_nodes.py" in text for worker, text in listener.lines if worker == "work")


def test_an_unforeseen_error_without_a_restart_names_itself(tmp_path: Path) -> None:
    made = chain(tmp_path / "tape", src_count=60, work_raise_at=0, work_restarts=0)
    report = run(made)
    assert report.exit_status == 1
    assert report.errors == ["work: RuntimeError: an error that nobody foresaw"]
    assert others(tmp_path / "tape") == ["open 1", "end"]


def test_a_camera_that_goes_away_is_opened_again(tmp_path: Path) -> None:
    tape = tmp_path / "tape"
    listener = Listener()
    report = run(chain(tape, live=True, src_count=40, src_retry_at=20), listener)
    assert report.exit_status == 0
    assert report.nodes["src"].restarts == 1
    assert report.sinks["out"].captured == 60
    assert "src: the camera went away; starting it again" in listener.events
    shown = pictures(tape)
    assert [p.pts for p in shown] == sorted({p.pts for p in shown})


def test_a_talkative_worker_is_heard_to_its_last_line(tmp_path: Path) -> None:
    listener = Listener()
    report = run(chain(tmp_path / "tape", src_count=60, work_noise=50, work_raise_at=40), listener)
    assert report.exit_status == 0
    lines = [text for worker, text in listener.lines if worker == "work"]
    assert len([text for text in lines if text == "x" * 99]) >= 40 * 50 * 10
    assert any("an error that nobody foresaw" in text for text in lines)


def test_a_worker_that_closes_its_output_does_not_keep_the_supervisor_busy(tmp_path: Path) -> None:
    turns = 0

    def count(_: Any) -> None:
        nonlocal turns
        turns += 1

    made = chain(tmp_path / "tape", src_count=20, src_fps=20, work_mute=True)
    report = run(made, Listener(on_tick=count))
    assert report.sinks["out"].delivered == 20
    # A closed pipe is readable for ever: a loop that polls it turns tens of thousands of times.
    assert turns < 500
