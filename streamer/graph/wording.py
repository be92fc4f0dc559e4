"""What a validator found, in plain words and at its place in the file."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from streamer.errors import Problem
from streamer.graph import tree
from streamer.graph.spec import NAME_PATTERN, TITLE_PATTERN
from streamer.graph.tree import Place, Scalar, Value, find
from streamer.masking import MASK, is_secret_name, mask

_SHOWN = 60
_CLOSE = 0.65
_SHOWN_FROM_ENVIRONMENT = 32
_TYPES = {
    "bool": "true or false",
    "bytes": "text",
    "date": "a date",
    "datetime": "a date and time",
    "decimal": "a number",
    "dict": "a mapping",
    "dataclass": "a mapping",
    "finite": "a finite number",
    "float": "a number",
    "frozen": "a list",
    "int": "a whole number",
    "is": "a value of its type",
    "list": "a list",
    "mapping": "a mapping",
    "model": "a mapping",
    "number": "a number",
    "path": "a path",
    "set": "a list",
    "string": "text",
    "time": "a time",
    "tuple": "a list",
    "url": "a URL",
}
_BOUNDS = {
    "greater_than": ("more than", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("less than", "lt"),
    "less_than_equal": ("at most", "le"),
    "multiple_of": ("a multiple of", "multiple_of"),
}


def near(word: str, known: Iterable[str], *, limit: int = 12) -> str:
    """`did you mean 'x'?`, or else the names there are; to be put after a semicolon."""
    names = list(known)
    close = difflib.get_close_matches(word, names, n=1, cutoff=_CLOSE)
    if not close:
        folded = {name.lower(): name for name in names}
        close = [folded[word.lower()]] if word.lower() in folded else []
    if close:
        return f"did you mean {close[0]!r}?"
    if not names:
        return "there are none"
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return f"known: {', '.join(names[:limit])}{more}"


def field_names(model: type[BaseModel]) -> list[str]:
    """Names of a model's fields as a graph file writes them."""
    return [field.alias or name for name, field in model.model_fields.items()]


def show(value: Value, keys: Sequence[str] = ()) -> str:
    """A value for a message, without secrets.

    Args:
        value: of the file.
        keys: under which it stands, outermost first.
    """
    if isinstance(value, tree.Mapping):
        return "a mapping"
    if isinstance(value, tree.Sequence):
        return "a list" if value.items else "an empty list"
    if _secret(value, keys):
        return f"the value of ${{{value.variables[0]}}}" if value.variables else "the value given"
    data = value.value
    if data is None:
        return "nothing"
    if isinstance(data, bool):
        return "true" if data else "false"
    text = mask(data) if isinstance(data, str) else str(data)
    shown = text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
    return repr(shown) if isinstance(data, str) else shown


def hide(text: str, value: Value, keys: Sequence[str] = ()) -> str:
    """A message of someone else's making, without the secrets of a value that it may repeat."""
    for scalar, path in _scalars(value, tuple(keys)):
        if not isinstance(scalar.value, str) or not _secret(scalar, path):
            continue
        name = f"${{{scalar.variables[0]}}}" if scalar.variables else MASK
        for form in {scalar.value, repr(scalar.value)[1:-1]}:
            text = text.replace(form, name) if form else text
    return mask(text)


def _scalars(value: Value, keys: tuple[str, ...]) -> Iterator[tuple[Scalar, tuple[str, ...]]]:
    if isinstance(value, Scalar):
        yield value, keys
    elif isinstance(value, tree.Sequence):
        for item in value.items:
            yield from _scalars(item, keys)
    else:
        for key, entry in value.entries.items():
            yield from _scalars(entry.value, (*keys, key))


def _secret(scalar: Scalar, keys: Sequence[str]) -> bool:
    if any(is_secret_name(key) for key in keys):
        return True
    if not scalar.variables:
        return False
    text = str(scalar.value)
    return len(text) > _SHOWN_FROM_ENVIRONMENT or any(map(is_secret_name, scalar.variables))


def explain(
    errors: Sequence[ErrorDetails],
    root: Value,
    *,
    place: Place,
    title: Callable[[Sequence[str | int]], str],
    unknown: Callable[[Sequence[str | int], str], str],
    wanted: Callable[[Sequence[str | int]], str],
) -> list[Problem]:
    """Problems from pydantic's errors, one for each place of the file.

    Args:
        errors: of a `ValidationError`, with paths from `root`.
        root: the value that was validated.
        place: where `root` stands.
        title: the name of a path in messages, `style.with.seed`.
        unknown: what to say of a key that is not known, from the path of its mapping and itself.
        wanted: what to say of a missing key's meaning, from its path.
    """
    found: dict[tuple[str | int, ...], list[ErrorDetails]] = {}
    problems: list[Problem] = []
    strange: dict[tuple[str | int, ...], list[str]] = {}
    for error in errors:
        if error["type"] == "extra_forbidden":
            strange.setdefault(error["loc"][:-1], []).append(str(error["loc"][-1]))
    for error in errors:
        spot = find(root, error["loc"], place)
        if isinstance(spot.value, Scalar) and not spot.value.known:
            continue  # an unset variable, reported already
        if error["type"] == "missing":
            missing = str(error["loc"][-1])
            path = (*spot.path, missing)
            beside = strange.get(error["loc"][:-1], [])
            if difflib.get_close_matches(missing, beside, n=1, cutoff=_CLOSE):
                continue  # it is there, misspelt
            meaning = wanted(path)
            message = f"{title(path)}: is missing" + (f" ({meaning})" if meaning else "")
            problems.append(spot.place.problem(message))
        elif error["type"] == "extra_forbidden":
            key = str(error["loc"][-1])
            where = key_place(root, spot.path, place)
            problems.append(where.problem(f"{title(spot.path)}: {unknown(spot.path[:-1], key)}"))
        elif error["loc"] and error["loc"][-1] == "[key]":
            where = key_place(root, spot.path, place)
            problems.append(where.problem(f"{spot.key!r}: {_rule(error)}"))
        else:
            found.setdefault(spot.path, []).append(error)
    for path, group in found.items():
        if any(other[: len(path)] == path for other in found if len(other) > len(path)):
            continue  # another alternative of a union fits down to a deeper mistake
        problems.append(_problem(root, place, path, group, title(path)))
    return problems


def key_place(root: Value, path: Sequence[str | int], place: Place) -> Place:
    """Where the last key of a path stands."""
    if not path:
        return place
    parent = find(root, path[:-1], place).value
    last = path[-1]
    if isinstance(parent, tree.Mapping) and isinstance(last, str) and last in parent.entries:
        return parent.entries[last].place
    return find(root, path, place).place


def _problem(
    root: Value,
    place: Place,
    path: tuple[str | int, ...],
    group: list[ErrorDetails],
    title: str,
) -> Problem:
    spot = find(root, path, place)
    keys = [step for step in path if isinstance(step, str)]
    rules = list(dict.fromkeys(_rule(error) for error in group))
    own = [hide(rule, spot.value, keys) for rule in rules if not rule.startswith("must be ")]
    if own:
        return spot.place.problem(f"{title}: {own[0]}")
    text = " or ".join([rules[0], *(rule.removeprefix("must be ") for rule in rules[1:])])
    hint = _close_choice(group, spot.value)
    return spot.place.problem(f"{title}: {text}, not {show(spot.value, keys)}{hint}")


def _close_choice(group: list[ErrorDetails], value: Value) -> str:
    if not isinstance(value, Scalar) or not isinstance(value.value, str):
        return ""
    choices: list[str] = []
    for error in group:
        choices += _choices(error)
    close = difflib.get_close_matches(value.value.lower(), choices, n=1, cutoff=_CLOSE)
    return f"; did you mean {close[0]!r}?" if close else ""


def _choices(error: ErrorDetails) -> list[str]:
    expected = str(error.get("ctx", {}).get("expected", ""))
    if error["type"] not in ("literal_error", "enum"):
        return []
    return [part.strip("'") for part in expected.replace(" or ", ", ").split(", ")]


def _rule(error: ErrorDetails) -> str:
    """The rule that was broken; `must be ...` where the value is to be named after it."""
    kind, context = error["type"], error.get("ctx", {})
    if kind in ("value_error", "assertion_error"):
        return str(context.get("error", error["msg"]))
    if choices := _choices(error):
        return f"must be {'one of ' if len(choices) > 1 else ''}{', '.join(choices)}"
    if kind in _BOUNDS:
        words, key = _BOUNDS[kind]
        bound = context[key]
        return f"must be {words} {format(bound, 'g') if isinstance(bound, float) else bound}"
    if kind == "string_pattern_mismatch":
        return _pattern_rule(str(context["pattern"]))
    if kind.endswith(("too_short", "too_long")):
        return _length_rule(kind, context)
    if kind == "int_from_float":
        return "must be a whole number"
    if kind == "finite_number":
        return "must be a finite number"
    name = kind.partition("_")[0]
    if name in _TYPES and kind.endswith(("_type", "_parsing", "_instance_of", "_not_bool")):
        return f"must be {_TYPES[name]}"
    return error["msg"]


def _pattern_rule(pattern: str) -> str:
    if pattern == NAME_PATTERN:
        return "is no name: a name is 1 to 32 letters, digits, '_' or '-', and begins with a letter"
    if pattern == TITLE_PATTERN:
        return "must be 1 to 64 letters, digits, spaces, '.', '_' or '-'"
    return f"must be text of the form {pattern}"


def _length_rule(kind: str, context: Mapping[str, Any]) -> str:
    text = kind.startswith(("string", "bytes"))
    unit = "characters" if text else "entries"
    if kind.endswith("too_short"):
        least = context["min_length"]
        if least == 1:
            return "must be text of at least one character" if text else "must have an entry"
        return f"must {'be text of' if text else 'have'} at least {least} {unit}"
    return f"must {'be text of' if text else 'have'} at most {context['max_length']} {unit}"
