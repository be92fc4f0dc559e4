"""`streamer nodes`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streamer.masking import mask

if TYPE_CHECKING:
    from streamer.nodebase import Node


def command(
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="A kind, or package.module:Class; all without."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the kinds of nodes that are installed, or one kind's parameters.

    Each parameter with its type, default, unit, range and meaning.
    """
    if name is None:
        _print_all(as_json)
    else:
        _print_one(name, as_json)


def _print_all(as_json: bool) -> None:
    from streamer.errors import StreamerError
    from streamer.graph.draft import load_kind
    from streamer.registry import kinds

    found: dict[str, dict[str, Any]] = {}
    for kind, entry in kinds().items():
        try:
            found[kind] = {**_about(load_kind(kind)), "entry": entry}
        except StreamerError as error:
            found[kind] = {"entry": entry, "error": mask(str(error))}
    if as_json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    table.add_column("kind", style="bold", no_wrap=True)
    table.add_column("role", no_wrap=True)
    table.add_column("what it does")
    for kind, about in found.items():
        said = about.get("description") or f"cannot be loaded: {about.get('error')}"
        table.add_row(kind, about.get("role", "?"), _plain(said))
    console = Console()
    console.print(table)
    console.print("\n[dim]streamer nodes NAME tells a kind's parameters[/dim]", highlight=False)


def _print_one(name: str, as_json: bool) -> None:
    from streamer.graph.draft import load_kind
    from streamer.graph.parameters import parameters

    node_class = load_kind(name)
    about, listed = _about(node_class), parameters(node_class)
    if as_json:
        shown = [
            {
                "name": item.name,
                "type": item.type,
                "required": item.required,
                **({} if item.required else {"default": item.default}),
                "unit": item.unit,
                "range": item.range,
                "live": item.live,
                "description": item.description,
            }
            for item in listed
        ]
        whole = {"name": name, **about, "parameters": shown}
        print(json.dumps(whole, indent=2, ensure_ascii=False))
        return
    from rich.console import Console
    from rich.table import Table

    console = Console()
    console.print(f"[bold]{name}[/bold] ({about['role']})  {_plain(about['description'])}")
    if about["accepts"]:
        console.print(f"takes {', '.join(about['accepts'])}", highlight=False)
    if about["emits"]:
        console.print(f"makes {', '.join(about['emits'])}", highlight=False)
    if not listed:
        console.print("\nno parameters")
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("parameter", style="bold", no_wrap=True)
    table.add_column("value", max_width=16 if console.width < 100 else 24, overflow="fold")
    table.add_column("default", max_width=12, overflow="fold")
    table.add_column("meaning", overflow="fold")
    for item in listed:
        default = "required" if item.required else item.shown_default
        name = f"{item.name} *" if item.live else item.name
        table.add_row(name, *map(_plain, (item.value, default, item.description)))
    console.print()
    console.print(table)
    if any(item.live for item in listed):
        console.print("\n* can change while the graph runs: streamer set NODE.KEY=VALUE")


def _about(node_class: type[Node[Any]]) -> dict[str, Any]:
    from streamer.graph.draft import role_of
    from streamer.graph.schema import description, emits

    return {
        "role": role_of(node_class) or "?",
        "description": description(node_class),
        "accepts": list(node_class.accepts),
        "emits": list(emits(node_class)),
    }


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)
