"""Single values as in YAML 1.2's core schema: what is a number, and what is just text.

https://yaml.org/spec/1.2.2/#103-core-schema
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from streamer.errors import Problem
from streamer.graph.tree import LEAST_INT, MOST_INT, Place, Scalar, no_text
from streamer.masking import mask

TAG: Final = "tag:yaml.org,2002:"
"""Prefix of YAML's own tags; `!!int` is short for `tag:yaml.org,2002:int`."""

CORE: Final = (
    ("null", r"(?:null|Null|NULL|~|)", ("n", "N", "~", "")),
    ("bool", r"(?:true|True|TRUE|false|False|FALSE)", tuple("tTfF")),
    ("int", r"(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)", tuple("-+0123456789")),
    (
        "float",
        r"(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))",
        tuple("-+.0123456789"),
    ),
)
"""Kind, pattern and first characters of everything that is no text."""

_PATTERNS = {kind: re.compile(pattern) for kind, pattern, _ in CORE}
_MAX_DIGITS = 40


def core_tag(text: str) -> str:
    """The tag of a text that stands without quotes."""
    for kind, pattern in _PATTERNS.items():
        if pattern.fullmatch(text):
            return TAG + kind
    return TAG + "str"


def scalar(
    tag: str,
    text: str,
    place: Place,
    report: Callable[[Problem], None],
    *,
    variables: tuple[str, ...] = (),
) -> Scalar:
    """A value from its tag and its text.

    Args:
        tag: `core_tag(text)`, or one that the file gives.
        text: the value's characters.
        place: where it stands.
        report: called if the text cannot be read as its tag says.
        variables: names of the environment variables that the text was taken from.
    """
    unknown = Scalar(None, place, known=False)
    kind = tag.removeprefix(TAG)
    if kind in ("str", "merge"):
        if no_text(text):
            report(place.problem("the value holds a NUL or half a character, which is no text"))
            return unknown
        return Scalar(text, place, variables)
    pattern = _PATTERNS.get(kind)
    if pattern is None:
        report(place.problem(tag_message(tag)))
        return unknown
    if not pattern.fullmatch(text):
        shown = "the value of ${" + variables[0] + "}" if variables else repr(mask(text)[:40])
        report(place.problem(f"{shown} is no !!{kind}"))
        return unknown
    if kind == "null":
        return Scalar(None, place, variables)
    if kind == "bool":
        return Scalar(text.lower() == "true", place, variables)
    if kind == "float":
        real = float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
        return Scalar(real, place, variables)
    if len(text) > _MAX_DIGITS:
        report(place.problem(f"a number of {len(text)} digits is too long"))
        return unknown
    base = {"0o": 8, "0x": 16}.get(text[:2], 10)
    number = int(text if base == 10 else text[2:], base)
    if not LEAST_INT <= number <= MOST_INT:
        report(place.problem("a whole number must fit into 64 bits; put a text in quotes"))
        return unknown
    return Scalar(number, place, variables)


def tag_message(tag: str) -> str:
    """What is wrong with a tag that no graph uses."""
    shown = tag.replace(TAG, "!!")[:60]
    return f"the tag {shown} has no meaning in a graph file; leave it away"
