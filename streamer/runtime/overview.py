"""How a run and its nodes stand, for `streamer status`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from streamer.graph.plan import Plan
from streamer.runtime.progress import Progress
from streamer.runtime.record import WorkerRecord
from streamer.runtime.report import Report
from streamer.runtime.standing import Standings


def overview(
    report: Report,
    plan: Plan,
    of_node: Mapping[str, WorkerRecord],
    standings: Standings,
    progress: Progress,
    phase: str,
) -> dict[str, Any]:
    """The state of a run as JSON types.

    Args:
        report: the interim one.
        plan: with the parameters as they are now.
        of_node: records of the workers, by node.
        standings: of the nodes.
        progress: of nodes that load or build something.
        phase: of the run: starting, running or ending.
    """
    return {
        "graph": plan.name,
        "phase": phase,
        "seconds": report.seconds,
        "nodes": {
            node.name: _node(node.name, report, of_node[node.name], standings, progress)
            for node in plan.nodes
        },
    }


def _node(
    name: str, report: Report, worker: WorkerRecord, standings: Standings, progress: Progress
) -> dict[str, Any]:
    seen, sink = report.nodes[name], report.sinks.get(name)
    standing = standings.of(name)
    said: dict[str, Any] = {
        "state": worker.states.get(name, "starting"),
        "pid": worker.process.pid if worker.process is not None else None,
        "frames": seen.frames,
        "restarts": seen.restarts,
        "last_failure": seen.last_failure,
    }
    if standing is not None:
        said |= {
            "status": str(standing.status),
            "status_text": standing.text,
            "status_seconds": round(standing.seconds, 1),
            "reconnects": seen.reconnects,
        }
    if seen.passed:
        said["passed"] = seen.passed
    if (stage := progress.of(name)) is not None:
        said |= {"doing": stage.text, "done": stage.done, "of": stage.of}
    if sink is not None:
        said |= {"age_ms": sink.age_ms["p50"], "captured": sink.captured, "fps": sink.fps}
    if seen.viewers is not None:
        said["viewers"] = seen.viewers
    return {key: value for key, value in said.items() if value is not None}
