"""Workers that die, killed from inside or outside: the stream goes on and the report adds up."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any, Literal

import pytest
from plans import Listener, chain, kill, link, node, others, pictures, plan, run

from streamer.runtime import Supervisor


@pytest.mark.parametrize("victim", ["src", "work", "out", "shared"])
def test_a_live_stream_survives_the_death_of_any_worker(tmp_path: Path, victim: str) -> None:
    tape = tmp_path / "tape"
    inside = "work" if victim == "shared" else victim
    params: dict[str, Any] = {"src_count": 300, f"{inside}_kill_at": 20}
    report = run(chain(tape, live=True, together=victim == "shared", **params))
    assert (report.exit_status, report.errors) == (0, [])
    dead = {"src", "work", "out"} if victim == "shared" else {victim}
    assert {name for name, entry in report.nodes.items() if entry.restarts} == dead
    shown = pictures(tape)
    assert [p.seq for p in shown] == sorted({p.seq for p in shown})
    assert [p.pts for p in shown] == sorted({p.pts for p in shown})
    sink = report.sinks["out"]
    # A source begins anew after its death, with the next number: 20 before it, and all 300 after.
    restarted = victim in ("src", "shared")
    assert sink.captured == 20 + 300 if victim == "src" else sink.captured >= 300 + restarted
    assert shown[-1].seq == sink.captured - 1
    assert sink.delivered <= len(shown) <= sink.delivered + 1  # written, and then not counted
    assert sink.dropped.keys() <= {"crashed", "replaced"}
    assert others(tape)[-1] == "end"


@pytest.mark.parametrize("victim", ["work", "out"])
def test_a_file_goes_on_after_the_death_of_a_worker(tmp_path: Path, victim: str) -> None:
    tape = tmp_path / "tape"
    report = run(chain(tape, src_count=100, **{f"{victim}_kill_at": 40}))
    assert (report.exit_status, report.errors) == (0, [])
    sink = report.sinks["out"]
    assert sink.captured == 100
    assert sink.dropped.keys() == {"crashed"}
    assert sink.dropped["crashed"] <= 12  # what the dead one held, and no more
    shown = pictures(tape)
    assert shown[-1].seq == 99
    assert [p.seq for p in shown][:40] == list(range(40)) if victim == "out" else True
    assert report.nodes[victim].restarts == 1


def test_a_file_is_not_read_again_from_its_beginning(tmp_path: Path) -> None:
    tape = tmp_path / "tape"
    report = run(chain(tape, src_count=100, src_kill_at=40, src_restarts=0))
    assert report.exit_status == 1
    assert report.errors == ["src was killed by SIGKILL"]
    assert report.sinks["out"].captured == 40
    assert others(tape) == ["open 1", "end"]


def test_a_node_that_dies_again_and_again_is_given_up(tmp_path: Path) -> None:
    good, bad = tmp_path / "good", tmp_path / "bad"
    report = run(
        plan(
            [
                node("src", "Ticks", live=True, count=10**6, fps=100),
                node("work", "Work", live=True, restarts=2, kill_at=5, kill_always=True),
                node("bad", "Tape", live=True, path=str(bad)),
                node("good", "Tape", live=True, path=str(good)),
            ],
            [
                link("src", "work", queue="latest"),
                link("work", "bad", queue="latest"),
                link("src", "good", queue="latest"),
            ],
        )
    )
    assert report.exit_status == 1
    assert report.errors == ["work was killed by SIGKILL"]
    assert report.nodes["work"].restarts == 2
    assert others(good)[-1] == others(bad)[-1] == "end"
    assert report.sinks["good"].dropped.keys() <= {"replaced"}


def test_a_node_that_may_not_be_restarted_ends_the_run(tmp_path: Path) -> None:
    report = run(chain(tmp_path / "tape", src_count=50, work_kill_at=10, work_restarts=0))
    assert report.exit_status == 1
    assert report.errors == ["work was killed by SIGKILL"]
    assert report.nodes["work"].restarts == 0
    assert others(tmp_path / "tape") == ["open 1", "end"]


def test_a_death_before_the_start_ends_the_run(tmp_path: Path) -> None:
    def on_state(_: Supervisor, name: str, state: str) -> None:
        if (name, state) == ("work", "opening"):
            kill("work")

    made = chain(tmp_path / "tape", src_count=50, work_open_seconds=20)
    report = run(made, Listener(on_state=on_state))
    assert report.exit_status == 1
    assert report.errors == ["work was killed by SIGKILL"]
    assert report.sinks["out"].captured == 0


@pytest.mark.parametrize(
    ("victim", "state"),
    [("src", "finished"), ("work", "finished"), ("out", "finished"), ("out", "running")],
)
def test_a_worker_killed_as_it_says_a_word(tmp_path: Path, victim: str, state: str) -> None:
    # `finished` is said before the end is handed on and before the process says that it is done.
    killed: list[str] = []

    def on_state(_: Supervisor, name: str, said: str) -> None:
        if (name, said) == (victim, state) and not killed and kill(victim):
            killed.append(victim)

    tape = tmp_path / "tape"
    report = run(chain(tape, src_count=60, src_fps=200), Listener(on_state=on_state))
    assert report.exit_status == 0
    assert report.sinks["out"].dropped.keys() <= {"crashed"}
    if state == "finished":
        assert report.nodes[victim].restarts == 0
        assert report.sinks["out"].captured == 60
    assert others(tape)[-1] == "end"


def test_a_source_that_has_finished_is_not_started_again_with_its_group(tmp_path: Path) -> None:
    killed: list[bool] = []

    def on_state(_: Supervisor, name: str, state: str) -> None:
        if (name, state) == ("src", "finished"):
            killed.append(kill("shared"))

    tape = tmp_path / "tape"
    made = plan(
        [
            node("src", "Ticks", live=True, count=8, fps=100),
            node("work", "Work", live=True, seconds=0.2),
            node("out", "Tape", live=True, path=str(tape)),
            node("other", "Tape", live=True, path=str(tmp_path / "other"), seconds=0.2),
        ],
        [link("src", "work", depth=8), link("work", "out"), link("src", "other", depth=8)],
        together=("src", "work"),
    )
    listener = Listener(on_state=on_state)
    report = run(made, listener)
    assert killed == [True]
    assert (report.exit_status, report.errors) == (0, [])
    assert listener.states.count(("src", "ready")) == 1
    assert listener.states.count(("work", "ready")) == 2
    # What it has sent to others is taken, though it is gone.
    assert report.sinks["other"].delivered > 4
    sink = report.sinks["out"]
    assert sink.captured == 8
    # What it had read and not handed on is lost; nothing is made a second time.
    assert sink.dropped.keys() == {"crashed"}
    assert [shown.seq for shown in pictures(tape)] == list(range(sink.delivered))
    assert others(tape)[-1] == "end"


def test_a_sink_killed_while_it_finishes_ends_properly_the_second_time(tmp_path: Path) -> None:
    tape = tmp_path / "tape"
    report = run(chain(tape, src_count=30, out_kill_at_end=True))
    assert report.sinks["out"].delivered == 30
    assert others(tape) == ["open 1", "open 2", "end"]
    assert report.exit_status == 0


def test_a_live_source_killed_after_its_last_picture(tmp_path: Path) -> None:
    report = run(chain(tmp_path / "tape", live=True, src_count=10, src_kill_at_end=True, frames=20))
    assert report.nodes["src"].restarts == 1
    assert report.sinks["out"].captured == 20  # the limit holds across its lives


def test_a_source_killed_at_the_limit_adds_nothing(tmp_path: Path) -> None:
    made = chain(tmp_path / "tape", live=True, src_count=10, src_kill_at_end=True, frames=10)
    assert run(made).sinks["out"].captured == 10


def test_a_sink_that_comes_back_after_all_others_ended_still_ends(tmp_path: Path) -> None:
    # Its producer is gone for good by then: it learns that while it is still opening.
    tape = tmp_path / "tape"
    report = run(
        plan(
            [
                node("src", "Ticks", count=4),
                node("out", "Tape", path=str(tape), kill_at=3, kill_after=0.5),
            ],
            [link("src", "out")],
        )
    )
    assert report.exit_status == 0
    assert others(tape) == ["open 1", "open 2", "end"]
    assert report.sinks["out"].captured == 4
    assert report.sinks["out"].dropped == {"crashed": 1}


def test_sound_goes_on_after_the_death_of_its_sink_or_source(tmp_path: Path) -> None:
    for victim in ("src", "out"):
        tape = tmp_path / victim
        made = plan(
            [
                node(
                    "src",
                    "Ticks",
                    live=True,
                    wants_audio=True,
                    count=200,
                    fps=100,
                    sound=True,
                    **({"kill_at": 10} if victim == "src" else {}),
                ),
                node(
                    "out",
                    "Tape",
                    live=True,
                    path=str(tape),
                    sound=True,
                    **({"kill_at": 10} if victim == "out" else {}),
                ),
            ],
            [
                link("src", "out", queue="latest"),
                link("src", "out", queue="latest", depth=256, media="audio"),
            ],
        )
        report = run(made)
        assert report.exit_status == 0
        lines = tape.read_text().splitlines()
        # Each life of the sink hears the announcement first, and once.
        assert lines.count("audio 0 0") == lines.count("open 1") + lines.count("open 2")
        for opened in (number for number, line in enumerate(lines) if line.startswith("open")):
            assert lines[opened + 1] == "audio 0 0"
        times = [int(line.split()[1]) for line in lines if line.endswith(" 1") and "audio" in line]
        assert times == sorted(set(times))
        assert len(times) > 100


@pytest.mark.parametrize(("seed", "queue"), [(1, "latest"), (2, "wait")])
def test_workers_killed_at_random_leave_a_report_that_adds_up(
    tmp_path: Path, seed: int, queue: Literal["latest", "wait"]
) -> None:
    dice = random.Random(seed)
    live = queue == "latest"
    names = ["src", "a", "b", "pair", "one", "two"]
    victims = names if live else names[1:]
    left = 8

    def on_tick(supervisor: Supervisor) -> None:
        nonlocal left
        if supervisor.running and left and dice.random() < 0.2:
            left -= kill(dice.choice(victims))

    report = run(
        plan(
            [
                node("src", "Ticks", live=live, count=80, fps=60),
                node("a", "Work", live=live, restarts=50, seconds=0.002),
                node("b", "Work", live=live, restarts=50, add=100, skip_every=7),
                node("pair", "Pair", live=live, restarts=50),
                node("one", "Tape", live=live, restarts=50, path=str(tmp_path / "one")),
                node("two", "Tape", live=live, restarts=50, path=str(tmp_path / "two")),
            ],
            [
                link("src", "a", queue=queue),
                link("src", "b", queue=queue),
                link("a", "pair", queue=queue),
                link("b", "pair", queue=queue, leading=False),
                link("pair", "one", queue=queue),
                link("b", "two", queue=queue),
            ],
        ),
        Listener(on_tick=on_tick),
    )
    assert report.exit_status in (0, 1)  # 1 where the last blow fell into the end of the run
    assert set(report.sinks) == {"one", "two"}
    for sink in report.sinks.values():
        assert sink.captured >= 80 if report.exit_status == 0 else True
        allowed = {"crashed", "replaced", "filtered", "unmatched", "consumer_gone", "failed"}
        assert sink.dropped.keys() <= allowed
