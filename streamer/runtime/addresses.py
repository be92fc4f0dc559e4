"""Addresses of the sockets of one run, all in its private folder or within one process.

A Unix socket's path is at most 107 bytes long, so nodes go by their number in the plan.
"""

from __future__ import annotations

from streamer.graph.plan import LinkPlan, Plan


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
