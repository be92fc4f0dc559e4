"""The report of a run: what every sink, node and link did, added up from the board.

For each sink, along the leading inputs from its source::

    captured = delivered + Σ dropped[reason]

The board holds counts at every hop of that chain. What a hop took in and neither dropped nor
passed on is its residual; a residual belongs to a crash, an abort or a failure at that hop, or is
in flight while the run goes on. Anything else would be a defect, and shows as `unaccounted`.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from streamer.drops import Drop
from streamer.graph.plan import LinkPlan, NodePlan, Plan
from streamer.runtime.standing import away_ns, status_of
from streamer.status import Count
from streamer.telemetry.board import Board, Cell, NodeBoard
from streamer.telemetry.histogram import Histogram


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstances:
    """What befell a run besides its counts.

    Attributes:
        final: whether nothing is in flight any more.
        seconds: wall time since the run began.
        aborted: whether it was stopped at once.
        crashed: nodes whose process has died at least once.
        failed: nodes that ended with an error or did not come back.
        restarts: by node.
        last_failures: how the node's process died last, in words, by node; empty if it never did.
        rss_mb: highest resident memory of the node's process, MiB.
    """

    final: bool = True
    seconds: float = 0.0
    aborted: bool = False
    crashed: frozenset[str] = frozenset()
    failed: frozenset[str] = frozenset()
    restarts: Mapping[str, int] = field(default_factory=dict)
    last_failures: Mapping[str, str] = field(default_factory=dict)
    rss_mb: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkReport:
    """One sink: `captured = delivered + sum(dropped.values())`."""

    captured: int
    delivered: int
    dropped: dict[str, int]
    fps: float
    age_ms: dict[str, float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeReport:
    """One node; what does not apply to it is None, and left out of the JSON.

    Attributes:
        frames: pictures that it passed on, or delivered.
        process_ms: percentiles of its work on one picture.
        copies_per_frame: copies of whole pictures that the runtime made.
        to_gpu_bytes: bytes a picture copied from host memory to a GPU, if any were.
        from_gpu_bytes: and back.
        hardware: of a node with a GPU that decodes or encodes: pictures that the GPU's codec did.
        repeated: pictures for which it showed a former result again.
        spoiled: those among them that could not be made.
        passed: of a transform: pictures that it passed on as they came, since it was not ready yet;
            of a sink: those among the delivered ones that some node has passed on so.
        restarts: how often its process was started again.
        rss_mb: most memory that its process held, which it may share with others, MiB.
        last_failure: how its process died last.
        status: how its connection to the outside stands (`streamer.Status`), if it said.
        reconnects: how often that came back.
        away_seconds: how long it was away in all.
        mended: of a source: times put right.
        filled: of a sink: pictures shown in place of ones that did not come.
        viewers: of a sink that others watch: how many do so now.
        viewers_most: how many did at most.
        skipped: pictures that some viewer was too slow for.
    """

    frames: int
    process_ms: dict[str, float | None]
    copies_per_frame: float
    repeated: int
    spoiled: int
    restarts: int
    rss_mb: float
    to_gpu_bytes: float | None = None
    from_gpu_bytes: float | None = None
    hardware: int | None = None
    passed: int | None = None
    last_failure: str | None = None
    status: str | None = None
    reconnects: int | None = None
    away_seconds: float | None = None
    mended: int | None = None
    filled: int | None = None
    viewers: int | None = None
    viewers_most: int | None = None
    skipped: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkReport:
    """One link; `kind` is `local` within a worker, or the memory that the pixels lie in."""

    kind: str
    frames: int
    dropped: dict[str, int]
    hop_us: dict[str, float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeReport:
    """A parameter that was changed while the graph ran.

    Attributes:
        path: `NODE.KEY`.
        generation: of the pictures made with it.
        first_frame_ms: by sink, from the request to the first such picture delivered.
    """

    path: str
    generation: int
    first_frame_ms: dict[str, float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A whole run.

    Attributes:
        graph: its name.
        seconds: wall time.
        fps: pictures a second at the busiest sink, from the first one's coming to the last one's
            leaving.
        sinks: by node name.
        nodes: by node name.
        links: by `A->B`.
        changes: parameters that were changed while it ran, in order; the latest ones.
        changes_made: how many there were in all.
        errors: one sentence for each failure; empty after a good run.
        exit_status: what the command line returns.
    """

    graph: str
    seconds: float
    fps: float
    sinks: dict[str, SinkReport]
    nodes: dict[str, NodeReport]
    links: dict[str, LinkReport]
    changes: list[ChangeReport]
    changes_made: int
    errors: list[str]
    exit_status: int

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON types."""
        from dataclasses import asdict

        data = asdict(self)
        data["nodes"] = {
            name: {key: value for key, value in node.items() if value is not None}
            for name, node in data["nodes"].items()
        }
        return data

    def __str__(self) -> str:
        parts = [
            f"{name}: {sink.delivered} of {sink.captured} frames"
            for name, sink in self.sinks.items()
        ]
        return f"{self.graph}: {', '.join(parts)}, {self.fps:.1f} fps, {self.seconds:.1f} s"


def build(
    plan: Plan,
    board: Board,
    circumstances: Circumstances,
    *,
    changes: list[ChangeReport] | None = None,
    changes_made: int = 0,
    errors: list[str] | None = None,
    exit_status: int = 0,
) -> Report:
    """The report as the board stands now."""
    sinks = {
        node.name: _sink(plan, board, circumstances, node.name)
        for node in plan.nodes
        if node.role == "sink"
    }
    return Report(
        graph=plan.name,
        seconds=round(circumstances.seconds, 3),
        fps=max((sink.fps for sink in sinks.values()), default=0.0),
        sinks=sinks,
        nodes={node.name: _node(plan, board, circumstances, node.name) for node in plan.nodes},
        links={link.key: _link(plan, board, link) for link in plan.links},
        changes=list(changes or []),
        changes_made=changes_made,
        errors=list(errors or []),
        exit_status=exit_status,
    )


def _sink(plan: Plan, board: Board, circumstances: Circumstances, name: str) -> SinkReport:
    chain = plan.chain(name)
    sink = board.nodes[name]
    dropped: Counter[Drop] = Counter()
    # Counts go on while they are read. What comes later in the chain is read first, so that no
    # hop seems to have given more than it took.
    delivered, lost = sink.delivered.value, _take(dropped, sink.dropped)
    onward, behind = delivered + lost, {name}
    failure = Drop.FAILED
    for link in reversed(chain):
        cells = board.links[link.key]
        arrived = cells.received.value
        dropped[_reason(circumstances, behind, failure)] += arrived - onward
        onward = arrived + _take(dropped, cells.dropped)
        offered = cells.offered.value
        gone = link.target in circumstances.failed
        failure = Drop.CONSUMER_GONE if gone else Drop.FAILED
        between = {link.source, link.target}
        dropped[_reason(circumstances, between, failure)] += offered - onward
        onward = offered + _take(dropped, board.nodes[link.source].dropped)
        behind, failure = {link.source}, Drop.FAILED
    captured = board.nodes[chain[0].source].captured.value
    dropped[_reason(circumstances, behind, failure)] += captured - onward
    span = sink.last_ns.value - sink.first_ns.value
    return SinkReport(
        captured=captured,
        delivered=delivered,
        dropped={str(reason): dropped[reason] for reason in Drop if dropped[reason]},
        fps=round(delivered * 1e9 / span, 2) if delivered and span > 0 else 0.0,
        age_ms=_milliseconds(sink.age),
    )


def _reason(circumstances: Circumstances, nodes: set[str], failure: Drop) -> Drop:
    """Where the residual of a hop between these nodes belongs."""
    if not circumstances.final:
        return Drop.IN_FLIGHT
    if nodes & circumstances.crashed:
        return Drop.CRASHED
    if nodes & circumstances.failed:
        return failure
    return Drop.ABORTED if circumstances.aborted else Drop.UNACCOUNTED


def _node(plan: Plan, board: Board, circumstances: Circumstances, name: str) -> NodeReport:
    node = board.nodes[name]
    made = node.emitted.value or node.delivered.value
    return NodeReport(
        frames=made,
        process_ms=_milliseconds(node.process),
        copies_per_frame=round(node.copies.value / made, 3) if made else 0.0,
        repeated=node.repeated.value,
        spoiled=node.spoiled.value,
        restarts=circumstances.restarts.get(name, 0),
        rss_mb=round(circumstances.rss_mb.get(name, 0.0), 1),
        last_failure=circumstances.last_failures.get(name) or None,
        passed=node.counts[Count.PASSED].value
        if plan.node(name).role in ("transform", "sink")
        else None,
        **_on_gpu(plan.node(name), node, made),
        **_outside(plan.node(name), node),
    )


def _on_gpu(node: NodePlan, cells: NodeBoard, made: int) -> dict[str, Any]:
    """What a node with a GPU has moved there and back, and had the GPU's codecs do."""
    if node.gpu is None:
        return {}
    said: dict[str, Any] = {
        "to_gpu_bytes": round(cells.uploaded.value / made, 1) if made else 0.0,
        "from_gpu_bytes": round(cells.downloaded.value / made, 1) if made else 0.0,
    }
    if node.role in ("source", "sink"):
        said["hardware"] = cells.counts[Count.HARDWARE].value
    return said


def _outside(node: NodePlan, cells: NodeBoard) -> dict[str, Any]:
    """What there is to say of a node's connection to the outside, its gaps and its viewers."""
    said: dict[str, Any] = {}
    if (status := status_of(cells)) is not None:
        said["status"] = str(status)
        said["reconnects"] = cells.reconnects.value
        said["away_seconds"] = round(away_ns(cells, time.monotonic_ns()) / 1e9, 3)
    if node.role == "source":
        said["mended"] = cells.counts[Count.MENDED].value
    if node.role == "sink":
        said["filled"] = cells.counts[Count.FILLED].value
        if cells.viewers_most.value:
            said["viewers"] = cells.viewers.value
            said["viewers_most"] = cells.viewers_most.value
            said["skipped"] = cells.counts[Count.SKIPPED].value
    return said


def _link(plan: Plan, board: Board, link: LinkPlan) -> LinkReport:
    cells = board.links[link.key]
    together = any({link.source, link.target} <= set(worker.nodes) for worker in plan.workers)
    if link.media == "audio":
        kind = "message"
    else:
        kind = "local" if together else "cuda" if cells.on_gpu.value else "memfd"
    p50, p95, p99 = cells.hop.percentiles_us(50, 95, 99)
    return LinkReport(
        kind=kind,
        frames=cells.received.value,
        dropped={str(r): cell.value for r, cell in cells.dropped.items() if cell.value},
        hop_us={"p50": p50, "p95": p95, "p99": p99},
    )


def _take(dropped: Counter[Drop], cells: Mapping[Drop, Cell]) -> int:
    """Adds the drops of a node or link, and tells their sum."""
    counts = {reason: cell.value for reason, cell in cells.items()}
    dropped.update(counts)
    return sum(counts.values())


def _milliseconds(histogram: Histogram) -> dict[str, float | None]:
    values = histogram.percentiles_us(50, 95, 99)
    p50, p95, p99 = (None if us is None else round(us / 1000, 3) for us in values)
    return {"p50": p50, "p95": p95, "p99": p99}
