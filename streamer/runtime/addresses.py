"""Addresses of the sockets of one run, all in its private folder or within one process.

A Unix socket's path is at most 107 bytes long, so nodes go by their number in the plan.
"""

from __future__ import annotations

import tempfile
from typing import Final

from streamer.errors import RunError
from streamer.graph.plan import LinkPlan, Plan

LONGEST_BASE: Final = 70
"""characters of a temporary folder's path; a socket's path has at most 107"""


def private_folder() -> str:
    """A new folder for the run's sockets, for this user alone (0700).

    Raises:
        RunError: none can be made.
    """
    base = tempfile.gettempdir()
    if len(base.encode()) > LONGEST_BASE:
        base = "/tmp"
    try:
        return tempfile.mkdtemp(prefix="streamer-", dir=base)
    except OSError as error:
        raise RunError(f"no folder for sockets in {base}: {error.strerror}") from error


def control_endpoint(folder: str) -> str:
    """Where the supervisor listens for its workers."""
    return f"ipc://{folder}/control"


def endpoint_of(folder: str, plan: Plan, link: LinkPlan, incarnation: int) -> str:
    """Where the outlet that feeds a link listens; each incarnation has an address of its own."""
    number = next(i for i, node in enumerate(plan.nodes) if node.name == link.source)
    return f"ipc://{folder}/{number}{link.media[0]}{incarnation}"


def local_endpoint_of(link: LinkPlan) -> str:
    """The same for consumers in the same process."""
    return f"inproc://{link.source}.{link.media}"
