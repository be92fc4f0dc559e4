"""Whether and when a node whose process has died is started again; plain functions of the time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from streamer.graph.plan import RestartPlan

FIRST_DELAY: Final = 0.05
"""seconds before the first restart"""
LONGEST_DELAY: Final = 5.0
"""seconds that the doubling delay does not exceed"""


def recent(restarts: Sequence[float], policy: RestartPlan, now: float) -> int:
    """How many of the restarts (times in seconds) lie within the policy's window."""
    return sum(1 for at in restarts if now - at < policy.window)


def may_restart(policy: RestartPlan, restarts: Sequence[float], *, now: float) -> bool:
    """Whether a node whose process has died may be started again.

    Args:
        policy: of the node.
        restarts: times of its restarts so far, seconds.
        now: the present on the same clock.
    """
    if policy.policy == "never":
        return False
    return recent(restarts, policy, now) < policy.max


def delay_before_restart(policy: RestartPlan, restarts: Sequence[float], *, now: float) -> float:
    """Seconds to wait before the next start: doubles with each recent restart."""
    doublings = min(recent(restarts, policy, now), 20)
    return float(min(FIRST_DELAY * 2**doublings, LONGEST_DELAY))
