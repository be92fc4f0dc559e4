"""How nodes stand with the outside: on the board, to watchers, in reports and in the overview."""

from __future__ import annotations

from pathlib import Path

import pytest
from plans import Listener, chain, run

from streamer.runtime import Supervisor
from streamer.runtime.standing import Standings, away_ns, stand, status_of
from streamer.status import Status
from streamer.telemetry.board import Board, NodeBoard


def cells() -> NodeBoard:
    return Board(["camera"], []).nodes["camera"]


@pytest.mark.parametrize(
    ("said", "reconnects", "away"),
    [
        ([(0, "connecting"), (5, "live")], 0, 0),
        ([(0, "live"), (5, "stalled"), (8, "live")], 0, 3),
        ([(0, "live"), (5, "stalled"), (8, "reconnecting"), (20, "live")], 1, 15),
        ([(0, "live"), (5, "reconnecting"), (6, "reconnecting"), (9, "live")], 1, 4),
        ([(0, "live"), (5, "reconnecting"), (9, "live"), (12, "reconnecting")], 1, 4 + 8),
        ([(0, "live"), (5, "reconnecting"), (9, "failed")], 0, 15),
        ([(0, "connecting"), (5, "failed")], 0, 15),
        ([], 0, 0),
    ],
)
def test_time_away_and_returns_are_counted(
    said: list[tuple[int, str]], reconnects: int, away: int
) -> None:
    board = cells()
    for at, status in said:
        stand(board, Status(status), at * 10**9)
    assert board.reconnects.value == reconnects
    assert away_ns(board, 20 * 10**9) == away * 10**9
    assert status_of(board) == (said[-1][1] if said else None)


def test_a_source_that_comes_and_goes_is_told_everywhere(tmp_path: Path) -> None:
    seen: list[dict[str, object]] = []

    def on_tick(supervisor: Supervisor) -> None:
        seen.append(supervisor.status()["nodes"]["src"])

    listener = Listener(on_tick=on_tick)
    made = chain(tmp_path / "tape", live=True, src_count=60, src_fps=20, src_standing=True)
    report = run(made, listener)
    source = report.nodes["src"]
    assert (source.status, source.reconnects, source.mended) == ("live", 1, 3)
    assert source.away_seconds is not None
    assert 0.5 < source.away_seconds < report.seconds
    assert [(node, str(standing)) for node, standing in listener.standings] == [
        ("src", "connecting"),
        ("src", "live"),
        ("src", "stalled: nothing has come for a while"),
        ("src", "reconnecting: rtsp://***@cam is refused"),
        ("src", "live"),
        ("src", "stalled: nothing has come for a while"),
        ("src", "live"),
    ]
    away = [node for node in seen if node.get("status") in ("reconnecting", "stalled")]
    assert away
    assert all(node["state"] == "running" and node["status_seconds"] is not None for node in away)
    assert any(node.get("reconnects") == 1 for node in seen)
    # What does not apply is not there.
    nodes = report.to_dict()["nodes"]
    assert nodes["src"].keys() >= {"status", "reconnects", "away_seconds", "mended"}
    assert nodes["work"].keys().isdisjoint({"status", "mended", "filled", "viewers"})
    assert nodes["out"]["filled"] == 0
    assert "viewers" not in nodes["out"]


def test_a_source_whose_process_died_is_reconnecting_until_it_is_back(tmp_path: Path) -> None:
    seen: set[tuple[str, str]] = set()

    def on_tick(supervisor: Supervisor) -> None:
        node = supervisor.status()["nodes"]["src"]
        seen.add((node["state"], str(node.get("status"))))

    made = chain(tmp_path / "t", live=True, src_count=40, src_kill_at=30, src_standing=True)
    report = run(made, Listener(on_tick=on_tick))
    source = report.nodes["src"]
    assert ("restarting", "reconnecting") in seen
    # Once as it said itself, in each life, and once from the death of the first to the second.
    assert (source.status, source.reconnects) == ("live", 3)


def test_a_source_that_is_given_up_has_failed(tmp_path: Path) -> None:
    made = chain(
        tmp_path / "t", live=True, src_count=40, src_kill_at=30, src_standing=True, src_restarts=0
    )
    report = run(made)
    assert report.exit_status == 1
    assert report.nodes["src"].status == "failed"
    assert report.nodes["src"].last_failure == "src was killed by SIGKILL"


def test_what_a_node_said_is_told_though_it_stands_otherwise_by_now() -> None:
    board, listener = cells(), Listener()
    standings = Standings({"camera": board}, listener)
    stand(board, Status.CONNECTING, 1)
    stand(board, Status.LIVE, 2)
    standings.hear("camera", "connecting", "to the door")
    standings.hear("camera", "live", "")
    assert [str(one) for _, one in listener.standings] == ["connecting: to the door", "live"]


def test_what_only_goes_on_being_counted_is_told_once() -> None:
    board, listener = cells(), Listener()
    standings = Standings({"camera": board}, listener)
    for text in ("refused", "refused (for 2 s)", "refused (for 3 s)", "busy (attempt 4)"):
        stand(board, Status.CONNECTING, 1)
        standings.hear("camera", "connecting", text)
    assert [str(standing) for _, standing in listener.standings] == [
        "connecting: refused",
        "connecting: busy (attempt 4)",
    ]
    standings.hear("camera", "connecting", "busy (attempt 5)")
    now = standings.of("camera")
    assert now is not None
    assert now.text == "busy (attempt 5)"
