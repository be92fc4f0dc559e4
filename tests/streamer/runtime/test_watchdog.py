"""Hung nodes and processes are found and ended; busy, waiting and loading ones are not."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
from plans import Listener, chain, context_of, kill, link, node, others, pictures, pid_of, plan, run

from streamer.graph.plan import NodePlan, Plan, WorkerPlan
from streamer.runtime import Supervisor
from streamer.runtime.process import WorkerProcess
from streamer.runtime.record import WorkerRecord
from streamer.runtime.watchdog import OPENING_LIMIT, START_LIMIT, Watchdog
from streamer.telemetry.board import Board


class Clocked:
    """A watchdog of one worker, with the time in hand."""

    def __init__(self, *, hang: float = 20.0, state: str = "running") -> None:
        self.plan: NodePlan = node("work", "Work", hang=hang)
        self.board = Board(["work"], [])
        self.cells = self.board.nodes["work"]
        self.record = WorkerRecord(WorkerPlan(name="work", nodes=("work",)))
        self.record.begin(1000.0)
        self.record.states = {"work": state}
        self.dog = Watchdog()

    def at(self, now: float, *, beat: float = 0.0, pulse: float = 0.0) -> str:
        if beat:
            self.cells.beat_ns.set(int(beat * 1e9))
        if pulse:
            self.cells.pulse_ns.set(int(pulse * 1e9))
        self.dog.look(now - 1)
        self.dog.look(now)
        return self.dog.verdict(self.record, [self.plan], self.board.nodes, now)


def test_a_frame_loop_that_stands_still_is_hung() -> None:
    one = Clocked()
    assert one.at(1020.0, beat=1001, pulse=1020) == ""
    said = one.at(1021.1, pulse=1021)
    assert said == "work has not moved for 20 s (hung in process())"


def test_a_process_that_stands_still_is_hung_sooner() -> None:
    one = Clocked()
    assert one.at(1020.0, beat=1015, pulse=1011) == ""
    said = one.at(1021.5)
    assert said == "work has not moved for 10 s (its process was stopped or blocked)"


def test_a_node_that_warms_up_beside_its_frames_has_the_time_of_one_that_opens() -> None:
    one = Clocked()
    one.cells.warming.set(1)
    assert one.at(1001 + OPENING_LIMIT, beat=1001, pulse=1001) == ""
    assert "has not moved for 120 s" in one.at(1001.1 + OPENING_LIMIT)
    one.cells.warming.set(0)
    assert one.at(1021.1, pulse=1021) == "work has not moved for 20 s (hung in process())"


def test_a_limit_of_none_never_ends() -> None:
    one = Clocked(hang=0)
    assert one.at(9999.0, beat=1001, pulse=1001) == ""
    assert Clocked(hang=0).at(9999.0) == ""


def test_idle_nodes_that_beat_once_a_second_are_left_alone_however_short_the_limit() -> None:
    one = Clocked(hang=0.5)
    assert one.at(1020.0, beat=1018.1, pulse=1018.1) == ""
    assert one.at(1020.2, pulse=1020) == "work has not moved for 2 s (hung in process())"


def test_leave_counts_from_its_end() -> None:
    one = Clocked()
    assert one.at(1119.0, beat=1100, pulse=1119) == ""
    assert one.at(1121.0, pulse=1121) != ""


def test_a_node_that_is_not_watched_yet_and_beats_of_a_former_process_say_nothing() -> None:
    assert Clocked().at(1050.0, pulse=1050) == ""
    assert Clocked().at(1050.0, beat=900, pulse=1050) == ""


def test_a_process_that_opens_has_longer_and_one_that_never_begins_is_ended() -> None:
    one = Clocked(state="opening")
    assert one.at(1000 + OPENING_LIMIT, pulse=1001) == ""
    assert one.at(1002 + OPENING_LIMIT) != ""
    late = Clocked(state="starting")
    assert late.at(1000 + START_LIMIT) == ""
    assert late.at(1000.1 + START_LIMIT) == "work has not begun for 60 s"


def test_after_an_absence_of_the_supervisor_all_limits_begin_anew() -> None:
    one = Clocked()
    one.at(1010.0, beat=1010, pulse=1010)
    one.dog.look(5000.0)  # everything slept
    assert one.dog.verdict(one.record, [one.plan], one.board.nodes, 5000.0) == ""
    for now in range(5001, 5010):
        one.dog.look(float(now))
        assert one.dog.verdict(one.record, [one.plan], one.board.nodes, float(now)) == ""
    one.dog.look(5010.5)
    assert one.dog.verdict(one.record, [one.plan], one.board.nodes, 5010.5) != ""


def test_who_speaks_for_a_node_that_has_ended_has_it_watched_no_more(tmp_path: Path) -> None:
    """A model that nodes share goes on telling the one that loaded it what it does."""
    made = chain(tmp_path / "tape", src_count=1)
    cells = Board(["work"], []).nodes["work"]
    context = context_of(made, "work", cells)
    context.patient(1.0)
    context.note("compiling")
    assert cells.beat_ns.value
    context.unwatched()
    context.note("")
    context.alive()
    assert cells.beat_ns.value == 0
    context.beat()
    assert cells.beat_ns.value


# ---- real processes --------------------------------------------------------------------------


def live(tape: Path, *, hang: float, victim: str = "", **params: Any) -> Plan:
    """Ticks -> Work -> Tape, live; `hang` is the victim's, or everyone's.

    Other parameters are given as for `plans.chain`.
    """
    data = chain(tape, live=True, **params).to_dict()
    for item in data["nodes"]:
        if victim in ("", item["name"]):
            item["restart"]["hang"] = hang
    return Plan.from_dict(data)


@pytest.mark.parametrize(
    ("params", "victim", "said"),
    [
        ({"work_hang_at": 20}, "work", "work has not moved for 4 s (hung in process())"),
        ({"src_hang_at": 20}, "src", "src has not moved for 4 s (hung in frames())"),
        ({"work_stuck_at": 20}, "work", "work has not moved for "),
    ],
)
def test_a_hung_node_is_ended_and_started_again(
    tmp_path: Path, params: dict[str, Any], victim: str, said: str
) -> None:
    tape = tmp_path / "tape"
    listener = Listener()
    count = 80 if victim == "src" else 800
    made = live(tape, hang=4.0, victim=victim, src_count=count, **params)
    report = run(made, listener)
    assert (report.exit_status, report.errors) == (0, [])
    assert {n for n, entry in report.nodes.items() if entry.restarts} == {victim}
    assert (report.nodes[victim].last_failure or "").startswith(said)
    assert any(e.startswith(said) and "starting it again" in e for e in listener.events)
    shown = pictures(tape)
    assert shown[-1].seq == report.sinks["out"].captured - 1
    # Where it hung stands in its log, for whoever wants to mend it.
    assert any("made_nodes.py" in text for worker, text in listener.lines if worker == victim)


@pytest.mark.parametrize("victim", ["src", "out"])
def test_a_stopped_process_is_ended_and_started_again(tmp_path: Path, victim: str) -> None:
    stopped: list[int] = []

    def on_tick(supervisor: Supervisor) -> None:
        if not stopped and supervisor.report().sinks["out"].delivered >= 10:
            pid = pid_of(victim)
            assert pid is not None
            os.kill(pid, signal.SIGSTOP)
            stopped.append(pid)

    tape = tmp_path / "tape"
    made = live(tape, hang=4.0, victim=victim, src_count=400)
    report = run(made, Listener(on_tick=on_tick))
    assert (report.exit_status, report.errors) == (0, [])
    assert report.nodes[victim].restarts == 1
    failure = report.nodes[victim].last_failure
    assert failure == f"{victim} has not moved for 2 s (its process was stopped or blocked)"
    assert others(tape)[-1] == "end"


def test_who_says_that_it_lives_waits_or_opens_is_left_alone(tmp_path: Path) -> None:
    tape = tmp_path / "tape"
    made = plan(
        [
            # Waits for the camera's pace, for a consumer that is slow, and for pictures to come.
            node("src", "Ticks", count=3, fps=0.2, hang=4.0),
            node("work", "Work", hang=4.0, hang_at=1, beat=True, open_seconds=5.0),
            node("out", "Tape", hang=4.0, path=str(tape)),
        ],
        [link("src", "work", depth=1), link("work", "out", depth=1)],
    )
    report = run(made)
    assert (report.exit_status, report.errors) == (0, [])
    assert [entry.restarts for entry in report.nodes.values()] == [0, 0, 0]
    assert len(pictures(tape)) == 3


def test_the_first_picture_may_take_long_after_its_memory_was_asked_for_too(tmp_path: Path) -> None:
    """Some engines are built only then, for the size that they see."""
    tape = tmp_path / "tape"
    made = plan(
        [
            node("src", "Ticks", count=2),
            node("work", "Work", hang=4.0, build_seconds=7.0),
            node("out", "Tape", path=str(tape)),
        ],
        [link("src", "work"), link("work", "out")],
    )
    report = run(made)
    assert (report.exit_status, report.errors) == (0, [])
    assert report.nodes["work"].restarts == 0
    assert len(pictures(tape)) == 2


def test_a_supervisor_that_was_stopped_with_all_its_workers_ends_nobody(tmp_path: Path) -> None:
    # Its absence is played by a tick that takes long; the workers are stopped meanwhile.
    pids: list[int] = []

    def on_tick(supervisor: Supervisor) -> None:
        if not pids and supervisor.report().sinks["out"].delivered >= 10:
            pids.extend(pid for name in ("src", "work", "out") if (pid := pid_of(name)))
            for pid in pids:
                os.kill(pid, signal.SIGSTOP)
            threading.Event().wait(4)
            for pid in pids:
                os.kill(pid, signal.SIGCONT)

    report = run(live(tmp_path / "tape", hang=4.0, src_count=600), Listener(on_tick=on_tick))
    assert len(pids) == 3
    assert (report.exit_status, report.errors) == (0, [])
    assert [entry.restarts for entry in report.nodes.values()] == [0, 0, 0]


def test_a_spare_process_takes_over_and_goes_by_its_workers_name(tmp_path: Path) -> None:
    spares: list[int] = []
    adopted: list[int] = []

    def on_tick(supervisor: Supervisor) -> None:
        spare = pid_of(32 * "-")
        if spare is not None and not spares:
            spares.append(spare)
            assert kill("work")
        restarted = supervisor.report().nodes["work"].restarts
        if spares and restarted and not adopted and (pid := pid_of("work")) is not None:
            adopted.append(pid)

    report = run(chain(tmp_path / "tape", live=True, src_count=300), Listener(on_tick=on_tick))
    assert adopted == spares
    assert report.nodes["work"].restarts == 1
    assert pictures(tmp_path / "tape")[-1].seq == 299


def test_a_graph_of_files_keeps_no_spare(tmp_path: Path) -> None:
    seen: list[int] = []

    def on_tick(_: Supervisor) -> None:
        seen.extend(pid for pid in [pid_of(32 * "-")] if pid is not None)

    run(chain(tmp_path / "tape", src_count=150, src_fps=75), Listener(on_tick=on_tick))
    assert not seen


def test_a_stopped_process_tells_that_it_is() -> None:
    read, write = os.pipe()
    process = WorkerProcess(board_fd=write)
    try:
        assert not process.stopped
        os.kill(process.pid, signal.SIGSTOP)
        os.waitid(os.P_PIDFD, process.pidfd, os.WSTOPPED | os.WNOWAIT)
        assert process.stopped
    finally:
        process.kill()
        process.close()
        os.close(read)
        os.close(write)
