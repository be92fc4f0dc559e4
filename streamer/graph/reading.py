"""Reads YAML into a tree of values with their places, in bounded time and memory.

PyYAML composes the nodes; values are told apart as in YAML 1.2's core schema, so that `on`, `no`
and `12:30:45` are texts. Everything that a file can do to a reader is bounded: its size, its
nesting, and what its aliases come to when written out.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from collections.abc import Mapping as AnyMapping
from pathlib import Path
from typing import Any, Final

import yaml

from streamer.errors import GraphError, Problem
from streamer.graph.environment import substitute
from streamer.graph.scalars import CORE, TAG, core_tag, scalar, tag_message
from streamer.graph.tree import (
    MAX_DEPTH,
    MAX_VALUES,
    Entry,
    Mapping,
    Place,
    Scalar,
    Sequence,
    Value,
    no_text,
)
from streamer.graph.yaml_words import TOO_MUCH, explain

MAX_BYTES: Final = 1 << 20
"""Bytes that a graph file may have."""


class _Loader(yaml.SafeLoader):
    """Composes nodes with YAML 1.2's core schema, and refuses deep nesting before it hurts."""

    yaml_implicit_resolvers: dict[Any, Any] = {}  # noqa: RUF012 - PyYAML's own name for it

    def __init__(self, text: str) -> None:
        self.plain: set[int] = set()
        self._depth = 0
        self._count = 0
        super().__init__(text)

    def _event(self) -> Any:
        return self.peek_event()  # type: ignore[no-untyped-call]

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        mark = self._event().start_mark
        self._depth += 1
        self._count += 1
        if self._depth > MAX_DEPTH:
            message = f"{TOO_MUCH} more than {MAX_DEPTH} levels of nesting"
            raise yaml.MarkedYAMLError(problem=message, problem_mark=mark)
        if self._count > 2 * MAX_VALUES:
            raise yaml.MarkedYAMLError(
                problem=f"{TOO_MUCH} more than {MAX_VALUES} values", problem_mark=mark
            )
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1

    def compose_scalar_node(self, anchor: Any) -> yaml.ScalarNode:
        untagged = self._event().implicit[0]
        node = super().compose_scalar_node(anchor)
        if untagged:
            self.plain.add(id(node))
        return node


for _kind, _pattern, _first in (*CORE, ("merge", "<<", ("<",))):
    _Loader.add_implicit_resolver(TAG + _kind, re.compile(rf"^{_pattern}$"), list(_first))


def read_text(path: str | Path) -> str:
    """The text of a graph file.

    Raises:
        GraphError: it is missing, a directory, unreadable, too large or not UTF-8.
    """
    file = str(path)

    def refuse(message: str, line: int = 0, column: int = 0) -> GraphError:
        return GraphError([Problem(file, line, column, message)])

    try:
        with open(path, "rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise refuse(f"there is no such file{_near(Path(path))}") from None
    except IsADirectoryError:
        raise refuse("is a directory, not a graph file") from None
    except PermissionError:
        raise refuse("may not be read: permission denied") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise refuse(f"cannot be read: {reason}") from None
    if len(data) > MAX_BYTES:
        raise refuse(f"is larger than {MAX_BYTES >> 20} MiB, which no graph file is")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start]
        column = error.start - (before.rfind(b"\n") + 1) + 1
        message = f"is not UTF-8 text: byte 0x{data[error.start]:02x} at {error.start}"
        if b"\0" in data and not data.startswith((b"\xff\xfe", b"\xfe\xff")):  # UTF-16
            message += "; it is no graph file at all (`streamer style` takes a film itself)"
        raise refuse(message, before.count(b"\n") + 1, column) from None


def _near(path: Path) -> str:
    try:
        found = [item for item in path.parent.iterdir() if item.suffix in (".yaml", ".yml")]
    except (OSError, ValueError):
        return ""
    # Without the endings, in which all of them are alike.
    names = {item.stem: item for item in found}
    close = difflib.get_close_matches(path.stem, names, n=1)
    return f"; did you mean {names[close[0]]}?" if close else ""


def read_tree(
    text: str,
    *,
    file: str,
    environ: AnyMapping[str, str],
    report: Callable[[Problem], None],
) -> Value:
    """The values of a graph file's text, environment variables put in.

    Args:
        text: of the file.
        file: its name in messages.
        environ: variables by name.
        report: called for each mistake after which reading can go on.

    Raises:
        GraphError: the text is no YAML, is empty, or exceeds a bound.
    """
    root = read_yaml(text, file=file, environ=environ, report=report)
    if root is None:
        raise GraphError([Problem(file, 0, 0, "is empty; a graph has version, name and nodes")])
    return root


def read_yaml(
    text: str,
    *,
    file: str,
    environ: AnyMapping[str, str] | None = None,
    report: Callable[[Problem], None],
) -> Value | None:
    """The values of any YAML text with their places; None where it holds none.

    Args:
        text: of the file.
        file: its name in messages.
        environ: variables by name, to be put in; None leaves `$` alone.
        report: called for each mistake after which reading can go on.

    Raises:
        GraphError: the text is no YAML, or exceeds a bound.
    """
    if len(text) > MAX_BYTES:
        raise GraphError([Problem(file, 0, 0, f"is larger than {MAX_BYTES >> 20} MiB")])
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
    except yaml.YAMLError as error:
        raise GraphError([explain(error, text, file)]) from None
    except (ValueError, OverflowError) as error:  # an escape beyond Unicode, a huge version number
        message = f"is no valid YAML: a number or an escape is out of range ({error})"
        raise GraphError([Problem(file, 0, 0, message)]) from None
    if root is None:
        return None
    return _Builder(loader.plain, file, environ, report).build(root, 0)


def read_value(text: str, place: Place, report: Callable[[Problem], None]) -> Value:
    """A value typed on a command line.

    Text in brackets, braces or quotes is YAML; anything else is taken as it stands, so that
    `demo:`, `*.png` and `a #b` need no quotes, and is a number, true, false or null if it looks
    like one.

    Args:
        text: what was typed.
        place: given to every value.
        report: called with each mistake.
    """
    if not text.startswith(("[", "{", '"', "'")):
        return scalar(core_tag(text), text, place, report)
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        if root is None:
            return Scalar(None, place)
        builder = _Builder(set(), place.file, None, report)
        builder.place = place
        return builder.build(root, 0)
    except (yaml.YAMLError, GraphError, ValueError, OverflowError):
        report(place.problem("the value is no valid YAML; put it in quotes: '\"...\"'"))
        return Scalar(None, place, known=False)


class _Builder:
    """Turns composed nodes into the tree; counts, so that aliases cannot blow it up."""

    def __init__(
        self,
        plain: set[int],
        file: str,
        environ: AnyMapping[str, str] | None,
        report: Callable[[Problem], None],
    ) -> None:
        self.place: Place | None = None
        self._plain = plain
        self._file = file
        self._environ = environ
        self._report = report
        self._count = 0
        self._open: set[int] = set()

    def build(self, node: Any, depth: int) -> Value:
        place = self._at(node)
        self._count += 1
        if self._count > MAX_VALUES:
            message = f"{TOO_MUCH} more than {MAX_VALUES} values once its aliases are written out"
            raise GraphError([place.problem(message)])
        if depth > MAX_DEPTH:
            raise GraphError([place.problem(f"{TOO_MUCH} more than {MAX_DEPTH} levels of nesting")])
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, place)
        if id(node) in self._open:
            raise GraphError([place.problem("an alias stands inside the value that it repeats")])
        self._open.add(id(node))
        try:
            if node.tag not in (TAG + "seq", TAG + "map"):
                self._report(place.problem(tag_message(node.tag)))
            if isinstance(node, yaml.SequenceNode):
                items = [self.build(item, depth + 1) for item in node.value]
                return Sequence(place, items)
            return self._mapping(node, place, depth)
        finally:
            self._open.discard(id(node))

    def _at(self, node: yaml.Node) -> Place:
        mark = node.start_mark
        return self.place or Place(self._file, mark.line + 1, mark.column + 1)

    def _scalar(self, node: yaml.ScalarNode, place: Place) -> Scalar:
        text, tag = node.value, node.tag
        if self._environ is None or "$" not in text:
            return scalar(tag, text, place, self._report)
        mistakes: list[Problem] = []
        done = substitute(text, self._environ, lambda m: mistakes.append(place.problem(m)))
        if not done.known:
            return Scalar(None, place, known=False, mistakes=tuple(mistakes))
        if id(node) in self._plain and done.whole:
            tag = core_tag(done.text)
        return scalar(tag, done.text, place, self._report, variables=done.variables)

    def _mapping(self, node: yaml.MappingNode, place: Place, depth: int) -> Mapping:
        mapping = Mapping(place)
        merged: list[yaml.Node] = []
        for key_node, value_node in node.value:
            at = self._at(key_node)
            if key_node.tag == TAG + "merge":
                merged.append(value_node)
                continue
            if not isinstance(key_node, yaml.ScalarNode) or not key_node.value:
                self._report(at.problem("a key must be a text, not empty and no list or mapping"))
                continue
            key = key_node.value
            if no_text(key):
                self._report(at.problem(f"the key {key!r} holds a character that is no text"))
                continue
            value = self.build(value_node, depth + 1)
            first = mapping.entries.get(key)
            if first is not None:
                where = f", first in line {first.place.line}" if first.place.line else ""
                self._report(at.problem(f"duplicate key {key!r}{where}; each key may stand once"))
                continue
            mapping.entries[key] = Entry(at, value)
        for source in merged:
            self._merge(mapping, self.build(source, depth + 1))
        return mapping

    def _merge(self, mapping: Mapping, value: Value) -> None:
        for part in value.items if isinstance(value, Sequence) else [value]:
            if isinstance(part, Mapping):
                for key, entry in part.entries.items():
                    mapping.entries.setdefault(key, entry)
            else:
                self._report(part.place.problem("'<<' takes a mapping, or a list of mappings"))
