"""The JSON Schema of graph files, for editors; made from the models that check them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from streamer.errors import StreamerError
from streamer.graph.draft import load_kind
from streamer.graph.spec import GraphSpec
from streamer.nodebase import Join, Node, Source, Transform
from streamer.registry import kinds

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_SUBSTITUTION: Final = {
    "type": "string",
    "pattern": r"\$\{[A-Za-z_][A-Za-z0-9_]*(:-[^{}]*)?\}",
    "description": "read from the environment: ${NAME} or ${NAME:-default}",
}
_CLASS: Final = r"^[A-Za-z_][A-Za-z0-9_.]*:[A-Za-z_][A-Za-z0-9_]*$"


def description(node_class: type[Node[Any]]) -> str:
    """The first paragraph of a node's docstring, in one line."""
    text = (node_class.__doc__ or "").strip().partition("\n\n")[0]
    return " ".join(text.split())


def graph_schema(report: Callable[[str], None]) -> dict[str, Any]:
    """The schema, with the parameters of every installed kind.

    Args:
        report: called with one sentence for each kind that cannot be imported; it stays in the
            schema, with any parameters.
    """
    schema = GraphSpec.model_json_schema(by_alias=True)
    definitions = schema["$defs"]
    definitions["Substitution"] = _SUBSTITUTION
    for model in [schema, *definitions.values()]:
        _let_environment_in(model)
    node = definitions["NodeSpec"]
    names, rules = [], []
    for kind in kinds():
        try:
            node_class = load_kind(kind)
        except StreamerError as error:
            report(str(error))
            names.append({"const": kind})
            continue
        names.append({"const": kind, "description": description(node_class)})
        rules.append(_rule(kind, node_class, definitions))
    node["properties"]["uses"] = {
        "description": node["properties"]["uses"]["description"],
        "anyOf": [*names, {"type": "string", "pattern": _CLASS}, {"$ref": "#/$defs/Substitution"}],
    }
    node["allOf"] = rules
    schema["title"] = "streamer graph"
    return {"$schema": DIALECT, **schema}


def _rule(kind: str, node_class: type[Node[Any]], definitions: dict[str, Any]) -> dict[str, Any]:
    """What holds for nodes of a kind; its parameters go to the definitions."""
    parameters = parameter_schema(node_class, prefix=f"{kind}.")
    inner = parameters.pop("$defs", {})
    for name, definition in inner.items():
        definitions[f"{kind}.{name}"] = definition
    for model in [parameters, *inner.values()]:
        _let_environment_in(model)
    definitions[f"{kind}.with"] = parameters
    needed = bool(parameters.get("required"))
    with_ref = {"$ref": f"#/$defs/{kind}.with"}
    then: dict[str, Any] = {
        "properties": {"with": with_ref if needed else {"anyOf": [with_ref, {"type": "null"}]}}
    }
    required = ["with"] if needed else []
    if issubclass(node_class, Source):
        then["properties"]["from"] = False
    else:
        required.append("from")
    if required:
        then["required"] = required
    if not issubclass(node_class, Join | Source):
        # One input: a name, a link, or a single entry.
        then["properties"]["from"] = {"not": {"type": "array", "minItems": 2}}
    return {"if": {"properties": {"uses": {"const": kind}}, "required": ["uses"]}, "then": then}


def parameter_schema(node_class: type[Node[Any]], *, prefix: str = "") -> dict[str, Any]:
    """The JSON Schema of a kind's parameters.

    Args:
        node_class: class of the kind.
        prefix: put before the names of definitions that the schema refers to.
    """
    return node_class.Params.model_json_schema(
        by_alias=True, ref_template=f"#/$defs/{prefix}{{model}}"
    )


def _let_environment_in(model: dict[str, Any]) -> None:
    """Lets `${NAME}` stand for every value that is no mapping or list."""
    # What pydantic says of the class is written for Python programmers.
    model.pop("title", None)
    _close(model)
    for name, item in model.get("properties", {}).items():
        kept = {key: item.pop(key) for key in ("description", "default", "unit") if key in item}
        item.pop("title", None)
        if "description" in kept:
            kept["description"] = " ".join(kept["description"].split())
        free = item.get("type") == "string" and not item.keys() & {"enum", "pattern", "format"}
        if not (item.get("type") in ("object", "array") or free or name in ("from", "with")):
            item = {"anyOf": [item, {"$ref": "#/$defs/Substitution"}]}
        model["properties"][name] = {**kept, **item}


def _close(item: Any) -> None:
    """Refuses names that do not match: pydantic leaves that open where names have a pattern."""
    if isinstance(item, dict):
        if "patternProperties" in item:
            item.setdefault("additionalProperties", False)
        for inner in item.values():
            _close(inner)
    elif isinstance(item, list):
        for inner in item:
            _close(inner)


def emits(node_class: type[Node[Any]]) -> tuple[str, ...]:
    """Pixel formats that a kind can make; empty for sources, which choose among those wanted."""
    return node_class.emits if issubclass(node_class, Transform | Join) else ()
