"""When a node is started again: quickly, after a rest, or never; and real nodes that rest."""

from __future__ import annotations

from pathlib import Path

import pytest
from plans import Listener, link, node, others, pictures, plan, run

from streamer.graph.plan import RestartPlan
from streamer.runtime import Supervisor
from streamer.runtime.restart import LONGEST_DELAY, LONGEST_REST, Breaker, Restart

ON_FAILURE = RestartPlan(policy="on-failure", max=3, window=60, rest=30)
ALWAYS = RestartPlan(policy="always", max=3, window=60, rest=30)
NEVER = RestartPlan(policy="never", max=3, window=60, rest=30)


def fail(
    breaker: Breaker, *policies: RestartPlan, now: float, worked: bool = True, quick: bool = True
) -> Restart | None:
    restart = breaker.next(policies, now=now, worked=worked, quick=quick)
    if restart is not None:
        breaker.chosen(restart, now=now)
    return restart


def test_never_means_never() -> None:
    assert fail(Breaker(), NEVER, now=0) is None
    assert fail(Breaker(), ALWAYS, NEVER, now=0) is None  # they share a process


def test_quick_restarts_double_their_pause_and_are_counted_within_a_window() -> None:
    breaker = Breaker()
    assert [fail(breaker, ON_FAILURE, now=10 * n) for n in range(3)] == [
        Restart(0.05),
        Restart(0.1),
        Restart(0.2),
    ]
    assert fail(breaker, ON_FAILURE, now=59.9) is None
    assert fail(breaker, ON_FAILURE, now=60.1) == Restart(0.2)  # the first one is forgotten
    assert fail(breaker, ON_FAILURE, now=1000) == Restart(0.05)


def test_the_pause_has_a_limit() -> None:
    many = RestartPlan(policy="on-failure", max=1000, window=60)
    breaker = Breaker(times=[0.0] * 900)
    assert fail(breaker, many, now=1) == Restart(LONGEST_DELAY)


def test_always_rests_longer_and_longer_and_is_never_given_up() -> None:
    breaker = Breaker()
    for now in range(3):
        quick = fail(breaker, ALWAYS, now=now)
        assert quick is not None
        assert not quick.rest
    rests, now = [], 3.0
    for _ in range(7):
        restart = fail(breaker, ALWAYS, now=now)
        assert restart is not None
        assert restart.rest
        rests.append(restart.delay)
        now += restart.delay + 1  # tried once, and dead a second later
    assert rests == [30, 60, 120, 240, 300, 300, 300]
    assert max(rests) == LONGEST_REST


def test_one_that_held_out_after_its_rest_starts_with_a_clean_slate() -> None:
    breaker = Breaker()
    for now in range(4):
        fail(breaker, ALWAYS, now=now)
    assert breaker.tried_at == 33
    assert fail(breaker, ALWAYS, now=92.9) == Restart(60, rest=True)  # it had not held out
    assert breaker.tried_at == pytest.approx(152.9)
    assert fail(breaker, ALWAYS, now=213) == Restart(0.05)
    assert breaker.rests == 0


def test_what_a_quick_start_cannot_mend_rests_at_once_or_is_given_up() -> None:
    assert fail(Breaker(), ALWAYS, now=0, quick=False) == Restart(30, rest=True)
    assert fail(Breaker(), ON_FAILURE, now=0, quick=False) is None


def test_one_that_never_worked_does_not_rest() -> None:
    breaker = Breaker()
    for now in range(3):
        assert fail(breaker, ALWAYS, now=now, worked=False) is not None
    assert fail(breaker, ALWAYS, now=3, worked=False) is None


def test_a_live_node_that_dies_again_and_again_rests_while_the_show_goes_on(tmp_path: Path) -> None:
    good, bad = tmp_path / "good", tmp_path / "bad"

    def on_tick(supervisor: Supervisor) -> None:
        if supervisor.report().nodes["work"].restarts >= 3:
            supervisor.hang_up()  # however often it is called

    listener = Listener(on_tick=on_tick)
    report = run(
        plan(
            [
                node("src", "Ticks", live=True, count=10**6, fps=100),
                node(
                    *("work", "Work"),
                    live=True,
                    policy="always",
                    restarts=2,
                    rest=0.6,
                    window=60,
                    raise_at=5,
                    raise_always=True,
                ),
                node("bad", "Tape", live=True, path=str(bad)),
                node("good", "Tape", live=True, path=str(good)),
            ],
            [
                link("src", "work", queue="latest"),
                link("work", "bad", queue="latest"),
                link("src", "good", queue="latest"),
            ],
        ),
        listener,
    )
    # Two quick restarts, and at least one after a rest; it rests when the run ends.
    assert report.nodes["work"].restarts >= 3
    assert any(state == ("work", "resting") for state in listener.states)
    assert any("trying again in" in event for event in listener.events)
    assert report.nodes["work"].last_failure == "work: RuntimeError: an error that nobody foresaw"
    assert report.exit_status in (0, 1)  # 1 where the end of the run found it resting
    assert len(pictures(good)) > 50
    assert others(good)[-1] == others(bad)[-1] == "end"
    assert report.sinks["good"].dropped.keys() <= {"replaced"}


def test_an_output_that_fails_for_good_is_tried_again_after_a_rest(tmp_path: Path) -> None:
    tape = tmp_path / "tape"
    listener = Listener()
    report = run(
        plan(
            [
                node("src", "Ticks", live=True, count=200, fps=100),
                node(
                    *("out", "Tape"),
                    live=True,
                    policy="always",
                    rest=0.5,
                    path=str(tape),
                    fail_at=20,
                    fail_lives=1,
                ),
            ],
            [link("src", "out", queue="latest")],
        ),
        listener,
    )
    assert (report.exit_status, report.errors) == (0, [])
    assert "out: the disk is full as asked; trying again in 0 s" in listener.events
    assert report.nodes["out"].restarts == 1
    assert others(tape) == ["open 1", "open 2", "end"]
    shown = [p.seq for p in pictures(tape)]
    assert shown[-1] == 199
    assert report.sinks["out"].dropped.keys() == {"crashed", "replaced"}


def test_an_output_that_never_worked_ends_the_run(tmp_path: Path) -> None:
    made = plan(
        [
            node("src", "Ticks", live=True, count=10**6, fps=100),
            node("out", "Tape", live=True, policy="always", path=str(tmp_path / "t"), fail_at=0),
        ],
        [link("src", "out", queue="latest")],
    )
    report = run(made)
    assert report.exit_status == 1
    assert report.errors == ["out: the disk is full as asked"]
    assert report.nodes["out"].restarts == 0
