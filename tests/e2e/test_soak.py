"""Five minutes of a live show: nothing grows, nothing is lost in the count."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import soaking
from rtsp_rig import needs_server


def course(**changes: Any) -> soaking.Course:
    """A course as a good run leaves it, with memory that wavers, and given changes by sample."""
    rng = random.Random(5)
    samples = [
        soaking.Sample(
            at=2.0 * n,
            rss={"style": 120 + rng.random() * 3, **_at(changes, "rss", n)},
            descriptors={"style": 20 + n % 2, **_at(changes, "descriptors", n)},
            pids={"style": 7, **_at(changes, "pids", n)},
            age_ms=60 + rng.random() * 10 + changes.get("age", lambda n: 0)(n),
            received=n * 60,
        )
        for n in range(150)
    ]
    report = {"exit_status": 0, "errors": [], "nodes": {"camera": {"reconnects": 3}}}
    return soaking.Course(samples=samples, report=report, camera_restarts=3)


def _at(changes: dict[str, Any], name: str, number: int) -> dict[str, Any]:
    return {"style": changes[name](number)} if name in changes else {}


def test_a_good_course_has_nothing_to_complain_of() -> None:
    assert soaking.complaints(course()) == []


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"rss": lambda n: 120 + n * 0.2}, "memory of style grew"),
        ({"descriptors": lambda n: 20 + n // 20}, "descriptors of style grew"),
        ({"age": lambda n: n * 0.5}, "age grew"),
        ({"pids": lambda n: 7 + n // 100}, "style was started again"),
    ],
)
def test_whatever_grows_is_found(changes: dict[str, Any], complaint: str) -> None:
    (found,) = soaking.complaints(course(**changes))
    assert complaint in found


def test_a_single_peak_is_no_growth() -> None:
    times = [float(n) for n in range(100)]
    assert soaking.growth([100.0] * 99 + [900.0], times) == 0.0
    assert soaking.growth([100 + n * 0.1 for n in range(100)], times) == pytest.approx(9.9)


@pytest.mark.alone
@needs_server
def test_five_minutes_of_a_show_leave_everything_flat(tmp_path: Path) -> None:
    seen = soaking.soak(tmp_path, seconds=300, camera_every=45)
    assert soaking.complaints(seen) == []
    assert seen.camera_restarts >= 6
    assert seen.changes >= 30
    assert seen.viewers >= 50
    assert seen.report["nodes"]["page"]["viewers_most"] >= 1
    # How many pictures a second these cores can paint is no test's affair.
    assert seen.report["sinks"]["udp"]["delivered"] > 300 * 30 * 0.1
