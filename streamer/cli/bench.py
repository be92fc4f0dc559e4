"""`streamer bench`: measurements, each against what it stands beside, in one run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from streamer import plugins

command = typer.Typer(
    no_args_is_help=True, help="Measure links, pipelines, models, stability and viewers."
)

for _name, _point in plugins.points(plugins.BENCHES).items():
    command.command(_name)(plugins.later(_point))

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@command.command("link")
def link(
    size: Annotated[str, typer.Option(metavar="WxH", help="Size of an rgb24 picture.")] = (
        "1920x1080"
    ),
    seconds: Annotated[float, typer.Option(min=0.1, max=600, help="Length of each case.")] = 2.0,
    as_json: Json = False,
) -> None:
    """The link between two processes against ZeroMQ carrying the same pixels."""
    from streamer.bench.link import measure

    width, height = _size(size)
    result = measure(width=width, height=height, seconds=seconds, progress=_say(as_json))
    if as_json:
        print(json.dumps(result.to_dict(), indent=2))
        return
    rows = [
        (
            "frames/s, pictures ready",
            f"{result.pass_fps['link']:.0f}",
            f"{result.pass_fps['zeromq']:.0f}",
            f"{result.ratio_to_zeromq:.1f} x",
        ),
        (
            "frames/s, written and read",
            f"{result.write_read_fps['link']:.0f}",
            f"{result.write_read_fps['zeromq']:.0f}",
            f"{result.write_read_ratio:.1f} x",
        ),
        (
            "hop at 30 fps, p50 µs",
            f"{result.hop_us['link'].p50:.0f}",
            f"{result.hop_us['zeromq'].p50:.0f}",
            f"{result.hop_ratio:.2f} x",
        ),
        (
            "hop at 30 fps, p99 µs",
            f"{result.hop_us['link'].p99:.0f}",
            f"{result.hop_us['zeromq'].p99:.0f}",
            "",
        ),
        ("copies of a picture by the link", f"{result.copies_per_frame:g}", "", ""),
    ]
    _table(f"{width}x{height} rgb24 between two processes", ("", "link", "ZeroMQ", ""), rows)


@command.command("pipeline")
def pipeline(
    video: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="H.264 file; one is made.")
    ] = None,
    seconds: Annotated[float, typer.Option(min=1, max=600, help="Length of the clip made.")] = 20.0,
    as_json: Json = False,
) -> None:
    """Decode, scale and encode against the ffmpeg command doing the same."""
    from streamer.bench.pipeline import measure

    result = measure(video=video, seconds=seconds, progress=_say(as_json))
    if as_json:
        print(json.dumps(result.to_dict(), indent=2))
        return
    rows = [
        ("frames/s, streamer", f"{result.streamer_fps:.1f}"),
        ("frames/s, ffmpeg", f"{result.ffmpeg_fps:.1f}"),
        ("ratio", f"{result.ratio_to_ffmpeg:.2f}"),
    ]
    rows += [(f"{name}, p50 ms", f"{ms:.2f}") for name, ms in result.process_ms.items() if ms]
    rows += [(f"{key}, p50 µs", f"{us:.0f}") for key, us in result.hop_us.items() if us]
    _table(f"{result.frames} frames: decode, scale to half, x264", ("", ""), rows)


def _say(as_json: bool) -> Any:
    def say(text: str) -> None:
        if not as_json:
            typer.echo(f"measuring: {text}", err=True)

    return say


def _size(text: str) -> tuple[int, int]:
    from streamer.formats import picture_shape

    width, _, height = text.partition("x")
    try:
        sides = int(width), int(height)
        picture_shape("rgb24", *sides)
    except ValueError as error:
        raise typer.BadParameter(
            f"must be WIDTHxHEIGHT in pixels, not {text!r} ({error})"
        ) from None
    return sides


def _table(title: str, columns: tuple[str, ...], rows: list[Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, box=None, title_justify="left", header_style="dim")
    for number, name in enumerate(columns):
        table.add_column(name, justify="left" if number == 0 else "right")
    for row in rows:
        table.add_row(*row)
    Console().print(table)
