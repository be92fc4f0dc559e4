"""The command line. Commands are modules that are imported when they are called.

A command is a line in `COMMANDS` and a module with a function `command` whose parameters are
annotated for Typer, or with a `typer.Typer` of that name for a command of several parts. Other
packages add theirs as `streamer.plugins` says.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Annotated, Any, Final, NamedTuple

import typer

from streamer import __version__
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
    Command("bench", "streamer.cli.bench", "Measure links and models.", "Machine"),
)
"""All commands, in the order of the help."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command line and returns its exit status; errors go to stderr as one line each.

    Args:
        arguments: without the program's name; those of the process by default.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    # A node in the current folder can be named without being installed; installed ones win.
    if (here := os.getcwd()) not in sys.path:
        sys.path.append(here)
    try:
        application(given)(given, prog_name="streamer")
    except SystemExit as exit:
        return exit.code if isinstance(exit.code, int) else int(exit.code is not None)
    except StreamerError as error:
        _debug()
        complain(error)
        return error.exit_status
    except BrokenPipeError:
        # Whoever read our output has gone (`streamer nodes | head`).
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        _debug()
        said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        print(
            f"streamer: error: a defect of streamer: {mask(said)} "
            "(STREAMER_DEBUG=1 shows where it happened)",
            file=sys.stderr,
        )
        return 1
    return 0


def complain(error: StreamerError) -> None:
    """Prints an error to stderr; the mistakes of a graph file each in a line of its own."""
    if isinstance(error, GraphError) and len(error.problems) > 1:
        print(f"streamer: error: {len(error.problems)} mistakes", file=sys.stderr)
        print(mask(str(error)), file=sys.stderr)
    else:
        print(f"streamer: error: {mask(str(error))}", file=sys.stderr)


def application(arguments: Sequence[str]) -> typer.Typer:
    """The application with the one command loaded that the arguments call; the rest are names."""
    called = next((item for item in arguments if not item.startswith("-")), None)
    app = typer.Typer(
        name="streamer",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="markdown",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    for item in COMMANDS:
        function = _load(item) if item.name == called else _placeholder
        if isinstance(function, typer.Typer):
            app.add_typer(function, name=item.name, short_help=item.help)
            continue
        text = None if item.name == called and function.__doc__ else item.help
        app.command(item.name, help=text, short_help=item.help, rich_help_panel=item.panel)(
            function
        )
    if called is None or all(item.name != called for item in COMMANDS):
        # Looking for what is installed takes time, and built-in commands win anyway.
        _add_installed(app, called)
    return app


def _add_installed(app: typer.Typer, called: str | None) -> None:
    from streamer import plugins

    for name, point in plugins.points(plugins.COMMANDS).items():
        if any(item.name == name for item in COMMANDS):
            continue
        if name == called:
            app.command(name)(plugins.load(point))
        else:
            app.command(name, help=plugins.summary(point), rich_help_panel="Models")(_placeholder)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"streamer {__version__}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", "-V", help="Print the version.", is_eager=True, callback=_print_version
        ),
    ] = False,
) -> None:
    """Live video in, every frame restyled by a one-step diffusion model, live video out.

    Try `streamer style demo: out.mp4`, or write a graph: `streamer check`
    tells every mistake in it, `streamer run` runs it.
    """


def _placeholder() -> None:
    raise AssertionError("never called: only the command that is asked for runs")


def _load(item: Command) -> Callable[..., Any] | typer.Typer:
    try:
        module, _, attribute = item.module.partition(":")
        function: Callable[..., Any] | typer.Typer
        function = getattr(import_module(module), attribute or "command")
    except (ImportError, AttributeError) as error:
        raise StreamerError(f"the command {item.name!r} cannot be loaded: {error}") from error
    return function


def _debug() -> None:
    if os.environ.get("STREAMER_DEBUG", "") not in ("", "0"):
        import traceback

        # Not raised again: nobody would mask what the values in it hold.
        sys.stderr.write(mask(traceback.format_exc()))
