"""The process that measures the goals of one entry point, and the one that watches over it.

A process of its own: a goal that hangs, runs out of memory or ends its process costs its own row
and no other, and each group finds the GPU's memory empty.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, Final, TextIO

from streamer.bench.acceptance.goals import Conditions, Goal, Row, collect, judge
from streamer.errors import StreamerError

_MODULE: Final = "streamer.bench.acceptance.measuring"
_POLL: Final = 0.05


def measure(
    group: str,
    goals: Sequence[Goal],
    conditions: Conditions,
    *,
    until: float,
    done: Callable[[Row], None] = lambda row: None,
    logs: Path | None = None,
) -> list[Row]:
    """Measures goals of one entry point, in processes of their own.

    Args:
        group: name of the entry point.
        goals: some of it, in their order.
        conditions: under which they are measured.
        until: time of `time.monotonic` at which all must have ended; what has not been measured
            by then has failed.
        done: told of each row.
        logs: folder for what the processes say; that of the conditions by default.

    Returns:
        One row for each goal, in their order.
    """
    rows: list[Row] = []
    log = (logs or conditions.folder) / f"{group}.log"
    log.write_bytes(b"")
    while len(rows) < len(goals):
        left = goals[len(rows) :]
        for row in _some(group, left, conditions, until, log):
            rows.append(row)
            done(row)
    return rows


def _some(
    group: str, goals: Sequence[Goal], conditions: Conditions, until: float, log: Path
) -> Iterator[Row]:
    """Rows of the first goals, at least of one: until their process has to be ended."""
    if time.monotonic() >= until:
        yield from map(_too_late, goals)
        return
    path, said_before = conditions.folder / f"{group}.rows", log.stat().st_size
    path.unlink(missing_ok=True)
    path.touch()
    with log.open("ab") as output, path.open() as rows:
        process = _start(group, goals, conditions, path, output)
        try:
            for goal in goals:
                latest = min(until, time.monotonic() + goal.seconds)
                line = _next_line(rows, process, latest)
                if line is None:
                    said = log.read_bytes()[said_before:].decode(errors="replace")
                    yield _failed(goal, _why(process, goal, said, until))
                    return
                yield Row(**json.loads(line))
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _start(
    group: str, goals: Sequence[Goal], conditions: Conditions, path: Path, output: BinaryIO
) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", _MODULE, group, str(path), str(conditions.folder)]
    command += ["fake" if conditions.fake else "real", *(goal.name for goal in goals)]
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # so that what it starts can be ended with it
    )


def _next_line(rows: TextIO, process: subprocess.Popen[bytes], latest: float) -> str | None:
    line = ""
    while True:
        ended = process.poll() is not None
        line += rows.readline()
        if line.endswith("\n"):
            return line
        if ended or time.monotonic() > latest:
            return None
        time.sleep(_POLL)


def _why(process: subprocess.Popen[bytes], goal: Goal, said: str, until: float) -> str:
    status = process.poll()
    if status is None:
        if time.monotonic() > until:
            return "not done when the time for all goals was over"
        return f"not done within its {goal.seconds:g} s"
    lines = said.strip().splitlines() or ["it said nothing"]
    return f"its process ended with {status}: {lines[-1][:300]}"


def _too_late(goal: Goal) -> Row:
    row = _failed(goal, f"no time was left for it: --only {goal.name} measures it alone")
    return replace(row, verdict="not available") if goal.optional else row


def _failed(goal: Goal, why: str) -> Row:
    return Row(name=goal.name, goal=goal.text, measured=why, verdict="failed")


def main(group: str, path: str, folder: str, kind: str, *names: str) -> None:
    """Measures the named goals and appends each row to a file, as a line of JSON."""
    conditions = Conditions(fake=kind == "fake", folder=Path(folder))
    known = {goal.name: goal for goal in collect()[group]}
    with open(path, "a") as rows:
        for name in names:
            print(json.dumps(judge(known[name], conditions).to_dict()), file=rows, flush=True)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except StreamerError as error:
        sys.exit(f"error: {error}")
