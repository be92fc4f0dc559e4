"""`streamer style`: the four-node graph for people who want no YAML."""

from __future__ import annotations

from typing import Annotated, Any, Final

import typer

from streamer.cli.options import Duration, Frames, Quiet, ReportFile
from streamer.errors import GraphError, Problem

_WORDS: Final = {
    "source.with.url": "INPUT",
    "sink.with.url": "OUTPUT",
    "prepare.with.size": "--size",
    "prepare.with.fit": "--fit",
    "style.with.model": "--model",
    "style.with.prompt": "--prompt",
    "style.with.conditioning_scale": "--scale",
    "style.with.seed": "--seed",
}
"""what a place in the graph was given as"""


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
    shape = {"size": size, "fit": fit}
    nodes = {
        "source": {"uses": "decoder", "with": {"url": input}},
        "prepare": {"uses": "preprocess", "from": "source", "with": shape},
        "style": {"uses": "sdxs", "from": "prepare", "with": style},
        "sink": {"uses": "encoder", "from": "style", "with": {"url": output}},
    }
    try:
        graph = Graph.from_dict({"version": 1, "name": "style", "nodes": nodes})
    except GraphError as error:
        raise GraphError([_in_own_words(problem) for problem in error.problems]) from None
    raise typer.Exit(execute(graph, frames=frames, duration=duration, report=report, quiet=quiet))


def _in_own_words(problem: Problem) -> Problem:
    """A mistake told by what was typed, for nobody has written the graph."""
    place, _, message = problem.message.partition(": ")
    place = place.removeprefix("nodes.")
    word = _WORDS.get(place) or _WORDS.get(place.replace(".", ".with.", 1))
    return problem if word is None else Problem(word, 0, 0, message)
