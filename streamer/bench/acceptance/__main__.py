"""`python -m streamer.bench.acceptance`: tests first, then the goals, then one table."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from streamer import gpu
from streamer.bench.acceptance import machine, measuring, requirements, selftests
from streamer.bench.acceptance.goals import Conditions, Goal, Row, collect
from streamer.errors import StreamerError

_BUDGET: Final = 530.0
"""seconds that all of it may take: under nine minutes"""
_TESTS: Final = 240.0
"""seconds of those for tests, where goals are measured after them"""
_TESTS_NAME: Final = "tests"


def main(words: Sequence[str] | None = None) -> int:
    """Runs the acceptance.

    Args:
        words: of the command line; those of the process by default.

    Returns:
        The exit status: 0 if nothing failed or was missed, 1 if something was, 2 if it cannot run.
    """
    began = time.monotonic()
    told = _parser().parse_args(words)
    if missing := requirements.missing(fake=told.fake):
        print("gpu_acceptance cannot run here; missing:", file=sys.stderr)
        for line in missing:
            print(f"  - {line}", file=sys.stderr)
        return 2
    try:
        groups = _chosen(collect(), told.only)
    except StreamerError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if told.list:
        for goal in (goal for goals in groups.values() for goal in goals):
            print(f"{goal.name:<22} {goal.text}")
        return 0
    with tempfile.TemporaryDirectory(prefix="streamer-gpu-") as folder:
        if told.fake:
            from streamer.gpu import simulated

            os.environ[gpu.SIMULATED] = str(simulated.make(Path(folder) / "gpu"))
        logs = Path(folder) if told.logs is None else told.logs
        logs.mkdir(parents=True, exist_ok=True)
        about = machine.describe(fake=told.fake)
        for name, text in about.items():
            print(f"{name:<9}{text}", flush=True)
        tested = None
        if not told.only or _TESTS_NAME in told.only:
            seconds = _TESTS if groups else began + _BUDGET - time.monotonic()
            tested = selftests.run(fake=told.fake, seconds=seconds, log=logs / "tests.log")
            print(f"tests    {tested.said}", flush=True)
            if not tested.passed:
                print(tested.output)
        rows: list[Row] = []

        def done(row: Row) -> None:
            print(f"{row.name:<22} {row.verdict}: {row.measured} ({row.took:.0f} s)", flush=True)
            rows.append(row)
            save()

        def save() -> None:
            """Writes what is known by now: whoever runs this may end it before its end."""
            if told.json is not None:
                result: dict[str, Any] = {
                    **about,
                    "tests": None if tested is None else tested.said,
                    "seconds": round(time.monotonic() - began, 1),
                    "goals": [row.to_dict() for row in rows],
                }
                told.json.write_text(json.dumps(result, indent=2) + "\n")

        save()
        conditions = Conditions(told.fake, Path(folder))
        for name, goals in groups.items():
            measuring.measure(name, goals, conditions, until=began + _BUDGET, done=done, logs=logs)
        wrong = simulated.violations(Path(folder) / "gpu") if told.fake else []
    print()
    print_table(rows)
    took = time.monotonic() - began
    print(f"\ntook {took:.0f} s")
    for line in wrong:
        print(f"wrong on the simulated GPU: {line}", file=sys.stderr)
    bad = [row for row in rows if row.verdict in ("missed", "failed")]
    return 1 if bad or wrong or not (tested is None or tested.passed) else 0


def print_table(rows: Sequence[Row]) -> None:
    """Prints rows as a table of Markdown."""
    table = [("goal", "measured", "verdict"), *((r.goal, r.measured, r.verdict) for r in rows)]
    widths = [max(len(row[column]) for row in table) for column in range(3)]
    for number, row in enumerate(table):
        cells = (text.ljust(width) for text, width in zip(row, widths, strict=True))
        print("| " + " | ".join(cells) + " |")
        if not number:
            print("|" + "|".join("-" * (width + 2) for width in widths) + "|")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/gpu_acceptance",
        description="What a GPU has to prove: tests, then measurements, then a table of goals.",
    )
    parser.add_argument(
        "--fake", action="store_true", help="run what can run without a GPU, with few frames"
    )
    parser.add_argument(
        "--only", action="append", metavar="NAME", help="this goal, or tests; may be repeated"
    )
    parser.add_argument("--list", action="store_true", help="print the names of the goals")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument(
        "--logs", type=Path, metavar="DIR", help="keep there what tests and goals say"
    )
    return parser


def _chosen(
    groups: dict[str, Sequence[Goal]], only: Sequence[str] | None
) -> dict[str, Sequence[Goal]]:
    if not only:
        return groups
    known = [_TESTS_NAME, *(goal.name for goals in groups.values() for goal in goals)]
    for name in only:
        if name not in known:
            raise StreamerError(f"--only {name}: no such goal; known are {', '.join(known)}")
    chosen = {key: [g for g in goals if g.name in only] for key, goals in groups.items()}
    return {key: goals for key, goals in chosen.items() if goals}


if __name__ == "__main__":
    sys.exit(main())
