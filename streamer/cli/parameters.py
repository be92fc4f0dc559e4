"""`streamer get` and `streamer set`: parameters of a graph that runs."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer

Run = Annotated[
    str | None,
    typer.Option("--run", metavar="NAME|PID", help="Which run, where there are several."),
]


def get(
    path: Annotated[str, typer.Argument(metavar="NODE.KEY", help="As in style.prompt.")],
    run: Run = None,
) -> None:
    """Print a parameter of a graph that runs.

    Passwords and other secrets in it are shown as three stars, which standard error says.
    """
    from streamer.masking import MASK
    from streamer.runtime.remote import Remote, choose

    with Remote(choose(run)) as remote:
        value = remote.get(path)
    text = value if isinstance(value, str) else json.dumps(value)
    print(text)
    if MASK in text:
        said = f"streamer: {path}: {MASK} stands for a secret, which is never shown"
        print(said, file=sys.stderr)


def set_(
    assignment: Annotated[
        str, typer.Argument(metavar="NODE.KEY=VALUE", help="As in style.prompt=oil.")
    ],
    run: Run = None,
) -> None:
    """Change a parameter of a graph that runs, between two pictures."""
    from streamer.errors import ParameterError
    from streamer.runtime.remote import Remote, choose

    path, equals, text = assignment.partition("=")
    if not equals:
        raise ParameterError(f"write NODE.KEY=VALUE, as in style.prompt=oil, not {assignment!r}")
    value = _value(path, text)
    with Remote(choose(run)) as remote:
        remote.set(path.strip(), value)


def _value(path: str, text: str) -> Any:
    from streamer.errors import GraphError, Problem
    from streamer.graph.reading import read_value
    from streamer.graph.tree import Place

    problems: list[Problem] = []
    value = read_value(text, Place(f"set {path}"), problems.append)
    if problems:
        raise GraphError(problems)
    return value.plain()
