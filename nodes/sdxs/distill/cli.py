"""The command line of the recipe: stages as subcommands over one YAML."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from nodes.sdxs.distill import settings as files

app = typer.Typer(
    name="distill",
    help="Distil SDXS: in small from nothing, in full from a teacher.",
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
    pretty_exceptions_enable=False,
)
console = Console(stderr=True)

Config = Annotated[str, typer.Option(help="A configuration of the package, or a YAML file.")]
Folder = Annotated[
    Path | None, typer.Option(help="Of checkpoints; out/distill/CONFIG if left out.")
]
Plan = Annotated[bool, typer.Option("--plan", help="Only say what it would take; trains nothing.")]


@contextmanager
def _in_words() -> Iterator[None]:
    """Mistakes of the user as one sentence, exit status 2; of the machine's, 1; Ctrl-C, 130."""
    try:
        yield
    except KeyboardInterrupt as error:
        _complain("interrupted: the same command goes on from the stage's last checkpoint")
        raise typer.Exit(130) from error
    except (ValueError, FileNotFoundError, FloatingPointError, MemoryError) as error:
        _complain(f"error: {error}")
        raise typer.Exit(2) from error
    except OSError as error:
        _complain(f"error: {error}")
        raise typer.Exit(1) from error
    except RuntimeError as error:
        # torch, which has this error, is not to be imported before it is needed.
        if type(error).__name__ != "OutOfMemoryError":
            raise
        _complain(
            f"error: the GPU's memory does not suffice: halve the stage's batch and double its "
            f"accumulate, which is the same training ({str(error).splitlines()[0]})"
        )
        raise typer.Exit(1) from error


def _complain(words: str) -> None:
    console.print(words, style="red", soft_wrap=True, highlight=False, markup=False)


@contextmanager
def _bars() -> Iterator[Callable[[str, int, int, dict[str, float]], None]]:
    """A progress bar for each stage; where there is no terminal, a line now and then."""
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[values]}"),
        console=console,
        disable=not console.is_terminal,
    ) as progress:
        tasks: dict[str, int] = {}

        def report(stage: str, step: int, steps: int, values: dict[str, float]) -> None:
            shown = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
            if not console.is_terminal:
                console.print(f"{stage} {step}/{steps}: {shown}", highlight=False, soft_wrap=True)
                return
            if stage not in tasks:
                tasks[stage] = progress.add_task(stage, total=steps, values="")
            progress.update(tasks[stage], completed=step, values=shown)  # type: ignore[arg-type]

        yield report


def _family(config: str) -> str:
    return files.load(config, files.Family).family


def _folder(config: str, folder: Path | None) -> Path:
    return folder or Path("out") / "distill" / Path(config).stem


def _say(words: str) -> None:
    console.print(words, highlight=False, soft_wrap=True, markup=False)


def _small(config: str, what: str) -> None:
    """Refuses a training in full where there is nothing for one."""
    if _family(config) != "small":
        raise ValueError(f"{what} is for trainings in small, and {config!r} is in full")


def _run(names: list[str] | None, config: str, folder: Path | None, plan: bool) -> None:
    with _in_words():
        if plan:
            from nodes.sdxs.distill.plan import show

            show(config, console=Console())
            return
        with _bars() as report:
            if _family(config) == "small":
                from nodes.sdxs.distill.small import chain
                from nodes.sdxs.distill.small.run import STAGES, Run
                from nodes.sdxs.distill.small.settings import Small

                run = Run(_folder(config, folder), files.load(config, Small), report=report)
                for name in names or STAGES:
                    if not chain.run_stage(run, name):
                        console.print(f"{name}: finished before", highlight=False)
                if not names:
                    place = chain.export_stage(run, STAGES[-1], run.folder / chain.MODEL)
                    console.print(f"the model is in {place}", highlight=False)
            else:
                from nodes.sdxs.distill.full.chain import train

                train(names, config, _folder(config, folder), report=report, say=_say)


@app.command("all", short_help="All stages that are not finished, then the model.")
def whole(config: Config = "tiny", folder: Folder = None, plan: Plan = False) -> None:
    """Runs every stage that is not finished, in order, and exports the model."""
    _run(None, config, folder, plan)


@app.command(short_help="All stages for seconds: does the chain hold?")
def smoke(folder: Folder = None) -> None:
    """Runs every stage for seconds; fails if a loss does not fall or a student cannot paint."""
    _run(None, "smoke", folder, False)
    from nodes.sdxs.distill.small.run import Run
    from nodes.sdxs.distill.small.settings import Small
    from nodes.sdxs.distill.smoke import problems

    found = problems(Run(_folder("smoke", folder), files.load("smoke", Small)))
    for problem in found:
        console.print(f"error: {problem}", style="red", soft_wrap=True, highlight=False)
    if found:
        raise typer.Exit(1)
    console.print("every loss fell, and every student paints", highlight=False)


def _stage(name: str, help_text: str) -> None:
    def command(config: Config = "tiny", folder: Folder = None, plan: Plan = False) -> None:
        _run([name], config, folder, plan)

    command.__doc__ = help_text
    app.command(name)(command)


for _name, _help in {
    "draft": "Small only: one-step regression of the operators.",
    "autoencoder": "Small only: an autoencoder for the styled pictures.",
    "teacher": "Small only: the teacher of many steps.",
    "decoder": "Full only: the tiny decoder, the encoder likewise.",
    "unet": "Block removal; output and feature distillation.",
    "control": "Full only: the small ControlNet.",
    "warmup": "The feature-matching warm-up.",
    "score": "Segmented score distillation.",
    "one-step-control": "Full only: the one-step ControlNet.",
    "polish": "The adversarial finish, by a LoRA of low rank.",
}.items():
    _stage(_name, _help)


@app.command(short_help="Compares students, their teacher and another model.")
def evaluate(
    config: Config = "tiny",
    folder: Folder = None,
    against: Annotated[str, typer.Option(help="A model to compare with.")] = "bundled",
    stage: Annotated[list[str] | None, typer.Option(help="Only after these stages.")] = None,
    size: Annotated[int, typer.Option(help="Of the pictures, in pixels.")] = 256,
    grid: Annotated[Path | None, typer.Option(help="Draw the pictures there.")] = None,
    strips: Annotated[Path | None, typer.Option(help="Draw the last one's blends there.")] = None,
) -> None:
    """Compares the students and the teacher on held-out photographs and clips."""
    logging.captureWarnings(True)
    with _in_words():
        _small(config, "evaluate")
        from nodes.sdxs.distill.evaluate import table
        from nodes.sdxs.distill.small.run import Run
        from nodes.sdxs.distill.small.settings import Small

        run = Run(_folder(config, folder), files.load(config, Small))
        print(table(run, against=against, stages=stage, size=size, grid=grid, strips=strips))


@app.command("ablation", short_help="Without matching, without scores, with both.")
def ablate(
    config: Config = "tiny",
    folder: Folder = None,
    size: Annotated[int, typer.Option(help="Of the pictures, in pixels.")] = 256,
    grid: Annotated[Path | None, typer.Option(help="Draw the pictures there.")] = None,
) -> None:
    """Trains students without feature matching, without score distillation, with both; compares."""
    logging.captureWarnings(True)
    with _in_words():
        _small(config, "ablation")
        from nodes.sdxs.distill.evaluate import ablated
        from nodes.sdxs.distill.small import ablation
        from nodes.sdxs.distill.small.run import Run
        from nodes.sdxs.distill.small.settings import Small

        with _bars() as report:
            run = Run(_folder(config, folder), files.load(config, Small), report=report)
            ablation.train(run)
        print(ablated(run, size=size, grid=grid))


@app.command(short_help="A stage's student as a model for the node.")
def export(
    stage: Annotated[str, typer.Argument(help="Whose student.")] = "polish",
    config: Config = "tiny",
    folder: Folder = None,
    to: Annotated[Path | None, typer.Option(help="Where the model goes.")] = None,
) -> None:
    """Writes the student of a stage as a model that the node takes."""
    with _in_words():
        if _family(config) == "full":
            from nodes.sdxs.distill.full.chain import export_stage

            print(export_stage(stage, config, _folder(config, folder), to))
            return
        from nodes.sdxs.distill.small import chain
        from nodes.sdxs.distill.small.run import Run
        from nodes.sdxs.distill.small.settings import Small

        run = Run(_folder(config, folder), files.load(config, Small))
        print(chain.export_stage(run, stage, to))
