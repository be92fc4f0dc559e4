"""From a checked graph to its plan."""

from __future__ import annotations

from typing import Any, Literal

from streamer.graph.check import order, refused, wanted
from streamer.graph.draft import Draft, GraphDraft, Report
from streamer.graph.plan import LinkPlan, NodePlan, Plan, RestartPlan, WorkerPlan
from streamer.graph.spec import MAX_LATEST, RestartSpec
from streamer.nodebase import Node, Sink, Source
from streamer.registry import kinds

LATEST_DEPTH = 1
WAIT_DEPTH = 4
AUDIO_DEPTH = 256


def plan(graph: GraphDraft, name: str, report: Report) -> Plan | None:
    """The plan of a graph in which no mistake was found.

    Nodes are asked here whether they are live and whether they take sound, which only they know.

    Args:
        graph: checked.
        name: of the graph, where the file gives none.
        report: called for each mistake that shows only now.

    Returns:
        The plan, or None if mistakes were reported.
    """
    mistakes = 0

    def count(problem: Any) -> None:
        nonlocal mistakes
        mistakes += 1
        report(problem)

    names = order(graph.nodes)
    live: dict[str, bool] = {}
    for node in (graph.nodes[item] for item in names):
        live[node.name] = live[node.inputs[0].node] if node.inputs else _is_live(node, count)
    links = _links(graph, names, live, count)
    sound = _sound(graph, names, links, live, count)
    if mistakes:
        return None
    points = kinds()
    return Plan(
        name=graph.name or name,
        nodes=tuple(
            _node(graph, graph.nodes[item], live[item], item in {s.source for s in sound}, points)
            for item in names
        ),
        links=(*links, *sound),
        workers=_workers(graph, names),
    )


def _links(
    graph: GraphDraft, names: list[str], live: dict[str, bool], report: Report
) -> list[LinkPlan]:
    links: list[LinkPlan] = []
    for node in (graph.nodes[item] for item in names):
        for number, item in enumerate(node.inputs or ()):
            queue: Literal["latest", "wait"] = item.queue or (
                "latest" if live[item.node] else "wait"
            )
            depth = item.depth or (LATEST_DEPTH if queue == "latest" else WAIT_DEPTH)
            if queue == "latest" and depth > MAX_LATEST:
                rule = f"must be at most {MAX_LATEST} for queue latest, not {depth}"
                report(item.depth_place.problem(f"{node.name}.from.depth: {rule}"))
            links.append(
                LinkPlan(
                    source=item.node,
                    target=node.name,
                    input=item.name,
                    media="video",
                    queue=queue,
                    depth=depth,
                    leading=number == 0,
                )
            )
    return links


def _sound(
    graph: GraphDraft,
    names: list[str],
    links: list[LinkPlan],
    live: dict[str, bool],
    report: Report,
) -> list[LinkPlan]:
    """Links beside the pictures: from the source that leads to each sink that can hold sound."""
    leader = {link.target: link.source for link in links if link.leading}
    sound: list[LinkPlan] = []
    for name in names:
        if not _takes_sound(graph.nodes[name], report):
            continue
        source = name
        while source in leader:
            source = leader[source]
        sound.append(
            LinkPlan(
                source=source,
                target=name,
                input="audio",
                media="audio",
                # A camera cannot wait for an output that is away: the oldest sound is left out.
                queue="latest" if live[name] else "wait",
                depth=AUDIO_DEPTH,
                leading=False,
            )
        )
    return sound


def _is_live(node: Draft, report: Report) -> bool:
    assert node.node_class is not None
    assert issubclass(node.node_class, Source)
    try:
        return bool(node.node_class.is_live(node.params))
    except Exception as error:  # someone else's code
        refused(node, error, report)
        return False


def _takes_sound(node: Draft, report: Report) -> bool:
    if node.node_class is None or node.params is None or node.role != "sink":
        return False
    try:
        sink: Node[Any] = node.node_class(node.params)
        return isinstance(sink, Sink) and bool(sink.takes_audio())
    except Exception as error:  # someone else's code
        refused(node, error, report)
        return False


def _node(
    graph: GraphDraft, node: Draft, live: bool, wants_audio: bool, points: dict[str, str]
) -> NodePlan:
    assert node.uses is not None
    assert node.role is not None
    spec = node.restart or RestartSpec()
    usual: Literal["never", "on-failure", "always"] = "always" if live else "on-failure"
    if node.role == "source" and not live:
        usual = "never"
    restart = RestartPlan(
        policy=spec.policy or usual,
        max=spec.max,
        window=spec.window,
        rest=spec.rest,
        hang=spec.hang,
    )
    return NodePlan(
        name=node.name,
        uses=node.uses,
        entry=points.get(node.uses, node.uses),
        params=node.given,
        role=node.role,
        live=live,
        wanted=wanted(graph.nodes, node.name),
        wants_audio=wants_audio,
        gpu=node.gpu,
        restart=restart,
    )


def _workers(graph: GraphDraft, names: list[str]) -> tuple[WorkerPlan, ...]:
    homes = {name: worker for worker, members in graph.workers.items() for name, _ in members}
    workers: dict[str, list[str]] = {}
    for name in names:
        workers.setdefault(homes.get(name, name), []).append(name)
    return tuple(WorkerPlan(name=worker, nodes=tuple(nodes)) for worker, nodes in workers.items())
