"""Interrupts, hanging nodes and a supervisor that dies: everything ends, properly if it can."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zmq
from plans import DEADLINE, Listener, chain, link, node, others, pictures, pid_of, plan, run

from streamer.graph.plan import Plan
from streamer.runtime import Silent, Supervisor, control, draining
from streamer.runtime.draining import DRAIN_IDLE, FINISH_IDLE, DrainWatch


def interrupting(*, times: int = 1, after: int = 10) -> Listener:
    """Interrupts once some pictures have been delivered."""

    def on_tick(supervisor: Supervisor) -> None:
        nonlocal times
        delivered = sum(sink.delivered for sink in supervisor.report().sinks.values())
        while times and delivered >= after:
            times -= 1
            supervisor.interrupt()

    return Listener(on_tick=on_tick)


def eventually(holds: Callable[[], bool]) -> bool:
    until = time.monotonic() + DEADLINE
    while not holds() and time.monotonic() < until:
        time.sleep(0.05)
    return holds()


@pytest.mark.parametrize("live", [False, True])
def test_an_interrupt_drains(tmp_path: Path, live: bool) -> None:
    tape = tmp_path / "tape"
    report = run(chain(tape, live=live, src_count=10**6, src_fps=100), interrupting())
    assert (report.exit_status, report.errors) == (0, [])
    assert others(tape) == ["open 1", "end"]
    sink = report.sinks["out"]
    assert sink.dropped.keys() <= ({"replaced"} if live else set())
    assert sink.delivered == len(pictures(tape)) >= 10


def test_a_drain_waits_for_a_slow_sink(tmp_path: Path) -> None:
    # The source stands before full queues when it is asked to end; all that it gave is written.
    tape = tmp_path / "tape"
    report = run(chain(tape, src_count=10**6, out_seconds=0.2), interrupting(after=2))
    assert report.exit_status == 0
    assert report.sinks["out"].dropped == {}
    assert [p.seq for p in pictures(tape)] == list(range(report.sinks["out"].captured))
    assert report.sinks["out"].captured > 8


def test_a_sink_that_waits_hears_of_the_drain_and_still_gets_all(tmp_path: Path) -> None:
    tape = tmp_path / "tape"
    report = run(chain(tape, src_count=10**6, out_wait_at=10), interrupting(after=10))
    assert (report.exit_status, report.errors) == (0, [])
    assert others(tape) == ["open 1", "end"]
    assert [p.seq for p in pictures(tape)] == list(range(report.sinks["out"].captured))
    assert report.sinks["out"].captured > 11


def test_a_second_interrupt_ends_at_once_and_still_closes_outputs(tmp_path: Path) -> None:
    tape = tmp_path / "tape"
    made = chain(tape, src_count=10**6, work_seconds=0.1)
    report = run(made, interrupting(times=2, after=3))
    assert others(tape) == ["open 1", "end"]
    assert report.sinks["out"].dropped.keys() == {"aborted"}


def test_a_source_that_hangs_while_the_run_drains_is_left_behind(tmp_path: Path) -> None:
    tape = tmp_path / "tape"
    report = run(chain(tape, src_count=20, src_hang_at=12), interrupting(after=12))
    assert report.exit_status == 0
    assert report.sinks["out"].delivered == 12
    assert others(tape) == ["open 1", "end"]


def test_a_node_that_hangs_while_the_run_drains_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(draining, "DRAIN_IDLE", 1.0)
    tape = tmp_path / "tape"
    made = chain(tape, src_count=10**6, src_fps=100, work_hang_at=12)
    report = run(made, interrupting(after=12))
    assert report.exit_status == 1
    (error,) = report.errors
    assert re.fullmatch(r"work did not end within \d+ s", error)
    assert report.sinks["out"].dropped.keys() <= {"aborted"}
    assert others(tape) == ["open 1", "end"]


def test_an_output_that_takes_long_to_finish_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(draining, "DRAIN_IDLE", 3.0)
    tape = tmp_path / "tape"
    made = chain(tape, src_count=10**6, src_fps=100, out_finish_seconds=4.5)
    report = run(made, interrupting())
    assert report.exit_status == 0
    assert others(tape) == ["open 1", "end"]


def test_an_interrupt_while_nodes_still_open(tmp_path: Path) -> None:
    def on_state(supervisor: Supervisor, name: str, state: str) -> None:
        if (name, state) == ("out", "opening"):
            supervisor.interrupt()

    made = chain(tmp_path / "tape", src_count=100, work_open_seconds=0.5)
    report = run(made, Listener(on_state=on_state))
    assert report.exit_status == 0
    assert report.sinks["out"].captured == 0
    assert others(tmp_path / "tape") == ["open 1", "end"]


def test_an_interrupt_does_not_wait_for_a_node_that_opens_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(draining, "OPENING_IDLE", 0.5)

    def on_state(supervisor: Supervisor, name: str, state: str) -> None:
        if (name, state) == ("out", "ready"):
            supervisor.interrupt()

    made = chain(tmp_path / "tape", src_count=100, work_open_seconds=10 * DEADLINE)
    listener = Listener(on_state=on_state)
    report = run(made, listener)
    # No frame was under way: nothing is lost by it, and nothing has gone wrong.
    assert (report.exit_status, report.errors) == (0, [])
    assert report.sinks["out"].captured == 0
    assert others(tmp_path / "tape") == ["open 1", "end"]
    assert "not waiting until work is open: no frame was under way" in listener.events


def test_interrupts_before_and_after_the_run_do_no_harm(tmp_path: Path) -> None:
    supervisor = Supervisor(chain(tmp_path / "tape", src_count=10**6, src_fps=100), Silent())
    for _ in range(100_000 // 4096):
        supervisor.interrupt()
    report = supervisor.run()
    assert report.exit_status == 0
    kept = [os.open(os.devnull, os.O_RDWR) for _ in range(8)]  # take the numbers that were freed
    supervisor.interrupt()
    for fd in kept:
        os.close(fd)


def test_workers_leave_signals_to_the_supervisor(tmp_path: Path) -> None:
    # A service manager sends SIGTERM to every process of a service at once.
    tape = tmp_path / "tape"
    sent: list[int] = []

    def on_tick(supervisor: Supervisor) -> None:
        if supervisor.report().sinks["out"].delivered >= 5 and not sent:
            for name in ("src", "work", "out"):
                pid = pid_of(name)
                assert pid is not None
                sent.append(pid)
                os.kill(pid, signal.SIGTERM)
                os.kill(pid, signal.SIGINT)

    report = run(chain(tape, src_count=60, src_fps=100), Listener(on_tick=on_tick))
    assert len(sent) == 3
    assert report.sinks["out"].delivered == 60
    assert all(entry.restarts == 0 for entry in report.nodes.values())


def test_workers_end_by_themselves_when_the_supervisor_dies(tmp_path: Path) -> None:
    # One source hangs in a read, and one sink writes what it has in a thread of its own.
    tape, other = tmp_path / "tape", tmp_path / "other"
    made = plan(
        [
            node("src", "Ticks", live=True, count=10**6, fps=100, hang_at=20),
            node("work", "Work", live=True),
            node("out", "Tape", live=True, path=str(tape)),
            node("late", "Tape", live=True, path=str(other), late=True),
        ],
        [
            link("src", "work", queue="latest"),
            link("work", "out", queue="latest"),
            link("work", "late", queue="latest"),
        ],
    )
    pids = orphan(made, tmp_path, until=lambda: tape.exists() and len(pictures(tape)) >= 10)
    assert eventually(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids))
    assert others(tape)[-1] == others(other)[-1] == "end"


def orphan(made: Plan, folder: Path, *, until: Callable[[], bool]) -> list[int]:
    """Runs a plan, kills its supervisor once something holds, and tells its workers' processes."""
    file = folder / "plan.json"
    file.write_text(json.dumps(made.to_dict()))
    temporary = subprocess.check_output(["mktemp", "-d", "/tmp/st-XXXXXX"], text=True).strip()
    script = Path(__file__).with_name("supervised.py")
    supervisor = subprocess.Popen(
        [sys.executable, str(script), str(file)], env={**os.environ, "TMPDIR": temporary}
    )
    try:
        assert eventually(until)
        pids = [pid for w in made.workers if (pid := pid_of(w.name, supervisor.pid))]
        assert len(pids) == len(made.workers)
    finally:
        supervisor.kill()
        supervisor.wait()
    # The sockets' folder goes with the last of them.
    assert eventually(lambda: not os.listdir(temporary))
    os.rmdir(temporary)
    return pids


def test_a_process_that_does_not_exit_after_its_work_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamer.runtime.crew.EXIT_GRACE", 0.5)
    report = run(chain(tmp_path / "tape", src_count=20, work_linger=True))
    assert report.exit_status == 0
    assert report.sinks["out"].delivered == 20


def test_a_drain_is_idle_only_while_nothing_moves() -> None:
    watch = DrainWatch()
    assert watch.idle(1, ["running"], 0.0) is None
    assert watch.idle(1, ["running"], DRAIN_IDLE) is None
    assert watch.idle(2, ["running"], DRAIN_IDLE + 1) is None  # something moved
    assert watch.idle(2, ["running"], 2 * DRAIN_IDLE) is None
    assert watch.idle(2, ["finishing"], 2 * DRAIN_IDLE + 2) is None  # a state changed
    assert watch.idle(2, ["finishing"], 3 * DRAIN_IDLE + 3) is None  # and has longer
    idle = watch.idle(2, ["finishing"], 2 * DRAIN_IDLE + 3 + FINISH_IDLE)
    assert idle == pytest.approx(FINISH_IDLE + 1)


def test_nonsense_on_the_control_socket_disturbs_nobody(tmp_path: Path) -> None:
    context: zmq.Context[Any] = zmq.Context()
    strangers: list[Any] = []

    def on_state(_: Supervisor, name: str, state: str) -> None:
        if (name, state) == ("out", "running") and not strangers:
            (folder,) = Path(tempfile.gettempdir()).glob("streamer-*")
            stranger = context.socket(zmq.DEALER)
            stranger.connect(f"ipc://{folder}/control")
            strangers.append(stranger)
            stranger.send(b"garbage")
            stranger.send_multipart([b"many", b"parts"])
            stranger.send(control.pack("state", node="nobody", state="ready", text=""))
            stranger.send(control.pack("hello", worker="src", incarnation=9, pid=1))
            stranger.send(control.pack("done"))

    listener = Listener(on_state=on_state)
    report = run(chain(tmp_path / "tape", src_count=60, src_fps=100), listener)
    assert (report.exit_status, report.sinks["out"].delivered) == (0, 60)
    assert "a worker sent nonsense: not a control message" in listener.events
    assert "a worker spoke of an unknown node 'nobody'" in listener.events
    strangers[0].close(0)
    context.term()
