"""Goals: where they come from, their verdicts, and the processes that measure them."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from streamer.bench.acceptance import measuring
from streamer.bench.acceptance.goals import (
    Conditions,
    Goal,
    NotAvailable,
    Outcome,
    Row,
    collect,
    judge,
)
from streamer.errors import StreamerError

MODULE = """
import os, signal, sys, time
from streamer.bench.acceptance.goals import Goal, NotAvailable, Outcome

def good(conditions):
    print("this is said in between")
    return Outcome("all is well", None if conditions.fake else True, {"pid": os.getpid()})

def hang(conditions):
    time.sleep(1000)

def die(conditions):
    print("the driver is unhappy", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

def wrong(conditions):
    raise KeyError("kernel")

def child(conditions):
    import subprocess
    started = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
    (conditions.folder / "child").write_text(str(started.pid))
    os.kill(os.getpid(), signal.SIGKILL)

def goal(name, seconds=60.0):
    return Goal(name=name, text=f"goal {name}", seconds=seconds, measure=globals()[name])

GOALS = (goal("good"), goal("hang", 0.5), goal("die"), goal("child"), goal("wrong"))
TWICE = (goal("good"),)
"""


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the path with a package whose metadata names goals; entry points to write."""
    packages = tmp_path / "packages"
    info = packages / "made_goals-1.0.dist-info"
    info.mkdir(parents=True)
    (packages / "made_goals.py").write_text(MODULE)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: made-goals\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[streamer.goals]\nmade = made_goals:GOALS\n")
    monkeypatch.syspath_prepend(str(packages))
    monkeypatch.setenv("PYTHONPATH", str(packages))
    yield info / "entry_points.txt"
    sys.modules.pop("made_goals", None)


@pytest.fixture
def conditions(tmp_path: Path) -> Conditions:
    return Conditions(fake=False, folder=tmp_path)


def soon(seconds: float = 300.0) -> float:
    return time.monotonic() + seconds


def test_goals_come_by_entry_points_those_of_links_first(made: Path) -> None:
    groups = collect()
    first, *others = groups
    assert first == "link"
    assert others == sorted(others)
    assert {"link", "graph", "model", "made"} <= set(groups)
    assert [goal.name for goal in groups["made"]] == ["good", "hang", "die", "child", "wrong"]


def test_two_goals_of_one_name_are_refused(made: Path) -> None:
    made.write_text("[streamer.goals]\nmade = made_goals:GOALS\nother = made_goals:TWICE\n")
    with pytest.raises(StreamerError, match="more than one goal is called good"):
        collect()


def test_goals_that_cannot_be_loaded_are_named(made: Path) -> None:
    made.write_text("[streamer.goals]\nmade = made_goals:NONE\n")
    with pytest.raises(StreamerError, match="'made' cannot be loaded from made_goals:NONE"):
        collect()


@pytest.mark.parametrize(
    ("reached", "fake", "verdict"),
    [
        (True, False, "reached"),
        (False, False, "missed"),
        (None, False, "measured"),
        (True, True, "simulated"),
        (False, True, "simulated"),
        (None, True, "simulated"),
    ],
)
def test_verdicts(reached: bool | None, fake: bool, verdict: str, tmp_path: Path) -> None:
    goal = Goal(
        name="it", text="one", seconds=1, measure=lambda _: Outcome("5 ms", reached, {"ms": 5})
    )
    row = judge(goal, Conditions(fake=fake, folder=tmp_path))
    assert row.verdict == verdict
    assert row.measured == "5 ms" + (" (no GPU, no measure)" if fake else "")
    assert row.figures == {"ms": 5}
    assert Row(**row.to_dict()) == row


def test_what_is_not_there_and_what_goes_wrong_are_told_apart(conditions: Conditions) -> None:
    def absent(_: Conditions) -> Outcome:
        raise NotAvailable("torchao is not installed")

    def wrong(_: Conditions) -> Outcome:
        raise ZeroDivisionError("division by zero")

    rows = [
        judge(Goal(name="it", text="one", seconds=1, measure=measure), conditions)
        for measure in (absent, wrong)
    ]
    assert [(row.verdict, row.measured) for row in rows] == [
        ("not available", "torchao is not installed"),
        ("failed", "ZeroDivisionError: division by zero"),
    ]


def test_a_goal_that_hangs_or_dies_costs_its_own_row_alone(
    made: Path, conditions: Conditions
) -> None:
    first, hang, die, *_ = collect()["made"]
    told: list[Row] = []
    last = Goal(name="good", text="again", seconds=60, measure=first.measure)
    rows = measuring.measure("made", [hang, die, last], conditions, until=soon(), done=told.append)
    assert told == rows
    assert [(row.name, row.verdict) for row in rows] == [
        ("hang", "failed"), ("die", "failed"), ("good", "reached"),
    ]  # fmt: skip
    assert rows[0].measured == "not done within its 0.5 s"
    assert rows[1].measured == "its process ended with -9: the driver is unhappy"
    assert rows[2].measured == "all is well"


def test_what_processes_say_is_kept_with_the_stack_of_what_fails(
    made: Path, conditions: Conditions, tmp_path: Path
) -> None:
    good, _, die, _, wrong = collect()["made"]
    logs = tmp_path / "logs"
    logs.mkdir()
    rows = measuring.measure("made", [die, wrong, good], conditions, until=soon(), logs=logs)
    assert [row.verdict for row in rows] == ["failed", "failed", "reached"]
    assert rows[1].measured == "KeyError: 'kernel'"
    said = (logs / "made.log").read_text()
    for part in ("the driver is unhappy", 'in wrong\n    raise KeyError("kernel")', "in between"):
        assert part in said


def test_goals_of_one_entry_point_share_a_process(made: Path, conditions: Conditions) -> None:
    good = collect()["made"][0]
    rows = measuring.measure("made", [good, good], conditions, until=soon())
    assert rows[0].figures["pid"] == rows[1].figures["pid"]


def test_what_a_goal_has_started_ends_with_it(made: Path, conditions: Conditions) -> None:
    child = collect()["made"][3]
    (row,) = measuring.measure("made", [child], conditions, until=soon())
    assert row.verdict == "failed"
    pid = int((conditions.folder / "child").read_text())
    state = Path(f"/proc/{pid}/stat")
    until = soon(30)
    while state.exists() and state.read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < until
        time.sleep(0.01)


def test_when_the_time_is_over_what_is_left_has_failed(made: Path, conditions: Conditions) -> None:
    goals = collect()["made"][:2]
    more = replace(goals[0], name="more", optional=True)
    rows = measuring.measure("made", [*goals, more], conditions, until=soon(-1))
    assert [(row.verdict, row.measured) for row in rows] == [
        (verdict, f"no time was left for it: --only {name} measures it alone")
        for verdict, name in (
            ("failed", goals[0].name), ("failed", goals[1].name), ("not available", "more"),
        )
    ]  # fmt: skip
    slow = Goal(name="hang", text="", seconds=60, measure=goals[1].measure)
    (row,) = measuring.measure("made", [slow], conditions, until=soon(1))
    assert (row.verdict, row.measured) == (
        "failed", "not done when the time for all goals was over",
    )  # fmt: skip
