"""`streamer run`."""

from __future__ import annotations

import typer

from streamer.cli.options import Duration, Frames, GraphFile, Overrides, Quiet, ReportFile


def command(
    graph: GraphFile,
    set_: Overrides = None,
    frames: Frames = None,
    duration: Duration = None,
    report: ReportFile = None,
    quiet: Quiet = False,
) -> None:
    """Run a graph until its sources end, or until Ctrl-C."""
    from streamer.cli.running import execute
    from streamer.graph import Graph

    loaded = Graph.load(graph, overrides=set_ or [])
    raise typer.Exit(execute(loaded, frames=frames, duration=duration, report=report, quiet=quiet))
