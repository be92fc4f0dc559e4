"""`streamer bench stability`: how steady a model's video is, and what each option does to it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from nodes.sdxs import OneStep
    from nodes.stability.compare import Case, Draw, Row


def command(
    model: Annotated[str, typer.Option(help="As the sdxs node's parameter.")] = "bundled",
    prompt: Annotated[str, typer.Option(help="Style, or any text for a checkpoint.")] = "ink",
    control: Annotated[
        str | None, typer.Option(help="ControlNet of a checkpoint, as the sdxs node's parameter.")
    ] = None,
    condition: Annotated[
        str | None,
        typer.Option(help="Kind of control picture: sketch, canny, soft or luminance."),
    ] = None,
    video: Annotated[str, typer.Option(help="What to style, as the decoder's url.")] = "demo:",
    frames: Annotated[int, typer.Option(min=2, max=10000, help="Pictures of it.")] = 48,
    size: Annotated[
        str | None, typer.Option(metavar="WxH", help="Of pictures; the model's own by default.")
    ] = None,
    noise: Annotated[
        float, typer.Option(min=0, max=64, help="Of the still picture's pixels, grey levels.")
    ] = 2.0,
    option: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE[,...]", help="One more case: settings of the engine."),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, or cuda:0 say.")] = "cpu",
    threads: Annotated[int | None, typer.Option(min=1, max=256, help="Of the CPU.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Temporal stability of a styled video: warp error over optical flow, and flicker at rest."""
    from nodes.sdxs import OneStep
    from nodes.stability.compare import compare, read_pictures
    from streamer import ParameterError, RunError

    ready: list[OneStep] = []

    def load() -> OneStep:
        if ready:
            return ready.pop()
        try:
            engine = OneStep.load(model, control=control, device=device, threads=threads)
            engine.prompt = prompt
        except (OSError, ValueError, ImportError) as error:
            raise ParameterError(f"model {model}: {error}") from error
        return engine

    def say(text: str) -> None:
        if not as_json:
            typer.echo(f"measuring: {text}", err=True)

    extra = [_case(text) for text in option or ()]
    draw = _draw(condition, control)
    engine = load()
    shape = _size(size, engine)
    ready.append(engine)
    pictures = read_pictures(video, shape, count=frames)
    try:
        rows = compare(load, pictures, extra=extra, draw=draw, sigma=noise, progress=say)
    except ValueError as error:
        raise RunError(f"{video}: {error}") from error
    if as_json:
        print(json.dumps(_facts(model, prompt, video, shape, noise, rows), indent=2))
    else:
        _show(model, prompt, shape, noise, rows)


def _facts(
    model: str,
    prompt: str,
    video: str,
    shape: tuple[int, int],
    noise: float,
    rows: Sequence[Row],
) -> dict[str, Any]:
    return {
        "model": model,
        "prompt": prompt,
        "video": video,
        "size": list(shape),
        "noise": noise,
        "cases": [row.to_dict() for row in rows],
    }


def _show(
    model: str, prompt: str, shape: tuple[int, int], noise: float, rows: Sequence[Row]
) -> None:
    from rich.console import Console
    from rich.table import Table

    motion, still = rows[0].motion, rows[0].still_source
    table = Table(
        title=(
            f"{model}, {prompt!r}, {shape[0]}x{shape[1]}: {motion.pairs} pairs of pictures, "
            f"{motion.cuts} cuts; grey levels"
        ),
        box=None,
        title_justify="left",
        header_style="dim",
    )
    table.add_column("")
    for name in ("warp error", "contrast", "stability", f"still, noise {noise:g}", "ms"):
        table.add_column(name, justify="right")
    table.add_row(
        "source", f"{motion.source_error:.2f}", f"{motion.source_contrast:.1f}", "1.00",
        f"{still:.2f}", "",
    )  # fmt: skip
    for row in rows:
        score = row.motion.score
        table.add_row(
            row.name,
            f"{row.motion.styled_error:.2f}",
            f"{row.motion.styled_contrast:.1f}",
            "-" if score is None else f"{score:.2f}",
            f"{row.still_styled:.2f}",
            f"{row.ms:.1f}",
        )
    Console().print(table)


def _draw(kind: str | None, control: str | None) -> Draw | None:
    if kind is None:
        return None
    if control is None:
        raise typer.BadParameter("a control picture is for a ControlNet: give --control as well")
    if kind not in ("sketch", "canny", "soft", "luminance"):
        raise typer.BadParameter(f"a condition is sketch, canny, soft or luminance, not {kind!r}")
    from nodes.condition.on_opencv import OpenCvExtractor
    from nodes.condition.settings import setting

    return OpenCvExtractor([setting(kind)]).picture  # type: ignore[arg-type]


def _case(text: str) -> Case:
    from nodes.stability.compare import Case

    options: dict[str, Any] = {}
    for part in text.split(","):
        name, equals, value = part.partition("=")
        if not (equals and name.strip().isidentifier() and value.strip()):
            raise typer.BadParameter(f"an option is NAME=VALUE, feedback=0.3 say, not {part!r}")
        try:
            options[name.strip()] = json.loads(value)
        except ValueError:
            options[name.strip()] = value.strip()
    return Case(text, options)


def _size(text: str | None, engine: OneStep) -> tuple[int, int]:
    from nodes.sizes import parse_size

    if text is None:
        return engine.native_size
    try:
        width, height = parse_size(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    step = engine.multiple
    if width % step or height % step:
        raise typer.BadParameter(f"the model takes multiples of {step} pixels, not {text}")
    return width, height
