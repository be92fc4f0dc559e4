"""How long to wait before a source is tried again."""

from __future__ import annotations

from typing import Final

from nodes.decoder.faults import Reason

FIRST: Final = (0.1, 0.3)
"""Seconds, least and most, before the first new attempt: most faults are short."""
LEAST: Final = 0.1
_BASE: Final = 0.4
_USUAL_CAP: Final = 1.0
"""Seconds; a local network does not mind, and a camera that is back is seen within two."""
_CAPS: Final = {
    # Cameras lock accounts after some wrong passwords.
    Reason.AUTHENTICATION: 10.0,
    Reason.TLS: 10.0,
    # These burden somebody else's machine, and seldom pass within seconds.
    Reason.NAME: 3.0,
    Reason.SERVER: 3.0,
    Reason.CODEC: 3.0,
}


def pause(attempt: int, reason: Reason, chance: float) -> float:
    """Seconds to wait before an attempt: exponential back-off with full jitter.

    Many streams that lose one server do not come back to it at one moment. The spread is from
    `LEAST` to a bound that doubles with each attempt up to a cap, which depends on the reason.
    After M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.

    Args:
        attempt: 1 for the first one after the fault.
        reason: of the latest fault.
        chance: a random number, 0 <= chance < 1.
    """
    if attempt <= 1:
        least, most = FIRST
    else:
        cap = _CAPS.get(reason, _USUAL_CAP)
        least, most = LEAST, min(cap, _BASE * 2.0 ** min(attempt - 2, 16))
    return least + (most - least) * chance
