"""Hides credentials in texts that are printed: logs, errors, reports, pictures of a graph.

Texts may come from outside and be long, so the work grows no faster than the text: no expression
here looks again and again at what another start has looked at.
"""

from __future__ import annotations

import re
from typing import Final

MASK: Final = "***"
"""What stands in place of a credential."""

_WORD = re.compile(r"\S+")
_SPACE = re.compile(r"\s")
# What ends the part of a URL that holds the user and the host.
_AUTHORITY_END = re.compile(r"[/?#'\"<>]")
# A port, and not the beginning of a password of digits.
_PORT = re.compile(r"\d{1,5}(?![^\s/?#'\"<>,;:)\]}.])")
# host, host:port or [v6] where a path, a query or nothing follows, and no file's name.
_HOST = re.compile(r"(?:\[[0-9a-fA-F:.]+\]|\d+\.\d+\.\d+\.\d+|localhost)(?![\w.-])|[\w.-]+[:/]")
_FAR: Final = 128
"""characters in which the end of a password with spaces in it is looked for"""

_ROUNDS: Final = 8
"""what is masked can bring two parts together that look like another credential"""
_SECRET_WORDS = (
    r"key(?!frame|int)|token|passw|passphrase|pwd|secret|auth(?!or(?!i[sz]))|signature|credential|streamid"
    r"|headers?$|cookie"
)
_SECRET_NAME = re.compile(
    rf"(?:{_SECRET_WORDS})|(?:^|[_.\-])(?:pass|sig|pw|jwt|sas)(?:$|[_.\-])", re.I
)
_QUERY = re.compile(r"(?<=[?&;])(?P<name>[^\s=&?#;'\"]{1,64})=(?P<value>[^\s&'\"]+)")
# name=value elsewhere: an option, a variable of the environment.
_ASSIGNED = re.compile(
    r"(?<![\w.\-%])(?P<name>[\w.\-%]{1,64})=(?P<value>'[^'\n]*'|\"[^\"\n]*\"|[^\s&'\",;]+)"
)
# 'name': 'value', as Python and JSON write a mapping.
_ENTRY = re.compile(
    r"(?P<quote>['\"])(?P<name>[\w.\- ]{1,64})(?P=quote)\s{0,4}:\s{0,4}"
    r"(?P<value>'(?:[^'\\\n]|\\.)*'|\"(?:[^\"\\\n]|\\.)*\"|[^\s'\",}\]]+)"
)
# The last part of an RTMP address is the key of the channel: whoever has it can go on air.
_STREAM_KEY = re.compile(
    r"(?P<base>\b[a-z]{0,4}rtmp[a-z]{0,2}://[^\s/?#'\"]+/[^\s?#'\"]+/)[^\s/?#'\"]+", re.I
)
_HEADER = re.compile(
    r"(?P<name>\b(?:(?:(?:proxy-|x-)?authorization|(?:set-)?cookie)\s{0,4}[:=]"
    r"|(?:[a-z]{1,20}-){1,4}(?:key|token|secret|password|signature)\s{0,4}:)\s{0,4})"
    r"(?:(?:basic|bearer|digest|negotiate|token|apikey|\w{1,20}(?=\s+[\w+/=.~-]{16,}))\s+)?"
    r"[^\s'\",;]+(?:\"[^\"\n]*\")*(?:[,;]\s{0,4}[\w-]{1,40}=(?:\"[^\"\n]*\"|[^\s'\",;]+))*",
    re.I,
)


def is_secret_name(name: str) -> bool:
    """Whether values under this name (of a key, a query part, a variable) are not to be shown."""
    return _SECRET_NAME.search(name) is not None


def mask(text: str) -> str:
    """The text with `***` in place of every credential that is recognised in it.

    Masked are `user:password@` in URLs of any scheme, the values of query parts, options and
    entries of mappings with names such as `token`, `api_key`, `password` or `passphrase`, the
    stream key at the end of an RTMP address, cookies, and `Authorization` headers. Masking a
    masked text changes nothing.

    Args:
        text: any text; URLs may stand anywhere in it.
    """
    for _ in range(_ROUNDS):
        masked = _once(text)
        if masked == text:
            break
        text = masked
    return text


def _once(text: str) -> str:
    if "=" in text:  # before users and passwords: an '@' in a value belongs to no user
        text = _QUERY.sub(_mask_query, text)
    if "://" in text:
        text = _mask_users(text)
        text = _STREAM_KEY.sub(rf"\g<base>{MASK}", text)
    text = _HEADER.sub(rf"\g<name>{MASK}", text)
    if "=" in text:
        text = _ASSIGNED.sub(_mask_assigned, text)
    if "'" in text or '"' in text:
        text = _ENTRY.sub(_mask_entry, text)
    return text


def _mask_users(text: str) -> str:
    """Without what stands between `://` and `@`, also where it should have been encoded."""
    done, parts = 0, []
    for word in _WORD.finditer(text):
        start, end = word.span()
        if start < done:
            continue
        last = text.rfind("@", start, end)
        at = text.find("://", start, end)
        while at >= 0:
            begin = at + 3
            until = _end_of_user(text, begin, end, last)
            if until > begin:
                parts += [text[done:begin], MASK]
                done = until
            at = text.find("://", max(begin, until), end)
    return "".join([*parts, text[done:]])


def _end_of_user(text: str, begin: int, end: int, last: int) -> int:
    """Where the `@` behind user and password stands; `begin` if there are none.

    Args:
        text: whole.
        begin: behind `://`.
        end: of the word.
        last: place of the last `@` in the word; below `begin` if there is none.
    """
    stop = _AUTHORITY_END.search(text, begin, end)
    authority = stop.start() if stop else end
    if last >= begin and (inside := text.rfind("@", begin, authority)) >= 0:
        # An '@' and then another of these may be in the password, too, if a host follows.
        return last if last > inside and _HOST.match(text, last + 1) else inside
    # A '/', '?', '#', quote or space in the password: what follows the colon is no port, so it is
    # taken for a password up to the last '@'.
    if text[begin : begin + 1] == "[":
        return begin
    colon = text.find(":", begin, authority)
    if colon < 0:
        return begin
    if _PORT.match(text, colon + 1):
        # A port, and an '@' in the path; unless a host follows the '@'.
        return last if last > colon and _HOST.match(text, last + 1) else begin
    if last > colon:
        return last
    # The rest of a line may name others; a password that goes on behind a space is not long.
    far = text.find("@", end, end + _FAR)
    if far < 0 or "\n" in text[end:far] or "://" in text[end:far]:
        return begin
    alone = _SPACE.match(text, far - 1) or far + 1 == len(text) or _SPACE.match(text, far + 1)
    return begin if alone else far


def _mask_query(match: re.Match[str]) -> str:
    return f"{match['name']}={MASK}" if is_secret_name(match["name"]) else match[0]


def _mask_assigned(match: re.Match[str]) -> str:
    # `key=` alone is an argument of many a function in a traceback, and hides nothing there.
    name = match["name"]
    if not is_secret_name(name) or name.rpartition(".")[2].lower() == "key":
        return match[0]
    return f"{name}={_hidden(match['value'])}"


def _mask_entry(match: re.Match[str]) -> str:
    if not is_secret_name(match["name"]):
        return match[0]
    value = match.start("value") - match.start()
    return match[0][:value] + _hidden(match["value"])


def _hidden(value: str) -> str:
    quote = value[0] if value[0] in "'\"" and value[-1] == value[0] and len(value) > 1 else ""
    return f"{quote}{MASK}{quote}"
