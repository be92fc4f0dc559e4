"""`streamer doctor`."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from streamer.doctor import Finding

_MARKS = {"ok": "[green]✓ ok[/]", "warn": "[yellow]! warn[/]", "fail": "[red]✗ fail[/]"}


def command(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what this machine can decode, encode, see and share, and what to install.

    Exit status 1 if something is missing without which streamer cannot do its main job.
    """
    from streamer.doctor import Status, examine, worst

    findings = examine() if as_json else _examine_with_progress()
    if as_json:
        data = {
            "status": str(worst(findings)),
            "findings": [
                {**asdict(finding), "status": str(finding.status)} for finding in findings
            ],
        }
        print(json.dumps(data, indent=2, ensure_ascii=False))
    else:
        _print(findings)
    if worst(findings) is Status.FAIL:
        raise typer.Exit(1)


def _examine_with_progress() -> list[Finding]:
    from rich.console import Console

    from streamer.doctor import examine

    with Console(stderr=True).status("looking at this machine") as status:
        return examine(progress=lambda area: status.update(f"looking at: {area.lower()}"))


def _print(findings: list[Finding]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("area", style="bold", no_wrap=True)
    table.add_column("what", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("found")
    area = ""
    for finding in findings:
        found = escape(finding.detail)
        if finding.advice:
            found += f"\n[dim]→ {escape(finding.advice)}[/]"
        shown = finding.area if finding.area != area else ""
        area = finding.area
        table.add_row(shown, escape(finding.name), _MARKS[finding.status], found)
    counts = {status: sum(f.status == status for f in findings) for status in _MARKS}
    console = Console()
    console.print(table)
    if counts["fail"]:
        last = f"[red]{counts['fail']} essential things are missing[/]; see the arrows"
    elif counts["warn"]:
        last = f"[green]streamer works here[/]; {counts['warn']} things could be better"
    else:
        last = "[green]everything works here[/]"
    console.print(f"\n{last}", highlight=False)
