"""What no single node of a graph can know: whether nodes, links and workers fit together."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter

from streamer.errors import StreamerError
from streamer.graph.draft import Draft, GraphDraft, Input, Report
from streamer.graph.files import files_of
from streamer.graph.tree import Mapping as GivenMapping
from streamer.graph.tree import Place
from streamer.graph.wording import hide, near
from streamer.nodebase import Join, Sink, Transform


def check(graph: GraphDraft, report: Report) -> None:
    """Reports every mistake in the way that nodes are linked and grouped.

    Args:
        graph: as read from the file; gaps in it have been reported.
        report: called for each mistake.
    """
    for node in graph.nodes.values():
        _check_inputs(node, graph.nodes, report)
    _check_unused(graph.nodes, report)
    for cycle in cycles(graph.nodes):
        _report_cycle(cycle, graph.nodes, report)
    _check_formats(graph.nodes, report)
    _check_files(graph.nodes, report)
    _check_claims(graph.nodes, report)
    _check_workers(graph, report)


def _check_inputs(node: Draft, nodes: Mapping[str, Draft], report: Report) -> None:
    title = f"{node.name}.from"
    if node.role == "source" and node.from_place is not None:
        report(node.from_place.problem(f"{title}: a source takes no pictures; remove 'from'"))
        return
    if node.inputs is None:
        return
    if node.role not in (None, "source") and not node.inputs:
        message = f"{node.name}: needs 'from', the node whose pictures it takes"
        report((node.from_place or node.place).problem(message))
    for item in node.inputs:
        sender = nodes.get(item.node)
        if sender is None:
            others = [name for name in nodes if name != node.name]
            report(
                item.place.problem(
                    f"{title}: unknown node {item.node!r}; {near(item.node, others)}"
                )
            )
        elif sender.role == "sink":
            message = f"{title}: {item.node!r} is an output ({sender.uses}) and passes nothing on"
            report(item.place.problem(message + _instead(sender)))
    if node.role in ("transform", "sink") and len(node.inputs) > 1:
        message = f"takes one input, not {len(node.inputs)}; a join such as mosaic takes several"
        report(node.inputs[1].place.problem(f"{title}: {node.name} ({node.uses}) {message}"))


def _instead(sink: Draft) -> str:
    if sink.inputs:
        return f"; take the pictures of {sink.inputs[0].node!r}"
    return ""


def _check_unused(nodes: Mapping[str, Draft], report: Report) -> None:
    if any(node.inputs is None for node in nodes.values()):
        return  # one of them may be the consumer
    taken = {item.node for node in nodes.values() for item in node.inputs or ()}
    for name in taken - nodes.keys():
        taken.update(difflib.get_close_matches(name, nodes, n=1))
    for node in nodes.values():
        if node.role not in (None, "sink") and node.name not in taken:
            message = f"nobody takes its pictures; write 'from: {node.name}' in another node"
            report(node.place.problem(f"{node.name}: {message}, or remove this one"))


def cycles(nodes: Mapping[str, Draft]) -> Iterable[Sequence[str]]:
    """One cycle after another, in the direction of the pictures, first and last node the same."""
    senders = {
        node.name: [item.node for item in node.inputs or () if item.node in nodes]
        for node in nodes.values()
    }
    while True:
        try:
            TopologicalSorter(senders).prepare()
        except CycleError as error:
            cycle: list[str] = error.args[1]
        else:
            return
        # Told from the node that stands first in the file.
        ring = cycle[:-1]
        first = min(ring, key=list(nodes).index)
        at = ring.index(first)
        yield [*ring[at:], *ring[:at], first]
        for name in ring:
            senders[name] = []


def _report_cycle(cycle: Sequence[str], nodes: Mapping[str, Draft], report: Report) -> None:
    first, sender = nodes[cycle[0]], cycle[-2]
    place = next(item.place for item in first.inputs or () if item.node == sender)
    if len(cycle) == 2:
        report(place.problem(f"{first.name}.from: {first.name!r} cannot take its own pictures"))
        return
    path = " → ".join(cycle)
    message = f"{first.name}.from: the nodes form a cycle: {path}; pictures flow one way only"
    report(place.problem(message))


def order(nodes: Mapping[str, Draft]) -> list[str]:
    """Names so that senders come before receivers, else as in the file; there is no cycle."""
    done: dict[str, None] = {}
    waiting = list(nodes)
    while waiting:
        ready = next(
            name for name in waiting if all(item.node in done for item in nodes[name].inputs or ())
        )
        waiting.remove(ready)
        done[ready] = None
    return list(done)


def consumers(nodes: Mapping[str, Draft], name: str) -> list[tuple[Draft, Input]]:
    """Nodes that take the pictures of a node, in the order of the file."""
    return [
        (node, item) for node in nodes.values() for item in node.inputs or () if item.node == name
    ]


def wanted(nodes: Mapping[str, Draft], name: str) -> tuple[str, ...]:
    """Pixel formats that all consumers of a node take, in the first one's order."""
    taking = [node.node_class.accepts for node, _ in consumers(nodes, name) if node.node_class]
    if not taking:
        return ()
    return tuple(item for item in taking[0] if all(item in other for other in taking))


def _check_formats(nodes: Mapping[str, Draft], report: Report) -> None:
    for node in nodes.values():
        if node.node_class is None or node.role == "sink":
            continue
        makes: tuple[str, ...] | None = None
        if issubclass(node.node_class, Transform | Join):
            makes = node.node_class.emits
        fits = True
        taking: list[Draft] = []
        for consumer, item in consumers(nodes, node.name):
            if consumer.node_class is None or consumer.role == "source":
                continue
            taking.append(consumer)
            accepts = consumer.node_class.accepts
            if makes is not None and not set(makes) & set(accepts):
                fits = False
                message = (
                    f"{consumer.name}.from: {node.name} makes {_list(makes)}, "
                    f"but {consumer.name} takes {_list(accepts)}; put a preprocess between them"
                )
                report(item.place.problem(message))
        common = wanted(nodes, node.name)
        if fits and len(taking) > 1 and not set(common) & set(makes or common):
            lists = ", ".join(
                f"{c.name} ({_list(c.node_class.accepts)})" for c in taking if c.node_class
            )
            message = f"{node.name}: no pixel format suits all that take its pictures: {lists}"
            report(node.place.problem(f"{message}; put a preprocess before one of them"))


def _check_files(nodes: Mapping[str, Draft], report: Report) -> None:
    """An output must not write a file that is read, or that another output writes."""
    used: dict[object, tuple[str, str]] = {}
    for role, does in (("source", "reads"), ("sink", "writes")):
        for node in nodes.values():
            url = node.given.get("url") if node.role == role else None
            files = files_of(url) if isinstance(url, str) else frozenset()
            taken = next((used[file] for file in files if file in used), None)
            if role == "sink" and taken is not None:
                other, verb = taken
                place = node.given_tree.place if node.given_tree else node.place
                rule = f"is the file that {other} {verb}; choose another name"
                report(place.problem(f"{node.name}.url: {url!r} {rule}"))
            used |= dict.fromkeys(files, (node.name, does))


def _check_claims(nodes: Mapping[str, Draft], report: Report) -> None:
    """Two outputs must not have what each needs for itself: an address, a port, a device."""
    taken: dict[str, tuple[str, Place]] = {}
    for node in nodes.values():
        if node.params is None or node.node_class is None or not issubclass(node.node_class, Sink):
            continue
        try:
            claims = dict(node.node_class.claims(node.params))
        except Exception as error:  # someone else's code
            refused(node, error, report)
            continue
        for key, claim in claims.items():
            given = node.given_tree.get(key) if node.given_tree else None
            place = given.place if given is not None else node.place
            if claim not in taken:
                taken[claim] = f"{node.name}.{key}", place
                continue
            other, there = taken[claim]
            at = f", at {there.line}:{there.column}" if there.line else ""
            message = f"is what {other} names already{at}; one output alone can have it"
            report(place.problem(f"{node.name}.{key}: {message}"))


def refused(node: Draft, error: Exception, report: Report) -> None:
    """Reports what the code of a node's class has raised."""
    # An error of streamer is a sentence for the user; any other is a defect of the node.
    text = str(error) if isinstance(error, StreamerError) else f"{type(error).__name__}: {error}"
    given = node.given_tree or GivenMapping(node.place)
    report(given.place.problem(f"{node.name}.with: {hide(text, given)}"))


def _list(formats: Sequence[str]) -> str:
    return ", ".join(formats) or "nothing"


def _check_workers(graph: GraphDraft, report: Report) -> None:
    homes: dict[str, str] = {}
    for worker, members in graph.workers.items():
        for name, place in members:
            if name not in graph.nodes:
                hint = near(name, graph.nodes)
                report(place.problem(f"workers.{worker}: unknown node {name!r}; {hint}"))
            elif name in homes:
                where = "twice" if homes[name] == worker else f"in {homes[name]!r} already"
                message = f"{name!r} is {where}; a node lives in one process"
                report(place.problem(f"workers.{worker}: {message}"))
            else:
                homes[name] = worker
    for worker, place in graph.worker_places.items():
        if worker in graph.nodes and homes.get(worker) != worker:
            message = "is the name of a node that is not in this process; choose another name"
            report(place.problem(f"workers.{worker}: {message}"))
