"""The application that Typer makes of the commands; of a command's module only the called one's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Annotated, Any

import typer

from streamer import __version__, cli
from streamer.errors import StreamerError


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
    for item in cli.COMMANDS:
        function = _load(item) if item.name == called else _placeholder
        if isinstance(function, typer.Typer):
            app.add_typer(function, name=item.name, short_help=item.help)
            continue
        text = None if item.name == called and function.__doc__ else item.help
        app.command(item.name, help=text, short_help=item.help, rich_help_panel=item.panel)(
            function
        )
    if called is None or all(item.name != called for item in cli.COMMANDS):
        # Looking for what is installed takes time, and built-in commands win anyway.
        _add_installed(app, called)
    return app


def _add_installed(app: typer.Typer, called: str | None) -> None:
    from streamer import plugins

    for name, point in plugins.points(plugins.COMMANDS).items():
        if any(item.name == name for item in cli.COMMANDS):
            continue
        if name == called:
            app.command(name)(plugins.load(point))
        else:
            app.command(name, help=plugins.summary(point), rich_help_panel="More")(_placeholder)


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


def _load(item: cli.Command) -> Callable[..., Any] | typer.Typer:
    try:
        module, _, attribute = item.module.partition(":")
        function: Callable[..., Any] | typer.Typer
        function = getattr(import_module(module), attribute or "command")
    except (ImportError, AttributeError) as error:
        raise StreamerError(f"the command {item.name!r} cannot be loaded: {error}") from error
    return function
