"""`streamer style`: the four-node graph for people who want no YAML."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from streamer.cli.options import Duration, Frames, Quiet, ReportFile


def command(
    input: Annotated[
        str, typer.Argument(metavar="INPUT", help="File, camera or URL; `demo:` for a clip.")
    ],
    output: Annotated[str, typer.Argument(metavar="OUTPUT", help="File, device or URL.")],
    prompt: Annotated[
        str | None, typer.Option("--prompt", "-p", help="Style; see `streamer nodes sdxs`.")
    ] = None,
    size: Annotated[
        str, typer.Option(metavar="WxH", help="Size of the styled pictures in pixels.")
    ] = "256x256",
    fit: Annotated[str, typer.Option(help="How the picture fills it: cover, contain, stretch.")] = (
        "cover"
    ),
    model: Annotated[str, typer.Option(help="Model.")] = "bundled",
    scale: Annotated[
        float | None, typer.Option(help="Conditioning scale, 0 to 2.", show_default="1")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the noise.", show_default="0")] = None,
    frames: Frames = None,
    duration: Duration = None,
    report: ReportFile = None,
    quiet: Quiet = False,
) -> None:
    """Restyle a video, a camera or a stream: INPUT in, OUTPUT out, no graph file needed."""
    from streamer.cli.running import execute
    from streamer.graph import Graph

    style: dict[str, Any] = {"model": model}
    for key, value in (("prompt", prompt), ("conditioning_scale", scale), ("seed", seed)):
        if value is not None:
            style[key] = value
    graph = Graph.from_dict(
        {
            "version": 1,
            "name": "style",
            "nodes": {
                "source": {"uses": "decoder", "with": {"url": input}},
                "prepare": {
                    "uses": "preprocess",
                    "from": "source",
                    "with": {"size": size, "fit": fit},
                },
                "style": {"uses": "sdxs", "from": "prepare", "with": style},
                "sink": {"uses": "encoder", "from": "style", "with": {"url": output}},
            },
        }
    )
    raise typer.Exit(execute(graph, frames=frames, duration=duration, report=report, quiet=quiet))
