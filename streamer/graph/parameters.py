"""The parameters of a kind, for people: type, default, unit, range and meaning of each."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from streamer.graph.schema import parameter_schema
from streamer.nodebase import Node

_TYPES = {
    "integer": "whole number",
    "number": "number",
    "string": "text",
    "boolean": "true or false",
    "null": "nothing",
    "object": "mapping",
    "array": "list",
}


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter.

    Attributes:
        name: as a graph file writes it.
        type: in plain words.
        required: whether there is no default.
        default: as JSON types.
        unit: of the value, or the empty string.
        range: allowed values, or the empty string.
        choices: whether `range` lists all values there are.
        live: whether it can change while the graph runs.
        description: what it does.
    """

    name: str
    type: str
    required: bool
    default: Any
    unit: str
    range: str
    choices: bool
    live: bool
    description: str

    @property
    def shown_default(self) -> str:
        """The default as a graph file writes it; the empty string for nothing."""
        if self.default is None:
            return ""
        return self.default if isinstance(self.default, str) else json.dumps(self.default)

    @property
    def value(self) -> str:
        """Type, range and unit in a few words: `number over 0, at most 60 (s)`."""
        words = self.range if self.choices else f"{self.type} {self.range}".strip()
        return f"{words} ({self.unit})" if self.unit else words


def parameters(node_class: type[Node[Any]]) -> list[Parameter]:
    """The parameters of a kind, in the order of its class."""
    schema = parameter_schema(node_class)
    definitions = schema.get("$defs", {})
    listed = []
    for name, item in schema.get("properties", {}).items():
        forms = _forms(item, definitions)
        types = _types(forms, definitions)
        ranges = list(dict.fromkeys(text for form in forms if (text := _range(form))))
        listed.append(
            Parameter(
                name=name,
                type=types,
                required=name in schema.get("required", ()),
                default=item.get("default"),
                unit=str(item.get("unit", "")),
                range="; ".join(ranges),
                choices=all("enum" in form or form.get("type") == "null" for form in forms),
                live=bool(item.get("live")),
                description=" ".join(item.get("description", "").split()),
            )
        )
    return listed


def _forms(item: dict[str, Any], definitions: dict[str, Any]) -> list[dict[str, Any]]:
    """The alternatives of a schema, references followed."""
    if "$ref" in item:
        return _forms(definitions.get(item["$ref"].rpartition("/")[2], {}), definitions)
    for key in ("anyOf", "oneOf", "allOf"):
        if key in item:
            return [form for part in item[key] for form in _forms(part, definitions)]
    return [item]


def _types(forms: list[dict[str, Any]], definitions: dict[str, Any]) -> str:
    """The types of alternatives in plain words."""
    found = list(dict.fromkeys(_type(form, definitions) for form in forms))
    if "number" in found and "whole number" in found:
        found.remove("whole number")
    return " or ".join(text for text in found if text != "nothing") or "anything"


def _type(form: dict[str, Any], definitions: dict[str, Any]) -> str:
    if "enum" in form:
        return "one of a list"
    if "const" in form:
        return str(form["const"])
    kind = form.get("type")
    if kind == "array" and "items" in form:
        return f"list of {_types(_forms(form['items'], definitions), definitions)}"
    if kind == "object" and isinstance(form.get("additionalProperties"), dict):
        inner = _types(_forms(form["additionalProperties"], definitions), definitions)
        return f"mapping to {inner}"
    return _TYPES.get(str(kind), "anything")


def _range(form: dict[str, Any]) -> str:
    if "enum" in form:
        return ", ".join(str(value) for value in form["enum"])
    low, high = form.get("minimum"), form.get("maximum")
    over, under = form.get("exclusiveMinimum"), form.get("exclusiveMaximum")
    if low is not None and high is not None:
        return f"{low} to {high}"
    parts = []
    for words, bound in (("at least", low), ("over", over), ("at most", high), ("below", under)):
        if bound is not None:
            parts.append(f"{words} {bound}")
    return ", ".join(parts)
