"""How long to wait before a lost connection is tried again; a plain function of chance."""

from __future__ import annotations

from typing import Final

FIRST: Final = 0.3
"""seconds that the first wait stays below"""
LONGEST: Final = 1.5
"""seconds that no wait exceeds: what is back is found soon after"""
_LEAST: Final = 0.35
"""least part of a wait, so that a server that refuses is not asked in a loop"""


def delay(attempt: int, *, random: float, longest: float = LONGEST) -> float:
    """Seconds to wait before an attempt: between a third and the whole of a doubling limit.

    Chance keeps many clients of one server, all lost at the same moment, from coming back at the
    same moment again and again.

    Args:
        attempt: 1 for the first one after the loss, 2 for the next, and so on.
        random: from 0 to below 1, `random.random()` say.
        longest: seconds that no wait exceeds.

    Returns:
        0.1 to 0.3 for the first attempt, never more than `longest`.
    """
    limit = min(longest, FIRST * float(1 << min(max(attempt - 1, 0), 10)))
    return limit * (_LEAST + (1 - _LEAST) * random)
