"""Parameters that change while a graph runs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from plans import Listener, kill, link, node, pictures, plan, run

from streamer.errors import ParameterError, StreamerError
from streamer.graph.plan import NodePlan, Plan, RestartPlan
from streamer.runtime import Supervisor
from streamer.runtime.remote import Remote, choose


def dye(**params: Any) -> NodePlan:
    return NodePlan(
        name="dye",
        uses="changing_nodes:Dye",
        entry="changing_nodes:Dye",
        params=params,
        role="transform",
        live=True,
        wanted=("rgb24",),
        wants_audio=False,
        gpu=None,
        restart=RestartPlan(policy="on-failure", max=5, window=60),
    )


def dyed(tape: Path, **params: Any) -> Plan:
    return plan(
        [
            node("src", "Ticks", live=True, fps=100, count=100_000),
            dye(**params),
            node("out", "Tape", live=True, path=str(tape)),
        ],
        [link("src", "dye", queue="latest"), link("dye", "out", queue="latest")],
    )


def with_remote(made: Plan, talk: Callable[[Remote], None]) -> Any:
    """Runs a plan while a client talks to it from another thread, then ends the run."""
    failures: list[BaseException] = []
    begun = threading.Event()

    def on_state(supervisor: Supervisor, name: str, state: str) -> None:
        if (name, state) == ("out", "running") and not begun.is_set():
            begun.set()
            threading.Thread(target=converse, args=(supervisor,)).start()

    def converse(supervisor: Supervisor) -> None:
        try:
            with Remote(choose("test")) as remote:
                talk(remote)
        except BaseException as error:
            failures.append(error)
        finally:
            supervisor.interrupt()

    report = run(made, Listener(on_state=on_state))
    if failures:
        raise failures[0]
    return report


def test_a_change_shows_in_every_picture_after_it(tmp_path: Path) -> None:
    tape = tmp_path / "tape"
    seen: list[Any] = []

    def talk(remote: Remote) -> None:
        seen.append(remote.get("dye.value"))
        for value in (7, 8, 9):
            seen.append(remote.set("dye.value", value))
            seen.append(remote.get("dye.value"))
            before = len(pictures(tape))
            while len(pictures(tape)) < before + 5:
                time.sleep(0.01)

    report = with_remote(dyed(tape), talk)
    assert seen == [1, 1, 7, 2, 8, 3, 9]
    values = [shown.low for shown in pictures(tape)]
    assert values == sorted(values)  # never back to a former value
    assert set(values) == {1, 7, 8, 9}
    assert [(c.path, c.generation) for c in report.changes] == [
        ("dye.value", 1),
        ("dye.value", 2),
        ("dye.value", 3),
    ]
    for change in report.changes:
        assert change.first_frame_ms["out"] is not None
        assert change.first_frame_ms["out"] > 0


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("dye.value", 256, "at most 255"),
        ("dye.value", "red", "whole number"),
        ("dye.value", 13, "bad luck"),
        ("dye.fixed", 1, "cannot change while the graph runs; value can"),
        ("dye.valu", 1, "did you mean 'value'"),
        ("die.value", 1, "unknown node 'die'"),
        ("dye", 1, "NODE.KEY"),
    ],
)
def test_a_change_that_cannot_be_leaves_the_former_value(
    tmp_path: Path, path: str, value: Any, said: str
) -> None:
    def talk(remote: Remote) -> None:
        with pytest.raises(StreamerError, match=said):
            remote.set(path, value)
        assert remote.get("dye.value") == 5

    report = with_remote(dyed(tmp_path / "tape", value=5), talk)
    assert report.changes == []
    assert {shown.low for shown in pictures(tmp_path / "tape")} == {5}


def test_a_restarted_node_keeps_the_changed_value(tmp_path: Path) -> None:
    tape = tmp_path / "tape"

    def talk(remote: Remote) -> None:
        remote.set("dye.value", 77)
        assert kill("dye")
        while remote.report()["nodes"]["dye"]["restarts"] == 0:
            time.sleep(0.01)
        before = len(pictures(tape))
        while len(pictures(tape)) < before + 5:
            time.sleep(0.01)

    report = with_remote(dyed(tape), talk)
    assert report.nodes["dye"].restarts == 1
    values = [shown.low for shown in pictures(tape)]
    assert values == sorted(values)
    assert values[-1] == 77


def test_the_interim_report_adds_up_with_what_is_in_flight(tmp_path: Path) -> None:
    reports: list[dict[str, Any]] = []

    def talk(remote: Remote) -> None:
        for _ in range(20):
            reports.append(remote.report())

    with_remote(dyed(tmp_path / "tape"), talk)
    for report in reports:
        sink = report["sinks"]["out"]
        assert sink["captured"] == sink["delivered"] + sum(sink["dropped"].values())
        assert "unaccounted" not in sink["dropped"]


def test_a_run_that_is_not_there_cannot_be_asked() -> None:
    with pytest.raises(ParameterError, match="no graph"):
        choose("a-graph-that-nobody-runs")
