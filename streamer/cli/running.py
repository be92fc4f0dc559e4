"""Running a graph for a person: signals, display, report file, closing words, exit status."""

from __future__ import annotations

import errno
import json
import os
import secrets
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Final

from streamer.errors import ParameterError
from streamer.graph import Graph
from streamer.graph.files import files_of

if TYPE_CHECKING:
    from streamer.runtime.supervisor import Supervisor

_IN_PLACE: Final = (errno.EACCES, errno.EBUSY, errno.EPERM, errno.EROFS)
"""what is said where a file can be written and not replaced: it is mounted, its folder not ours"""


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
        _writable(report, graph)

    from streamer.cli.live import LogConsole, PlainDisplay, TerminalDisplay, passed_on, say
    from streamer.runtime.supervisor import Supervisor

    console = LogConsole()
    debug = os.environ.get("STREAMER_DEBUG") == "1"
    display = (
        TerminalDisplay(console)
        if console.redraws and not quiet
        else PlainDisplay(console, quiet=quiet)
    )
    supervisor = Supervisor(plan, display, duration=duration, debug=debug)
    with _interrupts(supervisor), display:
        result = supervisor.run()
    status = result.exit_status
    for error in result.errors:
        say(console, f"streamer: error: {error}")
    if report is not None:
        try:
            _write(report, json.dumps(result.to_dict(), indent=2) + "\n")
        except OSError as error:
            say(console, f"streamer: error: --report {report}: {error.strerror}")
            status = max(status, 1)
    if not quiet:
        for name, sink in result.sinks.items():
            drops = ", ".join(f"{count} {reason}" for reason, count in sink.dropped.items())
            # Behind a file, pictures wait for each other: their age says nothing.
            age = sink.age_ms["p50"] if plan.node(name).live else None
            say(
                console,
                f"{name}: {sink.delivered} of {sink.captured} frames in {result.seconds:.1f} s, "
                f"{sink.fps:.1f} fps"
                + (f", age {age:.0f} ms" if age is not None else "")
                + (f", dropped: {drops}" if drops else "")
                + passed_on(result.nodes[name].passed),
            )
    console.settle()
    return status


@contextmanager
def _interrupts(supervisor: Supervisor) -> Iterator[None]:
    """Ctrl-C, SIGTERM and a closed terminal go to the supervisor while the run lasts."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        supervisor.interrupt()

    def hang_up(number: int, frame: FrameType | None) -> None:
        supervisor.hang_up()

    handlers = {signal.SIGINT: interrupt, signal.SIGTERM: interrupt, signal.SIGHUP: hang_up}
    if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:  # started by nohup
        del handlers[signal.SIGHUP]
    former = {name: signal.signal(name, handler) for name, handler in handlers.items()}
    try:
        yield
    finally:
        for name, before in former.items():
            signal.signal(name, before)


def _writable(path: Path, graph: Graph) -> None:
    if path.is_dir():
        raise ParameterError(f"--report {path}: is a directory, not a file")
    if not path.parent.is_dir():
        raise ParameterError(f"--report {path}: there is no directory {path.parent}")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise ParameterError(f"--report {path}: no permission to write there")
    mine = files_of(os.fspath(path))
    if mine & files_of(graph.file):
        raise ParameterError(f"--report {path}: is the graph file; choose another name")
    for node in graph.nodes.values():
        if mine & files_of(str(node.params.get("url", ""))):
            raise ParameterError(f"--report {path}: is the file of {node.name}; choose another")


def _write(path: Path, text: str) -> None:
    """Writes a file whole or not at all, as far as its folder lets it."""
    if path.is_symlink() or (path.exists() and not path.is_file()):
        path.write_text(text, encoding="utf-8")  # a device, a pipe, or what a link leads to
        return
    # Others who share the folder may have the same process id, in containers of their own.
    part = path.with_name(f".report.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    except OSError as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        if error.errno not in _IN_PLACE:
            raise
        path.write_text(text, encoding="utf-8")
