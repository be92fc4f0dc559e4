"""`streamer run`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    graph: Annotated[Path, typer.Argument(metavar="GRAPH", help="Graph file (YAML).")],
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NODE.KEY=VALUE", help="Override a parameter; may be repeated."
        ),
    ] = None,
    frames: Annotated[
        int | None, typer.Option(min=1, help="Every source ends after so many frames.")
    ] = None,
    duration: Annotated[
        float | None,
        typer.Option(min=0.001, metavar="SECONDS", help="End so long after the first frame."),
    ] = None,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE.json", help="Write what was done as JSON.")
    ] = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print only what went wrong.")
    ] = False,
) -> None:
    """Run a graph until its sources end, or until Ctrl-C."""
    from streamer.cli.running import execute
    from streamer.graph import Graph

    loaded = Graph.load(graph, overrides=set_ or [])
    raise typer.Exit(execute(loaded, frames=frames, duration=duration, report=report, quiet=quiet))
