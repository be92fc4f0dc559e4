"""What dead workers died of, in words."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from plans import Listener, chain, context_of, pictures, run

from streamer.graph.plan import WorkerPlan
from streamer.runtime.obituary import RECENT, Obituary
from streamer.runtime.record import WorkerRecord
from streamer.telemetry.board import Board


def record(*nodes: str) -> WorkerRecord:
    one = WorkerRecord(WorkerPlan(name="w", nodes=nodes))
    one.begin(0.0)
    return one


def test_a_signal_of_its_own_names_the_picture() -> None:
    board = Board(["a", "b"], [])
    obituary = Obituary()
    board.nodes["b"].handling.set(8)  # number 7, from 0
    said = obituary.write(record("b"), -signal.SIGSEGV, board.nodes)
    assert said == "b was killed by SIGSEGV at picture 7"
    said = obituary.write(record("a", "b"), -signal.SIGBUS, board.nodes)
    assert said == "the process of a and b was killed by SIGBUS at picture 7 in b"
    assert obituary.write(record("a"), 3, board.nodes) == "a ended with status 3"


def test_a_new_process_is_not_blamed_for_the_picture_of_the_one_before() -> None:
    made = chain(Path("tape"), src_count=1)
    board = Board(["work"], []).nodes["work"]
    board.handling.set(8)
    context_of(made, "work", board, incarnation=2)
    assert board.handling.value == 0


def test_a_kill_from_without_does_not_blame_a_picture() -> None:
    board = Board(["a"], [])
    board.nodes["a"].handling.set(8)
    assert Obituary().write(record("a"), -signal.SIGKILL, board.nodes) == "a was killed by SIGKILL"


def test_what_is_known_of_the_cause_is_said() -> None:
    one = record("a")
    one.cause = "a has not moved for 20 s (hung in process())"
    said = Obituary().write(one, -signal.SIGKILL, Board(["a"], []).nodes)
    assert said == "a has not moved for 20 s (hung in process())"


@pytest.mark.parametrize("place", ["container", "machine"])
def test_a_kill_for_want_of_memory_is_told_once(tmp_path: Path, place: str) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("4:memory:/old\n0::/show.service\n")
    group = tmp_path / "sys/fs/cgroup/show.service"
    group.mkdir(parents=True)
    events, machine = group / "memory.events", tmp_path / "proc/vmstat"
    events.write_text("low 0\noom 3\noom_kill 3\n")
    machine.write_text("nr_free_pages 5\noom_kill 70\n")
    obituary = Obituary(tmp_path)
    board = Board(["a"], [])
    if place == "container":
        events.write_text("low 0\noom 4\noom_kill 4\n")
    else:
        machine.write_text("nr_free_pages 5\noom_kill 71\n")
    said = obituary.write(record("a"), -signal.SIGKILL, board.nodes)
    assert said == "a was killed by SIGKILL: the machine or its container ran out of memory"
    assert obituary.write(record("a"), -signal.SIGKILL, board.nodes) == "a was killed by SIGKILL"


def test_a_kill_of_another_time_for_want_of_memory_is_not_its_own(tmp_path: Path) -> None:
    machine = tmp_path / "proc/vmstat"
    machine.parent.mkdir()
    machine.write_text("oom_kill 70\n")
    obituary, board = Obituary(tmp_path), Board(["a"], [])
    machine.write_text("oom_kill 71\n")  # of some other program
    for now in (100.0, 100.0 + RECENT):
        obituary.look(now)
    assert obituary.write(record("a"), -signal.SIGKILL, board.nodes) == "a was killed by SIGKILL"
    # One of just now counts, however late its process is seen to have died.
    machine.write_text("oom_kill 72\n")
    obituary.look(100.0 + 2 * RECENT)
    said = obituary.write(record("a"), -signal.SIGKILL, board.nodes)
    assert said.endswith("ran out of memory")


@pytest.mark.parametrize("queue", ["live", "file"])
def test_pictures_that_kill_whatever_handles_them_are_not_tried_again(
    tmp_path: Path, queue: str
) -> None:
    tape = tmp_path / "tape"
    listener = Listener()
    made = chain(tape, live=queue == "live", src_count=190, src_fps=60, work_poison_every=40)
    report = run(made, listener)
    assert (report.exit_status, report.errors) == (0, [])
    deaths = [event for event in listener.events if "SIGSEGV" in event]
    # Each of these numbers killed one process, and no second one; in a live graph some of them
    # may have been let pass while the node was being started again.
    poisoned = {39, 79, 119, 159}
    assert report.nodes["work"].restarts == len(deaths) == len(set(deaths)) >= 1
    assert all(int(death.split(" at picture ")[1].split(";")[0]) in poisoned for death in deaths)
    assert len(deaths) == 4 if queue == "file" else len(deaths) <= 4
    shown = [p.seq for p in pictures(tape)]
    assert not poisoned & set(shown)
    assert shown[-1] == 189
    assert report.sinks["out"].dropped["crashed"] >= len(deaths)
