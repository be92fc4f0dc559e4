"""`--set NODE.KEY=VALUE`: parameters given on the command line."""

from __future__ import annotations

from collections.abc import Iterable

from streamer.graph.draft import Report
from streamer.graph.reading import read_value
from streamer.graph.spec import NodeSpec
from streamer.graph.tree import MAX_DEPTH, Entry, Mapping, Place, Scalar, Value, one_line
from streamer.graph.wording import field_names, near
from streamer.masking import MASK, is_secret_name, mask


def apply(root: Value, overrides: Iterable[str], report: Report) -> None:
    """Puts parameters into a graph's tree, in place of those in the file.

    Args:
        root: the file's values; changed.
        overrides: `NODE.KEY=VALUE`, the key with dots for what is nested.
        report: called for each mistake.
    """
    for text in overrides:
        _apply(root, text, report)


def _apply(root: Value, text: str, report: Report) -> None:
    path, equals, typed = text.partition("=")
    steps = [step.strip() for step in path.split(".")]
    shown = MASK if any(map(is_secret_name, steps)) else mask(typed)
    if "{" in typed:  # keys of its own, which may be names of secrets
        shown = "{…}"
    place = Place(f"--set {one_line(path, 60)}{equals}{one_line(shown, 60)}")
    if not equals or len(steps) < 2 or not all(steps):
        report(place.problem("write --set NODE.KEY=VALUE, as in --set style.prompt=comic"))
        return
    if len(steps) > MAX_DEPTH:
        report(place.problem(f"a parameter lies at most {MAX_DEPTH} keys deep"))
        return
    name, *keys = steps
    nodes = root.get("nodes") if isinstance(root, Mapping) else None
    if not isinstance(nodes, Mapping):
        return  # reported already
    node = nodes.get(name)
    if node is None:
        report(place.problem(f"unknown node {name!r}; {near(name, nodes.entries)}"))
        return
    if not isinstance(node, Mapping):
        return
    if keys[0] in field_names(NodeSpec):
        message = f"--set gives parameters only; write {keys[0]!r} of {name} in the file"
        report(place.problem(message))
        return
    value = read_value(typed, place, report)
    at = node
    for key in ("with", *keys[:-1]):
        inner = at.get(key)
        if inner is None or (isinstance(inner, Scalar) and inner.value is None):
            inner = Mapping(place)
            at.entries[key] = Entry(place, inner)
        if not isinstance(inner, Mapping):
            report(place.problem(f"{key!r} of {name} holds no keys of its own"))
            return
        at = inner
    at.entries[keys[-1]] = Entry(place, value)
