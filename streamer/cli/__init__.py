"""The command line. Commands are modules that are imported when they are called.

A command is a line in `COMMANDS` and a module with a function `command` whose parameters are
annotated for Typer, or with a `typer.Typer` of that name for a command of several parts. Other
packages add theirs as `streamer.plugins` says.
"""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Final, NamedTuple

from streamer.errors import GraphError, StreamerError
from streamer.masking import mask


class Command(NamedTuple):
    """One command: its name, `module` or `module:attribute`, and its line in the help."""

    name: str
    module: str
    help: str
    panel: str


COMMANDS: Final = (
    Command("run", "streamer.cli.run", "Run a graph.", "Run"),
    Command("style", "streamer.cli.style", "Restyle a video without writing a graph.", "Run"),
    Command("get", "streamer.cli.parameters:get", "Print a parameter of a running graph.", "Run"),
    Command("set", "streamer.cli.parameters:set_", "Change one while it runs.", "Run"),
    Command("status", "streamer.cli.status", "List running graphs and their nodes.", "Run"),
    Command(
        "check", "streamer.cli.check", "Check a graph file and say what it comes to.", "Graphs"
    ),
    Command("graph", "streamer.cli.graph", "Draw a graph.", "Graphs"),
    Command("nodes", "streamer.cli.nodes", "List kinds of nodes and their parameters.", "Graphs"),
    Command("schema", "streamer.cli.schema", "Print the JSON Schema of graph files.", "Graphs"),
    Command("doctor", "streamer.cli.doctor", "Say what this machine can do, and lacks.", "Machine"),
    Command(
        "bench",
        "streamer.cli.bench",
        "Measure links, pipelines, models, stability and viewers.",
        "Machine",
    ),
)
"""All commands, in the order of the help."""


_UNWRITTEN: Final = (errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
"""what is said where a command's output cannot be written, and elsewhere"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command line and returns its exit status; errors go to stderr as one line each.

    Args:
        arguments: without the program's name; those of the process by default.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    # A node in the current folder can be named without being installed; installed ones win. The
    # folder may have been removed.
    with suppress(OSError):
        if (here := os.getcwd()) not in sys.path:
            sys.path.append(here)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # of what its encoding does not know
    try:
        with _interruptible():
            from streamer.cli.application import application

            app = application(given)
        app(given, prog_name="streamer")
    except SystemExit as exit:
        return _printed(exit.code if isinstance(exit.code, int) else int(exit.code is not None))
    except StreamerError as error:
        _debug()
        complain(error)
        return error.exit_status
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _UNWRITTEN and _printed(0, more="\n"):
            return 1
        _debug()
        said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        print(
            f"streamer: error: a defect of streamer: {mask(said)} "
            "(STREAMER_DEBUG=1 shows where it happened)",
            file=sys.stderr,
        )
        return 1
    return _printed(0)


def _printed(status: int, *, more: str = "") -> int:
    """The exit status of a command; 1 if what it has printed cannot be written.

    Args:
        status: otherwise.
        more: printed too: Python forgets what it could not write, so that only more of it tells.
    """
    try:
        sys.stdout.write(more)
        sys.stdout.flush()
    except OSError as error:
        # Nor will it be when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        # Whoever read our output may have gone (`streamer nodes | head`).
        if not isinstance(error, BrokenPipeError):
            print(f"streamer: error: standard output: {error.strerror}", file=sys.stderr)
        return status or 1
    return status


@contextmanager
def _interruptible() -> Iterator[None]:
    """Lets Ctrl-C end the program without a word while nothing but imports is under way.

    Afterwards it is an exception, also where the program was started by `streamer.__main__`.
    """
    python = signal.getsignal(signal.SIGINT) in (signal.default_int_handler, signal.SIG_DFL)
    if not python or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def complain(error: StreamerError) -> None:
    """Prints an error to stderr; the mistakes of a graph file each in a line of its own."""
    if isinstance(error, GraphError) and len(error.problems) > 1:
        print(f"streamer: error: {len(error.problems)} mistakes", file=sys.stderr)
        print(mask(str(error)), file=sys.stderr)
    else:
        print(f"streamer: error: {mask(str(error))}", file=sys.stderr)


def _debug() -> None:
    if os.environ.get("STREAMER_DEBUG", "") not in ("", "0"):
        import traceback

        # Not raised again: nobody would mask what the values in it hold.
        sys.stderr.write(mask(traceback.format_exc()))
