"""`streamer status`: the graphs that run, and how their nodes stand."""

from __future__ import annotations

import json
from typing import Annotated, Any, Final

import typer

SILENT: Final = "silent"
"""the phase of a run that is there and does not answer"""


def command(
    run: Annotated[
        str | None,
        typer.Argument(
            metavar="[RUN]", help="Name of a graph, or the pid of a run; by default all."
        ),
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print a JSON list of runs.")] = False,
) -> None:
    """Print the graphs that run, and how their nodes stand.

    Folders that killed runs have left behind are removed on the way.
    """
    from streamer.errors import ParameterError, RunError
    from streamer.runtime.folder import goes_on, remove_abandoned
    from streamer.runtime.remote import Remote, running_graphs

    remove_abandoned()
    found: list[dict[str, Any]] = []
    every = running_graphs()
    silent = False
    for item in every:
        if run in (None, item.graph, str(item.pid)):
            try:
                with Remote(item) as remote:
                    found.append({"pid": item.pid, **remote.status()})
            except RunError as error:  # it ended a moment ago, or is stopped or too busy
                silent = True
                typer.echo(f"streamer: {error}", err=True)
                if json_ and goes_on(item.folder):
                    found.append(
                        {"pid": item.pid, "graph": item.graph, "phase": SILENT, "nodes": {}}
                    )
    answered = any(one["phase"] != SILENT for one in found)
    if run is not None and not (answered or silent):
        running = ", ".join(map(str, every)) or "none"
        raise ParameterError(f"no graph {run!r} is running; running: {running}")
    if json_:
        print(json.dumps(found, indent=2))
    if not answered and (found if json_ else silent):
        raise typer.Exit(1)
    if json_:
        return
    if not found:
        print("no graph is running")
    else:
        _show(found)


def _show(runs: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False, markup=False, emoji=False)
    for number, run in enumerate(runs):
        if number:
            console.print()
        console.print(f"{run['graph']} (pid {run['pid']}), {run['phase']}, {run['seconds']:.0f} s")
        table = Table(box=None, pad_edge=False, header_style="dim")
        for title in ("node", "state", "frames", "age ms", "restarts", ""):
            table.add_column(title, justify="left" if title in ("node", "state", "") else "right")
        for name, node in run["nodes"].items():
            age = node.get("age_ms")
            table.add_row(
                name,
                Text(_state(node)),
                str(node["frames"]),
                "" if age is None else f"{age:.1f}",
                str(node["restarts"]),
                Text(_remark(node)),
            )
        console.print(table)


def _state(node: dict[str, Any]) -> str:
    status = node.get("status")
    if status is None or node["state"] in ("restarting", "resting", "finished"):
        return str(node["state"])
    return f"{status} {_span(node['status_seconds'])}"


def _remark(node: dict[str, Any]) -> str:
    said = []
    if "viewers" in node:
        said.append(f"{node['viewers']} watching")
    if node.get("reconnects"):
        said.append(f"{node['reconnects']} reconnect{'s' * (node['reconnects'] > 1)}")
    if "doing" in node:
        said.append(f"{node['doing']} ({node['done']} of {node['of']})")
    if "passed" in node:
        said.append(f"{node['passed']} passed on as they came")
    if node.get("status_text") and node.get("status") != "live":
        said.append(node["status_text"])
    elif node.get("last_failure"):
        said.append(f"last: {node['last_failure']}")
    return "; ".join(said)


def _span(seconds: float) -> str:
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d} min"
    return f"{whole // 3600}:{whole // 60 % 60:02d} h"
