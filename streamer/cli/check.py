"""`streamer check`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamer.cli.options import GraphFile, Overrides

if TYPE_CHECKING:
    from streamer.graph import Graph


def command(
    graph: GraphFile,
    set_: Overrides = None,
) -> None:
    """Check a graph file and say in one line what it comes to.

    Every mistake is told with its line and column, all of them at once; nothing is opened or
    started. The exit status is 2 if there is one.
    """
    from streamer.graph import Graph

    print(summary(Graph.load(graph, overrides=set_ or [])))


def summary(graph: Graph) -> str:
    """One line: the graph's name, how much of what it has, and what happens to late pictures."""
    links = [link for link in graph.links if link.media == "video"]
    sound = " and sound" if len(graph.links) > len(links) else ""
    parts = [
        count(len(graph.nodes), "node"),
        count(len(links), "link") + sound,
        count(len(graph.workers), "worker"),
    ]
    latest = sum(link.queue == "latest" for link in links)
    if latest == len(links):
        policy = "live: the newest picture wins"
    elif not latest:
        policy = "no picture is dropped"
    else:
        policy = f"the newest picture wins on {latest} of {len(links)} links"
    return f"{graph.name}: {', '.join(parts)}; {policy}"


def count(number: int, thing: str) -> str:
    """`1 node`, `2 nodes`."""
    return f"{number} {thing}" + ("" if number == 1 else "s")
