"""Whether and when a node whose process has died is started again; time is an argument.

Restarts are quick at first, with pauses that double from `FIRST_DELAY` to `LONGEST_DELAY`. After
`max` of them within `window` seconds, `on-failure` gives up. `always` opens the circuit breaker:
the node rests, is tried once, and, should that fail within `window` seconds, too, rests twice as
long. One that has held out for `window` seconds starts with a clean slate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from streamer.graph.plan import RestartPlan

FIRST_DELAY: Final = 0.05
"""seconds before the first restart"""
LONGEST_DELAY: Final = 5.0
"""seconds that the doubling delay does not exceed"""
LONGEST_REST: Final = 300.0
"""seconds that the doubling rest does not exceed, unless the first one does"""


@dataclass(frozen=True, slots=True)
class Restart:
    """A start to come.

    Attributes:
        delay: seconds until then.
        rest: whether the breaker is open: the node rests until then, for it has failed too often.
    """

    delay: float
    rest: bool = False


@dataclass(slots=True)
class Breaker:
    """The circuit breaker of one worker.

    Attributes:
        times: of its quick restarts, seconds.
        rests: how often it has rested since it last held out.
        tried_at: when it was last tried after a rest; None if it has not rested since it held out.
    """

    times: list[float] = field(default_factory=list)
    rests: int = 0
    tried_at: float | None = None

    def next(
        self, policies: Sequence[RestartPlan], *, now: float, worked: bool, quick: bool = True
    ) -> Restart | None:
        """When the worker is to be started again; None to give it up. Changes nothing.

        Args:
            policies: of its nodes; the strictest one counts.
            now: when it died, seconds.
            worked: whether all its nodes have handled a picture before. One that never has, does
                not rest: there is no show to go on with.
            quick: whether a quick start may help; else it rests at once, or is given up.
        """
        found: list[Restart] = []
        for policy in policies:
            restart = self._next(policy, now, worked, quick)
            if restart is None:
                return None
            found.append(restart)
        return max(found, key=lambda restart: restart.delay)

    def chosen(self, restart: Restart, *, now: float) -> None:
        """Notes that this restart is made."""
        if restart.rest:
            self.rests += 1
            self.tried_at = now + restart.delay
        else:
            self.times = [*self.times[-1000:], now]

    def _next(self, policy: RestartPlan, now: float, worked: bool, quick: bool) -> Restart | None:
        if policy.policy == "never":
            return None
        half_open = self.tried_at is not None and now - self.tried_at < policy.window
        if self.tried_at is not None and not half_open:
            self.tried_at, self.rests, self.times = None, 0, []
        lately = recent(self.times, policy, now)
        if quick and not half_open and lately < policy.max:
            return Restart(min(FIRST_DELAY * 2 ** min(lately, 20), LONGEST_DELAY))
        if policy.policy == "on-failure" or not worked:
            return None
        longest = max(LONGEST_REST, policy.rest)
        return Restart(min(policy.rest * 2 ** min(self.rests, 20), longest), rest=True)


def recent(times: Sequence[float], policy: RestartPlan, now: float) -> int:
    """How many of these times (seconds) lie within the policy's window."""
    return sum(1 for at in times if now - at < policy.window)
