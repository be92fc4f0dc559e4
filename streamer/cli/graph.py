"""`streamer graph`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from streamer.cli.options import GraphFile, Overrides


class Format(StrEnum):
    """What a graph can be drawn as."""

    TEXT = "text"
    MERMAID = "mermaid"
    SVG = "svg"


def command(
    graph: GraphFile,
    format_: Annotated[
        Format, typer.Option("--format", "-f", help="What to draw it as.")
    ] = Format.TEXT,
    set_: Overrides = None,
) -> None:
    """Draw a graph: nodes, links with their policies, and workers.

    As text for the terminal, as a Mermaid flowchart for Markdown, or as an SVG picture.
    """
    from streamer.graph import Graph
    from streamer.graph.render import mermaid, text
    from streamer.graph.svg import svg

    draw = {Format.TEXT: text, Format.MERMAID: mermaid, Format.SVG: svg}[format_]
    print(draw(Graph.load(graph, overrides=set_ or []).plan()))
