"""What this package adds to the command line: `streamer pull` and `streamer bench model`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

import streamer

if TYPE_CHECKING:
    from nodes.sdxs.checkpoint.bench import Result


def pull(
    model: Annotated[
        str | None,
        typer.Argument(metavar="MODEL", help="Repository of the hub; the known ones without."),
    ] = None,
    large: Annotated[
        bool, typer.Option("--large", help="Fetch the large decoder, too, for vae: large.")
    ] = False,
) -> None:
    """Fetch a published model, a ControlNet or an adapter from the Hugging Face hub.

    Only the files that are needed come, into the hub's own cache; what was interrupted goes on
    where it stopped, and every file is checked against the hub's hash.
    """
    from nodes.sdxs.checkpoint import catalogue, pull
    from nodes.sdxs.names import ModelName

    if model is None:
        _print_known()
        return
    try:
        name = ModelName.parse_part(model, "model")
    except FileNotFoundError as error:
        raise streamer.ParameterError(str(error)) from None
    if name.kind != "hub":
        raise streamer.ParameterError(
            f"{model!r} is a folder of this machine: only repositories owner/name can be fetched"
        )
    try:
        remote = pull.look(name)
        chosen = pull.plan(remote, large=large)
        known = catalogue.known(name.id)
        print(f"{name} ({remote.commit[:10]})" + (f": {known.about}" if known else ""))
        print(f"licence: {_licence(remote.licence, name.id)}")
        print(f"{len(chosen.files)} files, {chosen.size / 1e6:,.0f} MB")
        for file in chosen.files:
            print(f"  {file}, {remote.sizes[file] / 1e6:,.1f} MB", flush=True)
            pull.fetch(remote, file)
        pull.settle(remote)
    except pull.PullError as error:
        raise streamer.NodeError(str(error)) from error
    print(f"complete; use it as {chosen.kind}: {name}")


def bench_model(
    model: Annotated[str, typer.Option(help="Model, as in a graph.")] = "random:tiny",
    control: Annotated[list[str] | None, typer.Option(help="ControlNet; may be repeated.")] = None,
    reference: Annotated[
        str | None,
        typer.Option(metavar="diffusers", help="What to measure beside it: diffusers' pipeline."),
    ] = None,
    size: Annotated[
        str | None, typer.Option(metavar="WxH", help="Pixels.", show_default="the native size")
    ] = None,
    vae: Annotated[str, typer.Option(help="Decoder: tiny or large.")] = "tiny",
    device: Annotated[str, typer.Option(help="Where: cpu, or cuda:0.")] = "cpu",
    dtype: Annotated[str, typer.Option(help="Arithmetic.")] = "auto",
    threads: Annotated[
        int | None, typer.Option(min=1, max=256, help="Of the CPU.", show_default="all")
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.1, max=600, help="How long about.")] = 10.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """A model's pictures a second, part by part, against diffusers' own pipeline."""
    from nodes.sdxs.checkpoint.bench import measure

    if reference not in (None, "diffusers"):
        raise typer.BadParameter(f"must be diffusers, not {reference!r}", param_hint="--reference")
    try:
        result = measure(
            model,
            control=control or [],
            against=reference is not None,
            size=None if size is None else _size(size),
            vae=vae,
            device=device,
            dtype=dtype,
            threads=threads,
            seconds=seconds,
            progress=lambda text: None if as_json else typer.echo(f"measuring: {text}", err=True),
        )
    except (ValueError, FileNotFoundError, ImportError) as error:
        raise streamer.ParameterError(str(error)) from error
    if as_json:
        print(json.dumps(result.to_dict(), indent=2))
    else:
        _print_result(result)


def _print_result(result: Result) -> None:
    parts = ("text", "condition", "control", "unet", "decoder", "conversion")
    named = {"control": "ControlNet", "unet": "U-Net"}
    rows = []
    for part in parts:
        if part in ("condition", "control") and not result.control:
            continue
        count, work = result.parameters.get(part), result.gflop.get(part)
        rows.append(
            (
                named.get(part, part) + (", once for a prompt" if part == "text" else ""),
                f"{result.parts_ms[part]:.2f}",
                "" if work is None else f"{work:.1f}",
                "" if count is None else f"{count:,}",
            )
        )
    total = sum(result.gflop.values())
    rows.append(("whole picture", f"{result.engine.ms:.2f}", f"{total:.1f}", ""))
    width, height = result.size
    control = f" with {', '.join(result.control)}" if result.control else ""
    _table(
        f"{result.model}{control} at {width}x{height}, {result.dtype} on {result.device}, "
        f"{result.threads} threads",
        ("", "p50 ms", "GFLOP", "parameters"),
        rows,
    )
    speeds = [("engine", f"{result.engine.fps:.2f}", "")]
    for name, speed, ratio in (
        ("diffusers' pipeline", result.pipeline, result.ratio),
        ("the same, prompt embedded before", result.pipeline_embedded, result.ratio_embedded),
    ):
        if speed is not None and ratio is not None:
            speeds.append((name, f"{speed.fps:.2f}", f"{ratio:.2f} x"))
    _table("", ("", "frames/s", "engine against it"), speeds)
    if result.largest_difference is not None:
        print(f"largest difference of the two pictures: {result.largest_difference} grey levels")


def _print_known() -> None:
    from nodes.sdxs.checkpoint import catalogue

    rows = [
        (one.id, one.kind, f"{one.megabytes:,} MB", one.licence, one.about)
        for one in catalogue.KNOWN
    ]
    _table("", ("repository", "as", "size", "licence", ""), rows, numbers=(2,))


def _licence(licence: str, name: str) -> str:
    from nodes.sdxs.checkpoint.catalogue import LICENCES

    if not licence:
        return f"its card names none; look at https://huggingface.co/{name} before you use it"
    told = LICENCES.get(licence)
    return licence if told is None else f"{licence} ({told})"


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    if not (width.isdigit() and height.isdigit() and int(width) and int(height)):
        raise typer.BadParameter(f"must be WIDTHxHEIGHT in pixels, not {text!r}")
    return int(width), int(height)


def _table(
    title: str, columns: tuple[str, ...], rows: list[Any], numbers: tuple[int, ...] | None = None
) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title or None, box=None, title_justify="left", header_style="dim")
    for number, name in enumerate(columns):
        right = number > 0 if numbers is None else number in numbers
        table.add_column(name, justify="right" if right else "left", no_wrap=number == 0)
    for row in rows:
        table.add_row(*row)
    Console().print(table)
