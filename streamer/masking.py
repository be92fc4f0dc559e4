"""Hides credentials in texts that are printed: logs, errors, reports, pictures of a graph."""

from __future__ import annotations

import re
from typing import Final

MASK: Final = "***"
"""What stands in place of a credential."""

# scheme://user:password@host, also with an '@' in the password.
_USERINFO = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.\-]*://)[^\s/?#'\"<>]*@")
# scheme://user:pass/word@host: people forget to encode the slash. What follows the colon is no
# port, so it is taken for a password up to the last '@'.
_LOOSE_USERINFO = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.\-]*://)[^\s/?#'\"<>\[\]:@]*:(?!\d+[/?#\s])[^\s'\"<>]*@"
)
_SECRET_WORDS = (
    r"key(?!frame|int)|token|passw|passphrase|pwd|secret|auth(?!or)|signature|credential|streamid"
)
_SECRET_NAME = re.compile(rf"(?:{_SECRET_WORDS})|(?:^|[_.\-])(?:pass|sig)(?:$|[_.\-])", re.I)
_QUERY = re.compile(r"(?P<name>[?&;][^\s=&?#;'\"]{1,64}=)(?P<value>[^\s&#'\"]+)")
# The last part of an RTMP address is the key of the channel: whoever has it can go on air.
_STREAM_KEY = re.compile(
    r"(?P<base>\brtmp[a-z]{0,2}://[^\s/?#'\"]+/[^\s?#'\"]+/)[^\s/?#'\"]+", re.I
)
_HEADER = re.compile(r"(?P<name>\b(?:proxy-)?authorization\s*[:=]\s*)(?:\w+\s+)?[^\s'\",]+", re.I)


def is_secret_name(name: str) -> bool:
    """Whether values under this name (of a key, a query part, a variable) are not to be shown."""
    return _SECRET_NAME.search(name) is not None


def mask(text: str) -> str:
    """The text with `***` in place of every credential that is recognised in it.

    Masked are `user:password@` in URLs of any scheme, the values of query parts with names such
    as `token`, `api_key`, `password` or `passphrase`, the stream key at the end of an RTMP
    address, and `Authorization` headers. Masking a masked text changes nothing.

    Args:
        text: any text; URLs may stand anywhere in it.
    """
    if "://" in text:
        text = _LOOSE_USERINFO.sub(rf"\g<scheme>{MASK}@", text)
        text = _USERINFO.sub(rf"\g<scheme>{MASK}@", text)
        text = _STREAM_KEY.sub(rf"\g<base>{MASK}", text)
    if "=" in text:
        text = _QUERY.sub(_mask_query, text)
    return _HEADER.sub(rf"\g<name>{MASK}", text)


def _mask_query(match: re.Match[str]) -> str:
    if is_secret_name(match["name"][1:-1]):
        return f"{match['name']}{MASK}"
    return match[0]
