"""Plans built in Python, run to their end, and what must hold after every run."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from streamer.graph.plan import LinkPlan, NodePlan, Plan, RestartPlan, Role, WorkerPlan
from streamer.runtime import Report, Silent, Supervisor
from streamer.runtime.context import RuntimeContext
from streamer.runtime.standing import Standing
from streamer.telemetry.board import NodeBoard

DEADLINE = 60.0
"""seconds after which a run counts as hanging; none of these takes a tenth of it"""

_ROLES: dict[str, Role] = {"Ticks": "source", "Work": "transform", "Pair": "join", "Tape": "sink"}


def node(
    name: str,
    kind: str,
    *,
    live: bool = False,
    restarts: int = 5,
    policy: Literal["never", "on-failure", "always"] = "on-failure",
    window: float = 60,
    rest: float = 30,
    hang: float = 20,
    wants_audio: bool = False,
    **params: Any,
) -> NodePlan:
    return NodePlan(
        name=name,
        uses=kind,
        entry=f"made_nodes:{kind}",
        params=params,
        role=_ROLES[kind],
        live=live,
        wanted=("rgb24",),
        wants_audio=wants_audio,
        gpu=None,
        restart=RestartPlan(
            policy=policy if restarts else "never",
            max=restarts,
            window=window,
            rest=rest,
            hang=hang,
        ),
    )


def link(
    source: str,
    target: str,
    *,
    queue: Literal["latest", "wait"] = "wait",
    depth: int | None = None,
    media: Literal["video", "audio"] = "video",
    leading: bool = True,
) -> LinkPlan:
    return LinkPlan(
        source=source,
        target=target,
        input=source if media == "video" else "audio",
        media=media,
        queue=queue,
        depth=depth or (1 if queue == "latest" else 4),
        leading=leading and media == "video",
    )


def plan(
    nodes: Iterable[NodePlan],
    links: Iterable[LinkPlan],
    *,
    together: Iterable[str] = (),
    frames: int | None = None,
) -> Plan:
    """A plan in which `together` share a worker, and every other node has its own."""
    nodes, shared = tuple(nodes), tuple(together)
    workers = [WorkerPlan(name=n.name, nodes=(n.name,)) for n in nodes if n.name not in shared]
    if shared:
        workers.append(WorkerPlan(name="shared", nodes=shared))
    return Plan(name="test", nodes=nodes, links=tuple(links), workers=tuple(workers), frames=frames)


def chain(tape: Path, *, live: bool = False, together: bool = False, **params: Any) -> Plan:
    """Ticks -> Work -> Tape; parameters as `src_count=10`, `work_add=1`, `out_seconds=0.1`."""
    given: dict[str, dict[str, Any]] = {"src": {}, "work": {}, "out": {"path": str(tape)}}
    for key, value in params.items():
        if key != "frames":
            name, _, parameter = key.partition("_")
            given[name][parameter] = value
    if live:
        given["src"] = {"fps": 100, **given["src"]}
    queue: Literal["latest", "wait"] = "latest" if live else "wait"
    return plan(
        [
            node("src", "Ticks", live=live, **given["src"]),
            node("work", "Work", live=live, **given["work"]),
            node("out", "Tape", live=live, **given["out"]),
        ],
        [link("src", "work", queue=queue), link("work", "out", queue=queue)],
        together=("src", "work", "out") if together else (),
        frames=params.get("frames"),
    )


def context_of(made: Plan, name: str, cells: NodeBoard, *, incarnation: int = 1) -> RuntimeContext:
    """The context of a node without a worker around it."""
    return RuntimeContext(
        plan=made,
        node=made.node(name),
        incarnation=incarnation,
        board=cells,
        outlet=None,
        tell=lambda *_, **__: None,
        aborted=threading.Event(),
    )


@dataclass
class Listener(Silent):
    """Keeps what it is told; `on_state` and `on_tick` may act on it."""

    on_state: Callable[[Supervisor, str, str], None] = lambda *_: None
    on_tick: Callable[[Supervisor], None] = lambda *_: None
    lines: list[tuple[str, str]] = field(default_factory=list)
    states: list[tuple[str, str]] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    standings: list[tuple[str, Standing]] = field(default_factory=list)
    supervisor: Supervisor | None = None

    def line(self, worker: str, text: str) -> None:
        self.lines.append((worker, text))

    def state(self, node: str, state: str, text: str) -> None:
        self.states.append((node, state))
        assert self.supervisor is not None
        self.on_state(self.supervisor, node, state)

    def standing(self, node: str, standing: Standing) -> None:
        self.standings.append((node, standing))

    def event(self, text: str) -> None:
        self.events.append(text)

    def tick(self, supervisor: Supervisor) -> None:
        self.on_tick(supervisor)


def run(
    made: Plan,
    listener: Listener | None = None,
    *,
    duration: float | None = None,
) -> Report:
    """Runs a plan; fails if it hangs or its report does not add up."""
    listener = listener or Listener()
    supervisor = Supervisor(made, listener, duration=duration)
    listener.supervisor = supervisor
    hung = threading.Event()

    def give_up() -> None:
        hung.set()
        supervisor.interrupt()
        supervisor.interrupt()

    guard = threading.Timer(DEADLINE, give_up)
    guard.start()
    try:
        report = supervisor.run()
    finally:
        guard.cancel()
        guard.join()
    assert not hung.is_set(), (
        f"the run hung: {report.to_dict()}, {listener.states[-12:]}, {listener.lines[-30:]}"
    )
    adds_up(report)
    return report


def adds_up(report: Report) -> None:
    for name, sink in report.sinks.items():
        assert sink.captured == sink.delivered + sum(sink.dropped.values()), (name, report)
        assert all(count > 0 for count in sink.dropped.values()), (name, report)
        assert not {"unaccounted", "in_flight"} & sink.dropped.keys(), (name, report)


@dataclass
class Shown:
    """A picture that a Tape wrote down."""

    seq: int
    pts: int
    size: str
    low: int
    high: int


def pictures(tape: Path) -> list[Shown]:
    rows = [line.split() for line in tape.read_text().splitlines()]
    return [
        Shown(int(row[0]), int(row[1]), row[2], int(row[3]), int(row[4]))
        for row in rows
        if row[0].isdigit()
    ]


def others(tape: Path) -> list[str]:
    """The lines of a Tape that are no pictures."""
    return [line for line in tape.read_text().splitlines() if not line[0].isdigit()]


def pid_of(worker: str, parent: int | None = None) -> int | None:
    """The process of a worker that this (or another) process has started; None if none runs."""
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            words = Path(f"/proc/{entry}/cmdline").read_bytes().split(b"\0")
            stat = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        ours = int(stat[1]) == (parent or os.getpid())
        if ours and b"streamer.runtime.worker" in words and worker.encode() in words:
            return int(entry)
    return None


def kill(worker: str) -> bool:
    """Kills a worker at once; whether there was one."""
    pid = pid_of(worker)
    if pid is None:
        return False
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True
