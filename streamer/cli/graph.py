"""`streamer graph`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Format(StrEnum):
    """What a graph can be drawn as."""

    TEXT = "text"
    MERMAID = "mermaid"
    SVG = "svg"


def command(
    graph: Annotated[Path, typer.Argument(metavar="GRAPH", help="Graph file (YAML).")],
    format_: Annotated[
        Format, typer.Option("--format", "-f", help="What to draw it as.")
    ] = Format.TEXT,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NODE.KEY=VALUE", help="Override a parameter; may be repeated."
        ),
    ] = None,
) -> None:
    """Draw a graph: nodes, links with their policies, and workers.

    As text for the terminal, as a Mermaid flowchart for Markdown, or as an SVG picture.
    """
    from streamer.graph import Graph
    from streamer.graph.render import mermaid, text
    from streamer.graph.svg import svg

    draw = {Format.TEXT: text, Format.MERMAID: mermaid, Format.SVG: svg}[format_]
    print(draw(Graph.load(graph, overrides=set_ or []).plan()))
