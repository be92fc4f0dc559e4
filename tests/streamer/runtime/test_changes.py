"""Parameters that change while a graph runs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zmq
from plans import Listener, kill, link, node, pictures, plan, run

from streamer.errors import ParameterError, StreamerError
from streamer.graph.plan import NodePlan, Plan, RestartPlan
from streamer.runtime import Supervisor
from streamer.runtime.changes import Changes
from streamer.runtime.clients import clients_endpoint, pack, unpack
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


def with_remote(
    made: Plan, talk: Callable[[Remote], None], *, listener: Listener | None = None
) -> Any:
    """Runs a plan while a client talks to it from another thread, then ends the run."""
    listener = listener or Listener()
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

    listener.on_state = on_state
    report = run(made, listener)
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


def test_a_change_in_a_branch_that_does_not_lead_is_seen_at_the_output(tmp_path: Path) -> None:
    tape = tmp_path / "tape"
    nodes = [
        node("src", "Ticks", live=True, fps=100, count=100_000),
        node("work", "Work", live=True),
        dye(),
        node("pair", "Pair", live=True),
        node("out", "Tape", live=True, path=str(tape)),
    ]
    links = [("src", "work"), ("src", "dye"), ("work", "pair"), ("dye", "pair"), ("pair", "out")]
    made = plan(
        nodes,
        [link(*ends, queue="latest", leading=ends != ("dye", "pair")) for ends in links],
    )

    def talk(remote: Remote) -> None:
        remote.set("dye.value", 255)
        # The other branch counts, and is as bright for a single picture at most.
        while [shown.high for shown in pictures(tape)[-3:]] != [255] * 3:
            time.sleep(0.01)

    (change,) = with_remote(made, talk).changes
    assert change.first_frame_ms["out"] is not None


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("dye.value", 256, "at most 255"),
        ("dye.value", "red", "whole number"),
        ("dye.value", 13, "bad luck"),
        ("dye.fixed", 1, "cannot change while the graph runs; value, other, deadly can"),
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

    listener = Listener()
    report = with_remote(dyed(tmp_path / "tape", value=5), talk, listener=listener)
    assert report.changes == []
    assert {shown.low for shown in pictures(tmp_path / "tape")} == {5}
    # What the node itself has tried stands in the run's log, too.
    logged = [event for event in listener.events if event.startswith(f"{path} stays as it was: ")]
    assert len(logged) == (value == 13)
    assert all(said in event for event in logged)


def answers_while_one_is_prepared(gate: Path, *asked: tuple[str, dict[str, Any]]) -> list[Any]:
    """Asks all at once, opens the gate when all have been heard, and returns the answers."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    with context, context.socket(zmq.DEALER) as socket:
        socket.connect(clients_endpoint(choose("test").folder))
        for kind, fields in asked:
            socket.send(pack(kind, **fields))
        # One socket's requests are heard in order, and this one is answered at once.
        socket.send(pack("get", path="dye.gate"))
        assert unpack(socket.recv()) == ("value", {"value": str(gate)})
        gate.touch()
        return [unpack(socket.recv()) for _ in asked]


def test_a_change_behind_a_refused_one_does_not_carry_its_value(tmp_path: Path) -> None:
    tape, gate = tmp_path / "tape", tmp_path / "gate"

    def talk(remote: Remote) -> None:
        bad, good = answers_while_one_is_prepared(
            gate,
            ("set", {"path": "dye.value", "value": 13}),
            ("set", {"path": "dye.other", "value": 5}),
        )
        assert bad == ("error", {"text": "13 brings bad luck", "exit_status": 2})
        assert (good[0], good[1]["value"]) == ("value", 5)
        assert (remote.get("dye.value"), remote.get("dye.other")) == (1, 5)
        before = len(pictures(tape))
        while len(pictures(tape)) < before + 5:
            time.sleep(0.01)

    report = with_remote(dyed(tape, gate=str(gate)), talk)
    assert [change.path for change in report.changes] == ["dye.other"]
    assert {shown.low for shown in pictures(tape)} == {1}


def test_a_value_is_told_only_once_it_is_taken(tmp_path: Path) -> None:
    gate = tmp_path / "gate"

    def talk(remote: Remote) -> None:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        with context, context.socket(zmq.DEALER) as socket:
            socket.connect(clients_endpoint(choose("test").folder))
            socket.send(pack("set", path="dye.value", value=9))
            socket.send(pack("get", path="dye.value"))
            assert unpack(socket.recv()) == ("value", {"value": 1})
            gate.touch()
            assert unpack(socket.recv())[1]["value"] == 9
            assert remote.get("dye.value") == 9

    with_remote(dyed(tmp_path / "tape", gate=str(gate)), talk)


def test_a_change_that_kills_is_not_tried_again(tmp_path: Path) -> None:
    gate = tmp_path / "gate"

    def talk(remote: Remote) -> None:
        deadly, after = answers_while_one_is_prepared(
            gate,
            ("set", {"path": "dye.deadly", "value": True}),
            ("set", {"path": "dye.value", "value": 7}),
        )
        assert deadly[0] == "error"
        assert "died before it had taken dye.deadly" in deadly[1]["text"]
        assert after[1]["value"] == 7  # by the next process
        assert remote.get("dye.deadly") is False

    report = with_remote(dyed(tmp_path / "tape", gate=str(gate)), talk)
    assert report.nodes["dye"].restarts == 1
    assert [change.path for change in report.changes] == ["dye.value"]


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


def test_parameters_are_told_although_they_are_not_valid_any_more(tmp_path: Path) -> None:
    tape, stick = tmp_path / "tape", tmp_path / "stick"
    stick.touch()

    def talk(remote: Remote) -> None:
        stick.unlink()
        assert (remote.get("dye.stick"), remote.get("dye.value")) == (str(stick), 1)
        with pytest.raises(StreamerError, match="FileNotFoundError"):
            remote.set("dye.value", 7)
        assert remote.get("dye.value") == 1
        before = len(pictures(tape))
        while len(pictures(tape)) < before + 5:
            time.sleep(0.01)
        stick.touch()
        remote.set("dye.value", 8)

    report = with_remote(dyed(tape, stick=str(stick)), talk)
    assert (report.exit_status, report.nodes["dye"].restarts) == (0, 0)
    assert [change.path for change in report.changes] == ["dye.value"]


def test_an_error_that_nobody_foresaw_is_an_answer_and_no_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> Any:
        raise RuntimeError("the stick was pulled")

    def talk(remote: Remote) -> None:
        with monkeypatch.context() as patch:
            patch.setattr("streamer.runtime.changes.current", fail)
            with pytest.raises(
                StreamerError, match=r"get dye.value cannot be answered: RuntimeError"
            ):
                remote.get("dye.value")
            with pytest.raises(StreamerError, match=r"dye.value has been set, but cannot be shown"):
                remote.set("dye.value", 7)
        with monkeypatch.context() as patch:
            patch.setattr("streamer.runtime.changes.changed", fail)
            with pytest.raises(
                StreamerError, match=r"set dye.value cannot be answered: RuntimeError"
            ):
                remote.set("dye.value", 9)
        assert remote.get("dye.value") == 7

    listener = Listener()
    report = with_remote(dyed(tmp_path / "tape"), talk, listener=listener)
    assert report.exit_status == 0
    assert sum("the stick was pulled" in event for event in listener.events) == 3


def two_chains(ending: Path, lasting: Path, *, count: int, **params: Any) -> Plan:
    """A dye whose source ends, and beside it in its worker a node whose source does not."""
    return plan(
        [
            node("brief", "Ticks", live=True, fps=100, count=count),
            dye(**params),
            node("done", "Tape", live=True, path=str(ending)),
            node("src", "Ticks", live=True, fps=100, count=100_000),
            node("work", "Work", live=True),
            node("out", "Tape", live=True, path=str(lasting)),
        ],
        [
            link("brief", "dye", queue="latest"),
            link("dye", "done", queue="latest"),
            link("src", "work", queue="latest"),
            link("work", "out", queue="latest"),
        ],
        together=("dye", "work"),
    )


@pytest.mark.parametrize("refuses", ["supervisor", "worker"])
def test_a_change_of_a_node_that_has_ended_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refuses: str
) -> None:
    lasting = tmp_path / "lasting"
    if refuses == "worker":  # as if the change had crossed the news of the end
        monkeypatch.setattr(Changes, "ended", lambda *_: None)

    def talk(remote: Remote) -> None:
        while remote.status()["nodes"]["dye"]["state"] != "finished":
            time.sleep(0.01)
        for value in (7, 8):
            with pytest.raises(StreamerError, match="has ended: it takes no more changes"):
                remote.set("dye.value", value)
        assert remote.get("dye.value") == 1
        before = len(pictures(lasting))
        while len(pictures(lasting)) < before + 5:
            time.sleep(0.01)

    report = with_remote(two_chains(tmp_path / "ending", lasting, count=20), talk)
    assert (report.exit_status, report.nodes["work"].restarts) == (0, 0)
    assert report.changes == []


def test_a_change_that_a_node_has_not_taken_when_it_ends_is_refused(tmp_path: Path) -> None:
    gate = tmp_path / "gate"

    def talk(remote: Remote) -> None:
        with pytest.raises(StreamerError, match="has ended"):
            remote.set("dye.value", 7)
        gate.touch()  # else the thread that prepares it would keep the process

    made = two_chains(tmp_path / "ending", tmp_path / "lasting", count=100, gate=str(gate))
    report = with_remote(made, talk)
    assert (report.exit_status, report.changes) == (0, [])


def test_a_report_lists_the_latest_changes_and_counts_them_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamer.runtime.changes.MOST_KEPT", 3)

    def talk(remote: Remote) -> None:
        for value in range(20, 25):
            remote.set("dye.value", value)

    listener = Listener()
    report = with_remote(dyed(tmp_path / "tape"), talk, listener=listener)
    assert [change.generation for change in report.changes] == [3, 4, 5]
    assert report.changes_made == 5
    assert listener.supervisor is not None
    for_display = listener.supervisor.report(changes=False)
    assert (for_display.changes, for_display.changes_made) == ([], 5)


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
