"""Nodes as the file gives them: each with all that could be understood of it.

A mistake in one place must not hide mistakes in others, so a draft has gaps where the file is
wrong; every gap has been reported.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from pydantic import ValidationError

from streamer.errors import Problem
from streamer.graph.plan import Role
from streamer.graph.spec import MAX_NODES, GraphSpec, LinkSpec, NodeSpec, RestartSpec
from streamer.graph.tree import Mapping, Place, Scalar, Value, find, walk
from streamer.graph.wording import explain, field_names, hide, near
from streamer.nodebase import Join, Node, Params, Sink, Source, Transform
from streamer.registry import UnknownKindError, kinds, load

Report = Callable[[Problem], None]

_ROLES: tuple[tuple[type[Node[Any]], Role], ...] = (
    (Source, "source"),
    (Transform, "transform"),
    (Join, "join"),
    (Sink, "sink"),
)


@dataclass(frozen=True, slots=True)
class Input:
    """One input of a node, as the file gives it.

    Attributes:
        name: of the input.
        node: name of the node that sends.
        queue: policy, or None for the default.
        depth: depth, or None for the default.
        place: where the sender's name stands.
        depth_place: where the depth stands.
    """

    name: str
    node: str
    queue: Literal["latest", "wait"] | None
    depth: int | None
    place: Place
    depth_place: Place


@dataclass(slots=True)
class Draft:
    """One node of the file.

    Attributes:
        name: in the graph.
        place: where the name stands.
        uses: kind, None if it could not be understood.
        uses_place: where the kind stands.
        node_class: class of the kind, None if it cannot be had.
        role: which of the four node classes it is.
        inputs: empty without `from`, None if it could not be understood.
        from_place: where `from` stands, None without it.
        given: parameters as given, JSON types.
        given_tree: the same with their places.
        params: checked parameters, None if they are wrong.
        gpu: ordinal of the CUDA device.
        restart: restart policy, None for the default.
    """

    name: str
    place: Place
    uses: str | None = None
    uses_place: Place = field(default_factory=lambda: Place(""))
    node_class: type[Node[Any]] | None = None
    role: Role | None = None
    inputs: tuple[Input, ...] | None = ()
    from_place: Place | None = None
    given: dict[str, Any] = field(default_factory=dict)
    given_tree: Mapping | None = None
    params: Params | None = None
    gpu: int | None = None
    restart: RestartSpec | None = None


@dataclass(slots=True)
class GraphDraft:
    """A whole file.

    Attributes:
        name: as given, None if it is not or is wrong.
        nodes: in the order of the file.
        workers: names of nodes with their places, by name of the process.
        worker_places: where the processes' names stand.
    """

    name: str | None
    nodes: dict[str, Draft]
    workers: dict[str, list[tuple[str, Place]]]
    worker_places: dict[str, Place]


def read_draft(root: Value, report: Report) -> GraphDraft:
    """All that can be understood of a file.

    Args:
        root: the file's values.
        report: called for each mistake.
    """
    if not isinstance(root, Mapping):
        report(root.place.problem("a graph is a mapping with version, name and nodes"))
        return GraphDraft(None, {}, {}, {})
    nodes = root.get("nodes")
    if isinstance(nodes, Mapping) and len(nodes.entries) > MAX_NODES:
        # Each is compared with the others: with very many of them that would take minutes.
        count = len(nodes.entries)
        report(root.entries["nodes"].place.problem(f"nodes: at most {MAX_NODES}, not {count}"))
        return GraphDraft(None, {}, {}, {})
    classes = _classes(root, report)
    wrong: set[tuple[str | int, ...]] = set()
    try:
        GraphSpec.model_validate(root.plain())
    except ValidationError as error:
        errors = error.errors(include_url=False)
        for item in errors:
            wrong.add(find(root, item["loc"]).path[:3])
        for problem in explain(
            errors,
            root,
            place=root.place,
            title=_title,
            unknown=lambda path, key: _unknown(path, key, classes),
            wanted=_wanted,
        ):
            report(problem)
    drafts: dict[str, Draft] = {}
    if isinstance(nodes, Mapping):
        for name, entry in nodes.entries.items():
            bad = {str(path[2]) for path in wrong if path[:2] == ("nodes", name) and len(path) > 2}
            draft = _node(name, entry.place, entry.value, bad, report)
            draft.node_class, draft.role = classes.get(name, (None, None))
            _check_params(draft, entry.value, report)
            drafts[name] = draft
    workers, places = _workers(root.get("workers"))
    name_value = root.get("name")
    title = None
    if isinstance(name_value, Scalar) and isinstance(name_value.value, str):
        title = name_value.value
    return GraphDraft(title, drafts, workers, places)


def _title(path: Sequence[str | int]) -> str:
    steps = path[1:] if len(path) > 1 and path[0] == "nodes" else path
    text = ""
    for step in steps:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text or "the graph"


def _classes(
    root: Mapping, report: Report
) -> dict[str, tuple[type[Node[Any]] | None, Role | None]]:
    """The class and role of every node, as far as they can be had."""
    nodes = root.get("nodes")
    classes: dict[str, tuple[type[Node[Any]] | None, Role | None]] = {}
    for name, entry in nodes.entries.items() if isinstance(nodes, Mapping) else ():
        uses = entry.value.get("uses") if isinstance(entry.value, Mapping) else None
        if not isinstance(uses, Scalar) or not isinstance(uses.value, str) or not uses.value:
            continue
        try:
            node_class = load_kind(uses.value)
        except UnknownKindError as error:
            report(uses.place.problem(f"{name}.uses: {hide(str(error), uses)}"))
            continue
        role = role_of(node_class)
        if role is None:
            bases = "Source, Transform, Join or Sink"
            report(uses.place.problem(f"{name}.uses: {uses.value} derives from none of {bases}"))
        classes[name] = (node_class, role)
    return classes


def role_of(node_class: type[Node[Any]]) -> Role | None:
    """Which of the four node classes a class derives from, None if from none of them."""
    return next((role for base, role in _ROLES if issubclass(node_class, base)), None)


def load_kind(uses: str) -> type[Node[Any]]:
    """The class of a kind.

    Raises:
        UnknownKindError: there is none, with a suggestion, or its module fails.
    """
    known = kinds()
    if uses not in known and ":" not in uses:
        raise UnknownKindError(f"unknown kind of node {uses!r}; {near(uses, known)}")
    try:
        return load(uses)
    except UnknownKindError as error:
        if isinstance(error.__cause__, ModuleNotFoundError) and uses not in known:
            hint = "install its package, or put its folder into PYTHONPATH"
            raise UnknownKindError(f"{error}; {hint}") from error
        raise
    except Exception as error:  # a module runs whatever it likes when it is imported
        raise UnknownKindError(
            f"the kind {uses!r} cannot be imported: {type(error).__name__}: {error}"
        ) from error


def _unknown(
    path: Sequence[str | int],
    key: str,
    classes: dict[str, tuple[type[Node[Any]] | None, Role | None]],
) -> str:
    if not path:
        return f"is no key of a graph; {near(key, field_names(GraphSpec))}"
    if path[-1] == "restart" and len(path) == 3:
        return f"is no key of restart; {near(key, field_names(RestartSpec))}"
    if len(path) == 2:
        node_class, _ = classes.get(str(path[1]), (None, None))
        if node_class is not None and key in field_names(node_class.Params):
            return f"is a parameter; write it under 'with': with: {{{key}: ...}}"
        return f"is no key of a node; {near(key, field_names(NodeSpec))}"
    return f"is no key of a link; {near(key, field_names(LinkSpec))}"


def _wanted(path: Sequence[str | int]) -> str:
    model = GraphSpec if len(path) == 1 else NodeSpec if len(path) == 3 else LinkSpec
    for name, item in model.model_fields.items():
        if (item.alias or name) == path[-1]:
            return " ".join((item.description or "").split())
    return ""


def _node(name: str, place: Place, value: Value, bad: set[str], report: Report) -> Draft:
    """A draft without its class; `bad` are keys that were reported."""
    draft = Draft(name, place, uses_place=place)
    if not isinstance(value, Mapping):
        draft.inputs = None
        return draft
    for key, entry in value.entries.items():
        if any(isinstance(item, Scalar) and not item.known for item in walk(entry.value)):
            bad = bad | {key}
    if isinstance(value.get("with"), Mapping):
        bad = bad - {"with"}  # its own checks come later, one parameter at a time
    sound = {k: entry.value.plain() for k, entry in value.entries.items() if k not in bad}
    sound.setdefault("uses", "?")
    try:
        spec = NodeSpec.model_validate(sound)
    except ValidationError:  # nothing more can be made of it, and it was reported
        draft.inputs = None
        return draft
    if "uses" in value.entries:
        draft.uses_place = value.entries["uses"].value.place
        draft.uses = None if "uses" in bad else spec.uses
    draft.gpu, draft.restart = spec.gpu, spec.restart
    given = value.get("with")
    if isinstance(given, Mapping):
        draft.given, draft.given_tree = given.plain(), given
    if "from" in value.entries:
        if "from" in bad:
            draft.inputs = None
            draft.from_place = value.entries["from"].place
        elif spec.from_ is not None:
            draft.from_place = value.entries["from"].place
            draft.inputs = _inputs(name, spec, value.entries["from"].value, report)
    elif any(difflib.get_close_matches(key, ["from"], cutoff=0.65) for key in bad):
        draft.inputs = None  # misspelt
    return draft


def _inputs(name: str, spec: NodeSpec, value: Value, report: Report) -> tuple[Input, ...]:
    feeds = cast("dict[str, str | LinkSpec] | list[str | LinkSpec] | str | LinkSpec", spec.from_)
    items: list[tuple[str | None, str | LinkSpec, Value]] = []
    if isinstance(feeds, dict):
        assert isinstance(value, Mapping)
        items = [(k, feed, value.entries[k].value) for k, feed in feeds.items()]
    elif isinstance(feeds, list):
        items = [(None, feed, find(value, (i,)).value) for i, feed in enumerate(feeds)]
    else:
        items = [(None, feeds, value)]
    inputs: list[Input] = []
    for input_name, feed, at in items:
        link = LinkSpec(node=feed) if isinstance(feed, str) else feed
        place = find(at, ("node",)).place
        title = f"{name}.from"
        if any(link.node == other.node for other in inputs):
            report(place.problem(f"{title}: {link.node!r} stands twice; one link is enough"))
            continue
        depth_place = find(at, ("depth",)).place
        inputs.append(
            Input(input_name or link.node, link.node, link.queue, link.depth, place, depth_place)
        )
    return tuple(inputs)


def _check_params(draft: Draft, value: Value, report: Report) -> None:
    node_class = draft.node_class
    if node_class is None or draft.role is None or not isinstance(value, Mapping):
        return
    entry = value.entries.get("with")
    if entry is not None and draft.given_tree is None and entry.value.plain() is not None:
        return  # no mapping: reported
    given = draft.given_tree or Mapping(entry.place if entry else draft.place)
    draft.params = checked_params(
        draft.name,
        draft.uses or "?",
        node_class,
        given,
        report,
        title=lambda path: _title(("nodes", draft.name, "with", *path)),
        otherwise=draft.uses_place,
    )


def checked_params(
    name: str,
    kind: str,
    node_class: type[Node[Any]],
    given: Mapping,
    report: Report,
    *,
    title: Callable[[Sequence[str | int]], str],
    otherwise: Place,
) -> Params | None:
    """The parameters of a node, or None if they are wrong.

    Args:
        name: of the node.
        kind: of the node, as in the file.
        node_class: of that kind.
        given: as in the file.
        report: called for each mistake.
        title: the name of a parameter's path in messages.
        otherwise: the place of a mistake that has none in `given`.
    """
    names = field_names(node_class.Params)

    def unknown(path: Sequence[str | int], key: str) -> str:
        said = f"{kind} has no such parameter" if not path else "is not known"
        return f"{said}; {near(key, names)}" if not path else said

    def wanted(path: Sequence[str | int]) -> str:
        for field_name, item in node_class.Params.model_fields.items():
            if len(path) == 1 and (item.alias or field_name) == path[0]:
                return inspect.cleandoc(item.description or "").replace("\n", " ")
        return ""

    try:
        return node_class.Params.model_validate(given.plain())
    except ValidationError as error:
        for problem in explain(
            error.errors(include_url=False),
            given,
            place=given.place,
            title=title,
            unknown=unknown,
            wanted=wanted,
        ):
            report(problem)
    except Exception as error:  # a validator of someone else's may raise anything
        text = hide(str(error), given)
        report(otherwise.problem(f"{name}.with: {type(error).__name__}: {text}"))
    return None


def _workers(
    value: Value | None,
) -> tuple[dict[str, list[tuple[str, Place]]], dict[str, Place]]:
    groups: dict[str, list[tuple[str, Place]]] = {}
    places: dict[str, Place] = {}
    if isinstance(value, Mapping):
        for name, entry in value.entries.items():
            places[name] = entry.place
            items = getattr(entry.value, "items", [])
            groups[name] = [
                (item.value, item.place)
                for item in items
                if isinstance(item, Scalar) and isinstance(item.value, str)
            ]
    return groups, places
