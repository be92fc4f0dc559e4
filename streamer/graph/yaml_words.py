"""PyYAML's syntax errors in plain words."""

from __future__ import annotations

import re

import yaml
from yaml.reader import ReaderError

from streamer.errors import Problem
from streamer.graph.tree import one_line
from streamer.masking import mask

TOO_MUCH = "the file holds"
"""How our own refusals begin."""
_HOLDS_COLON = re.compile(r"\s*(?:- +)*[^:#]+: +(?P<value>.+?)\s*")


def explain(error: yaml.YAMLError, text: str, file: str) -> Problem:
    """A problem that says where the text stops being YAML, and what to do.

    Args:
        error: what PyYAML raised.
        text: of the file.
        file: its name in messages.
    """
    if isinstance(error, ReaderError):
        before = text[: error.position]
        line, column = before.count("\n") + 1, error.position - (before.rfind("\n") + 1) + 1
        code = error.character if isinstance(error.character, int) else ord(error.character)
        return Problem(file, line, column, f"the character U+{code:04X} may not stand in YAML")
    if not isinstance(error, yaml.MarkedYAMLError):
        return Problem(file, 0, 0, one_line(f"is no valid YAML: {error}"))
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
    rows = text.splitlines()
    row = rows[line - 1] if 0 < line <= len(rows) else ""
    return Problem(file, line, column, one_line(_words(error, row, column)))


def _words(error: yaml.MarkedYAMLError, row: str, column: int) -> str:
    problem, context = error.problem or "", error.context or ""
    opened = error.context_mark
    since = f" in line {opened.line + 1}, column {opened.column + 1}" if opened else ""
    here = row[column - 1 : column]
    if here == "\t" or (not here.strip() and "\t" in row[:column]) or "'\\t'" in problem:
        return "a tab stands in the indentation; YAML wants spaces"
    if re.match(r"\s*\t", row) and "block" in context:
        return "a tab stands in the indentation; YAML wants spaces"
    if "quoted scalar" in context and "end of stream" in problem:
        return f"the quote opened{since} is never closed"
    if "quoted scalar" in context and "document separator" in problem:
        return f"the quote opened{since} is never closed"
    if "unknown escape" in problem:
        return f"{problem.removeprefix('found ')}; in double quotes write \\\\ for a backslash"
    if "mapping values are not allowed" in problem:
        held = _HOLDS_COLON.fullmatch(row)
        if held and column > held.start("value") and held["value"][0] not in "\"'[{":
            return f"a ':' in a value needs quotes: write \"{mask(held['value'])[:60]}\""
        return "a ':' cannot stand here: check the indentation of this line and of the one before"
    if "flow mapping" in context or "flow sequence" in context:
        if here == "{" and row[: column - 1].endswith("$"):
            return 'inside { } or [ ] a substitution needs quotes: "${NAME}"'
        bracket = "{" if "mapping" in context else "["
        return f"the '{bracket}' opened{since} is not closed, or a ',' is missing before this"
    if "could not find expected ':'" in problem:
        return f"a ':' is missing after the key{since}"
    if "block mapping" in context:
        return f"this does not continue the mapping begun{since}: check the indentation"
    if "block collection" in context:
        return f"this does not continue the list begun{since}: check the indentation"
    if "cannot start any token" in problem:
        return f"the character {here!r} cannot begin a value; put quotes around the value"
    if "undefined alias" in problem:
        name = problem.rpartition("alias ")[2]
        return f"the alias *{name.strip(chr(39))} has no anchor &{name.strip(chr(39))} before it"
    if "duplicate anchor" in context:
        return "this anchor stands twice; give each anchor (&name) its own name"
    if "scanning an a" in context:  # an alias, an anchor
        return f"{row[column - 2 : column - 1]!r} begins an alias or anchor; quote the value"
    if "block scalar" in context:
        return "after | or > the text begins in the next line; quote a value that begins with them"
    if "single document" in context:
        return "a second document begins here ('---'); a graph file holds one"
    if "block entries are not allowed" in problem or "sequence entries" in problem:
        return "a '- ' cannot stand here: begin the list in a line of its own"
    if problem.startswith(TOO_MUCH):
        return problem
    return f"is no valid YAML here: {problem or context or type(error).__name__}"
