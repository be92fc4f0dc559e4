"""Addresses of the sockets of one run, all in its private folder or within one process.

A Unix socket's path is at most 107 bytes long, so nodes go by their number in the plan.
"""

from __future__ import annotations

from typing import Any

import zmq

from streamer.errors import RunError
from streamer.graph.plan import LinkPlan, Plan


def bind(socket: zmq.Socket[Any], endpoint: str) -> None:
    """Has a socket of the supervisor listen.

    Raises:
        RunError: it cannot, and is closed.
    """
    try:
        socket.bind(endpoint)
    except zmq.ZMQError as error:
        socket.close(0)
        raise RunError(f"no socket can listen at {endpoint}: {error.strerror}") from error


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
