"""When a run is to end, and whether it then gets on with it, or hangs; the time is an argument."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from typing import Final

from streamer.graph.plan import Plan
from streamer.runtime.record import WorkerRecord
from streamer.telemetry.board import NodeBoard

DRAIN_IDLE: Final = 30.0
"""seconds in which no node gets on, after which a drain becomes an abort"""
OPENING_IDLE: Final = 3.0
"""the same before frames flow: whatever a node that opens is busy with, nothing is lost"""
FINISH_IDLE: Final = 120.0
"""the same while an output is being finished: a large file may have to be written out"""


def sinks_left(
    plan: Plan, of_node: Mapping[str, WorkerRecord], failed: Container[str]
) -> list[str]:
    """Names of the outputs for which a run goes on: neither ended nor given up.

    Args:
        plan: of the run.
        of_node: records of the workers, by node.
        failed: nodes that were given up.
    """
    sinks = [node.name for node in plan.nodes if node.role == "sink" and node.name not in failed]
    return [s for s in sinks if of_node[s].states[s] != "finished" and not of_node[s].over]


def is_spared(plan: Plan, nodes: Iterable[str]) -> bool:
    """Whether outputs go on without these nodes when they have failed for good."""
    failed = [plan.node(name) for name in nodes]
    return all(node.role == "sink" and node.restart.policy == "always" for node in failed)


def unfinished(states: Mapping[str, str], nodes: Mapping[str, NodeBoard]) -> str:
    """Names the nodes that keep a run from ending: those with a frame in hand, if there are any.

    Args:
        states: of the nodes that are not over.
        nodes: their counters.
    """
    late = [name for name, state in states.items() if state not in ("finished", "failed")]
    busy = [name for name in late if _has_frame_in_hand(nodes[name])]
    return " and ".join(busy or late) or "the run"


def _has_frame_in_hand(node: NodeBoard) -> bool:
    done = node.emitted.value + node.delivered.value
    return node.received.value > done + sum(cell.value for cell in node.dropped.values())


def done(nodes: Mapping[str, NodeBoard]) -> int:
    """A count that grows with everything that nodes do."""
    return sum(
        node.received.value + node.emitted.value + node.delivered.value + node.packets.value
        for node in nodes.values()
    )


class DrainWatch:
    """Remembers when something moved last."""

    def __init__(self) -> None:
        self._seen: tuple[int, tuple[str, ...]] | None = None
        self._since = 0.0

    def idle(
        self, done: int, states: Iterable[str], now: float, *, begun: bool = True
    ) -> float | None:
        """Seconds that nothing has moved for, if that is too long; else None.

        Args:
            done: a count that grows with everything that nodes do.
            states: of all nodes.
            now: seconds on a clock that does not go back.
            begun: whether all nodes were open, and frames could flow.
        """
        seen = (done, tuple(states))
        if seen != self._seen:
            self._seen, self._since = seen, now
            return None
        idle = now - self._since
        longest = DRAIN_IDLE if begun else OPENING_IDLE
        if "finishing" in seen[1]:
            longest = FINISH_IDLE
        return idle if idle > longest else None

    def __repr__(self) -> str:
        return f"<DrainWatch {self._seen}>"
