"""Running a graph for a person: signals, display, report file, closing words, exit status."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from streamer.errors import ParameterError
from streamer.graph import Graph


def execute(
    graph: Graph,
    *,
    frames: int | None = None,
    duration: float | None = None,
    report: Path | None = None,
    quiet: bool = False,
) -> int:
    """Runs a graph and returns the exit status.

    Args:
        graph: checked.
        frames: sources end after so many pictures.
        duration: drain after so many seconds.
        report: JSON file to write.
        quiet: print only what went wrong.

    Raises:
        GraphError: the graph cannot be planned.
        ParameterError: the report cannot be written where it shall be.
    """
    plan = graph.plan(frames=frames)
    if report is not None:
        _writable(report)

    from rich.console import Console

    from streamer.cli.live import PlainDisplay, TerminalDisplay
    from streamer.runtime.supervisor import Supervisor

    console = Console(stderr=True)
    debug = os.environ.get("STREAMER_DEBUG") == "1"
    display = (
        TerminalDisplay(console)
        if console.is_terminal and not quiet
        else PlainDisplay(console, quiet=quiet)
    )
    supervisor = Supervisor(plan, display, duration=duration, debug=debug)
    with _interrupts(supervisor.interrupt), display:
        result = supervisor.run()
    if report is not None:
        _write(report, json.dumps(result.to_dict(), indent=2) + "\n")
    for error in result.errors:
        console.print(f"streamer: error: {error}", highlight=False, markup=False, soft_wrap=True)
    if not quiet:
        for name, sink in result.sinks.items():
            drops = ", ".join(f"{count} {reason}" for reason, count in sink.dropped.items())
            age = sink.age_ms["p50"]
            console.print(
                f"{name}: {sink.delivered} of {sink.captured} frames in {result.seconds:.1f} s, "
                f"{sink.fps:.1f} fps"
                + (f", age {age:.0f} ms" if age is not None else "")
                + (f", dropped: {drops}" if drops else ""),
                highlight=False,
                markup=False,
                soft_wrap=True,
            )
    return result.exit_status


@contextmanager
def _interrupts(interrupt: Callable[[], None]) -> Iterator[None]:
    """Ctrl-C and SIGTERM go to the supervisor while the run lasts."""

    def handler(number: int, frame: FrameType | None) -> None:

        interrupt()

    former = {name: signal.signal(name, handler) for name in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for name, before in former.items():
            signal.signal(name, before)


def _writable(path: Path) -> None:
    if path.is_dir():
        raise ParameterError(f"--report {path}: is a directory, not a file")
    if not path.parent.is_dir():
        raise ParameterError(f"--report {path}: there is no directory {path.parent}")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise ParameterError(f"--report {path}: no permission to write there")


def _write(path: Path, text: str) -> None:
    """Writes a file whole or not at all."""
    if not path.exists() or path.is_file():
        part = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            part.write_text(text, encoding="utf-8")
            part.replace(path)
        except OSError as error:
            part.unlink(missing_ok=True)
            print(f"streamer: error: --report {path}: {error.strerror}", file=sys.stderr)
    else:
        path.write_text(text, encoding="utf-8")  # a device or a pipe
