"""Where the nodes and links of a picture go: layers from left to right, few crossings.

The steps are those of Sugiyama, Tagawa and Toda (1981): layers by longest path, dummy nodes on
links that skip layers, then sweeps that put each node at the mean place of its neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from streamer.graph.plan import LinkPlan, Plan

_SWEEPS = 8


@dataclass(frozen=True, slots=True)
class Route:
    """A link and the cells it passes, first and last those of its nodes."""

    link: LinkPlan
    cells: tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True)
class Layout:
    """Cells of nodes and routes of links; a cell is (layer, row), rows may lie between others.

    Attributes:
        cells: by node.
        routes: one for each link.
        layers: number of layers.
        rows: number of rows.
    """

    cells: dict[str, tuple[int, float]]
    routes: tuple[Route, ...]
    layers: int
    rows: int


def lay_out(plan: Plan) -> Layout:
    """The layout of a plan."""
    layer: dict[str, int] = {}
    for node in plan.nodes:  # senders come first
        before = [layer[link.source] for link in plan.inputs(node.name)]
        layer[node.name] = max(before, default=-1) + 1
    # Each link as a chain of items, one in every layer that it passes. A link of sound that lies
    # over a link of pictures goes the same way, so it needs no place of its own.
    chains: dict[str, list[str]] = {}
    neighbours: dict[str, set[str]] = {name: set() for name in layer}
    rows: list[list[str]] = [[] for _ in range(max(layer.values()) + 1)]
    for name, at in layer.items():
        rows[at].append(name)
    for link in plan.links:
        chain = [link.source]
        for at in range(layer[link.source] + 1, layer[link.target]):
            dummy = f"{link.key}@{at}"
            rows[at].append(dummy)
            chain.append(dummy)
        chain.append(link.target)
        chains[link.key] = chain
        for one, two in pairwise(chain):
            neighbours.setdefault(one, set()).add(two)
            neighbours.setdefault(two, set()).add(one)
    _untangle(rows, neighbours)
    tallest = max(len(row) for row in rows)
    place = {
        item: (at, number + (tallest - len(row)) / 2)
        for at, row in enumerate(rows)
        for number, item in enumerate(row)
    }
    return Layout(
        cells={name: place[name] for name in layer},
        routes=tuple(
            Route(link, tuple(place[item] for item in chains[link.key])) for link in plan.links
        ),
        layers=len(rows),
        rows=tallest,
    )


def _untangle(rows: list[list[str]], neighbours: dict[str, set[str]]) -> None:
    def middle(item: str, other: list[str], here: int) -> float:
        at = [other.index(name) + 0.5 for name in neighbours[item] if name in other]
        return sum(at) / len(at) / len(other) if at else here

    for sweep in range(_SWEEPS):
        pairs = list(pairwise(rows))
        if sweep % 2:
            for left, right in reversed(pairs):
                places = {item: middle(item, right, n) for n, item in enumerate(left)}
                left.sort(key=places.__getitem__)
        else:
            for left, right in pairs:
                places = {item: middle(item, left, n) for n, item in enumerate(right)}
                right.sort(key=places.__getitem__)
