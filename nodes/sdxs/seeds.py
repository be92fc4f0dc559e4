"""Seeds with weights, written as styles are in a prompt.

    7
    7:0.7 42:0.3

Commas and bars between them do not matter, and a weight left out is 1.
"""

from __future__ import annotations

import math
import re

LARGEST = 2**32 - 1
MOST = 16
"""Seeds in one blend; each is a noise to draw."""

_PART = re.compile(r"(?P<seed>\d{1,20})(:(?P<weight>\S+))?")


def parse(seeds: str) -> tuple[tuple[int, float], ...]:
    """The seeds of a blend in rising order, and their weights, which are positive and add up to 1.

    Raises:
        ValueError: There is no seed or there are too many, one is no whole number from 0 to
            2³² − 1, a weight is no number from 0, or all are 0.
    """
    if not isinstance(seeds, str):
        raise ValueError(f"seeds must be text as in '7:0.7 42:0.3', not {seeds!r:.100}")
    words = seeds.replace(",", " ").replace("|", " ").split()
    if not words:
        raise ValueError("seeds is empty; name some as in '7:0.7 42:0.3', or leave it away")
    if len(words) > MOST:
        raise ValueError(f"seeds names {len(words)} seeds; at most {MOST} can be mixed")
    weights: dict[int, float] = {}
    for word in words:
        seed, weight = _read(word)
        weights[seed] = weights.get(seed, 0.0) + weight
    total = sum(weights.values())
    if not 0 < total < math.inf:
        raise ValueError(f"the weights of seeds {seeds!r:.100} must add up to a number above 0")
    shares = ((seed, weight / total) for seed, weight in sorted(weights.items()))
    return tuple((seed, share) for seed, share in shares if share > 0)


def _read(word: str) -> tuple[int, float]:
    match = _PART.fullmatch(word)
    if match is None or int(match["seed"]) > LARGEST:
        raise ValueError(
            f"{word!r:.100} in seeds is no whole number from 0 to {LARGEST}, with a weight or "
            "without, as in '7:0.7 42:0.3'"
        )
    try:
        weight = 1.0 if match["weight"] is None else float(match["weight"])
    except ValueError:
        weight = math.nan
    if not (math.isfinite(weight) and weight >= 0):
        raise ValueError(f"the weight in {word!r:.100} must be a number from 0, as in '7:0.7'")
    return int(match["seed"]), weight
