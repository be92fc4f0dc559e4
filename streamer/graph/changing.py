"""Parameters of a graph that runs: read, checked, changed one at a time.

A field of a node's `Params` can change between two pictures if it says so:
`Field(..., json_schema_extra={"live": True})`.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, Final

from streamer.errors import ParameterError, Problem
from streamer.graph.draft import checked_params, load_kind
from streamer.graph.plan import NodePlan, Plan
from streamer.graph.tree import Mapping, Place, one_line, tree_of
from streamer.graph.wording import field_names, near
from streamer.masking import MASK, is_secret_name, mask
from streamer.nodebase import Node

MAX_CHANGE: Final = 32 * 1024
"""Bytes that the parameters of a node may come to when one of them changes."""


def live_names(node_class: type[Node[Any]]) -> tuple[str, ...]:
    """Names of the parameters that can change while a node runs."""
    return tuple(
        field.alias or name
        for name, field in node_class.Params.model_fields.items()
        if isinstance(field.json_schema_extra, dict) and field.json_schema_extra.get("live")
    )


def current(plan: Plan, path: str) -> Any:
    """The value of a parameter, its default where the graph gives none, without credentials.

    Nothing is validated anew: what a validator looks at may have gone since, a stick with a model,
    say, and the value is still the one that the node works with.

    Args:
        plan: with the parameters as they are now.
        path: `NODE.KEY`.

    Raises:
        ParameterError: there is no such node or parameter.
    """
    node, node_class, key = _resolve(plan, path)
    value = node.params[key] if key in node.params else _default(node_class, key)
    return _shown(value, key)


def _default(node_class: type[Node[Any]], key: str) -> Any:
    """The default of a parameter, as JSON types."""
    names = {field.alias or name: name for name, field in node_class.Params.model_fields.items()}
    defaults = node_class.Params.model_construct()
    dumped = defaults.model_dump(mode="json", include={names[key]}, warnings=False)
    return next(iter(dumped.values()))


def _shown(value: Any, key: str) -> Any:
    """A value without credentials; `key` is what it stands under."""
    if is_secret_name(key) and value not in (None, ""):
        return MASK
    if isinstance(value, str):
        return mask(value)
    if isinstance(value, dict):
        return {name: _shown(item, str(name)) for name, item in value.items()}
    if isinstance(value, list):
        return [_shown(item, key) for item in value]
    return value


def changed(plan: Plan, path: str, value: Any) -> NodePlan:
    """The node of a plan with one parameter changed.

    Args:
        plan: with the parameters as they are now.
        path: `NODE.KEY`.
        value: JSON types.

    Raises:
        ParameterError: there is no such parameter, it cannot change while the graph runs, or the
            value is wrong.
    """
    node, node_class, key = _resolve(plan, path)
    name = node.name
    live = live_names(node_class)
    if key not in live:
        names = f"{', '.join(live)} can" if live else "none of its parameters can"
        raise ParameterError(f"{path} cannot change while the graph runs; {names}")
    problems: list[Problem] = []
    given = tree_of({**node.params, key: value}, Place("set"), problems.append)
    params = None
    if not problems and isinstance(given, Mapping):
        params = checked_params(
            node.name,
            node.uses,
            node_class,
            given,
            problems.append,
            title=lambda steps: ".".join(map(str, (node.name, *steps))),
            otherwise=Place("set"),
        )
    if params is None:
        raise ParameterError(one_line("; ".join(problem.message for problem in problems)))
    changed_params = {**node.params, key: value}
    if (size := len(json.dumps(changed_params))) > MAX_CHANGE:
        raise ParameterError(
            f"{path} cannot change while the graph runs: the parameters of {name} come to "
            f"{size} bytes, and at most {MAX_CHANGE} can be sent"
        )
    return replace(node, params=changed_params)


def _resolve(plan: Plan, path: str) -> tuple[NodePlan, type[Node[Any]], str]:
    name, dot, key = path.partition(".")
    if not dot or not name or not key:
        raise ParameterError(f"write NODE.KEY, as in style.prompt, not {one_line(path, 60)!r}")
    try:
        node = plan.node(name)
    except KeyError:
        known = near(name, [node.name for node in plan.nodes])
        raise ParameterError(f"unknown node {one_line(name, 60)!r}; {known}") from None
    node_class = load_kind(node.entry)
    names = field_names(node_class.Params)
    if key not in names:
        known = near(key, names)
        shown = one_line(path, 100)
        raise ParameterError(f"{shown}: {node.uses} has no such parameter; {known}")
    return node, node_class, key
