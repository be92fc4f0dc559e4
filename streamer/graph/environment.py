"""`${NAME}`, `${NAME:-default}` and `$$` in the values of a graph file."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

_TOKEN = re.compile(r"\$(?:\$|\{(?P<inside>[^{}]*)\}|\{)")
_INSIDE = re.compile(r"(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?P<default>:-.*)?", re.S)
MAX_TEXT = 65_536
"""Characters that a value may have after substitution."""


@dataclass(frozen=True, slots=True)
class Substituted:
    """A text after substitution.

    Attributes:
        text: the result.
        whole: whether the text consisted of one substitution and nothing else.
        variables: names of the variables whose values are in the text.
        known: False where a variable without default was not set, or the syntax was wrong.
    """

    text: str
    whole: bool
    variables: tuple[str, ...]
    known: bool


def substitute(text: str, environ: Mapping[str, str], report: Callable[[str], None]) -> Substituted:
    """Puts the values of environment variables into a text; the result is never looked at again.

    `${NAME}` must be set, `${NAME:-default}` stands for the default where NAME is unset or empty,
    and `$$` is a dollar sign. A dollar sign before anything else stands for itself.

    Args:
        text: of a scalar in a graph file.
        environ: variables by name.
        report: called with one sentence for each mistake.
    """
    variables: list[str] = []
    known = True
    room = MAX_TEXT

    def replace(match: re.Match[str]) -> str:
        nonlocal known, room
        if not known or room < 0:
            return ""  # one mistake, or too much, is enough said of a value
        if match[0] == "$$":
            return "$"
        inside = match["inside"]
        parts = None if inside is None else _INSIDE.fullmatch(inside)
        if parts is None:
            known = False
            report(
                f"{match[0]!r} is no substitution; write ${{NAME}} or ${{NAME:-default}}, "
                "and $$ for a dollar sign"
            )
            return ""
        name, default = parts["name"], parts["default"]
        value = environ.get(name)
        if default is not None and not value:
            return default[2:]
        if value is None:
            known = False
            close = difflib.get_close_matches(name, environ, n=1, cutoff=0.8)
            hint = f" (is ${{{close[0]}}} meant?)" if close else ""
            report(
                f"the environment variable {name} is not set{hint}; set it, "
                f"or write ${{{name}:-default}}"
            )
            return ""
        variables.append(name)
        if any(ord(c) == 0 or 0xD800 <= ord(c) <= 0xDFFF for c in value):
            known = False
            report(f"the environment variable {name} holds bytes that are no UTF-8 text")
            return ""
        room -= len(value)
        return value

    result = _TOKEN.sub(replace, text)
    if len(result) > MAX_TEXT or room < 0:
        known = False
        result = ""
        report(f"the value is longer than {MAX_TEXT} characters after substitution")
    only = _TOKEN.fullmatch(text)
    whole = only is not None and only[0] != "$$"
    return Substituted(result, whole, tuple(variables), known)
