"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

GraphFile = Annotated[Path, typer.Argument(metavar="GRAPH", help="Graph file (YAML).")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NODE.KEY=VALUE", help="Override a parameter; may be repeated."),
]
Frames = Annotated[int | None, typer.Option(min=1, help="Every source ends after so many frames.")]
Duration = Annotated[
    float | None,
    typer.Option(min=0.001, metavar="SECONDS", help="End so long after the first frame."),
]
ReportFile = Annotated[
    Path | None, typer.Option("--report", metavar="FILE.json", help="Write what was done as JSON.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print only what went wrong.")]
