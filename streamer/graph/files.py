"""Which local files an address names, to tell whether two addresses name the same one."""

from __future__ import annotations

import glob
import os
import re

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")
_NUMBER = re.compile(r"%0?\d*d")
_LONGEST = 4096
"""bytes of a path on Linux (PATH_MAX)"""


def files_of(url: str) -> frozenset[tuple[int, int] | str]:
    """Identities of the files that an address names; empty for what is no file.

    Args:
        url: a path, `file:` and a path, or a pattern as `%04d.png` or `*.png`; anything else with
            a scheme, and devices, are no files.

    Returns:
        Device and inode of files that are there, the absolute path of one that is not.
    """
    path = url
    if url.startswith("file:"):
        path = re.sub(r"^//[^/]*", "", url.removeprefix("file:"))
    elif _SCHEME.match(url):
        return frozenset()
    if not path or path.startswith("/dev/") or "\0" in path or len(path) > _LONGEST:
        return frozenset()
    if not os.path.exists(path):
        pattern = _NUMBER.sub("*", glob.escape(path) if "*" not in path else path)
        if pattern != path and (found := glob.glob(pattern)):
            return frozenset(_identity(one) for one in found)
    return frozenset({_identity(path)})


def _identity(path: str) -> tuple[int, int] | str:
    try:
        status = os.stat(path)
    except OSError:
        return os.path.realpath(path)
    return status.st_dev, status.st_ino
