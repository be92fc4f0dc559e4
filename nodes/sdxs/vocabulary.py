"""Prompts of a model with a fixed vocabulary: one style, or several with weights."""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence


def parse(prompt: str, *, known: Sequence[str], model: str) -> dict[str, float]:
    """What a prompt asks for.

    Args:
        prompt: A style (`ink`) or a blend (`ink:0.7 comic:0.3`); upper case, commas and spaces
            do not matter, a weight left out is 1, and a style of weight 0 is left out.
        known: The model's vocabulary.
        model: Its name, for messages.

    Returns:
        Styles and weights, which are positive and add up to 1.

    Raises:
        ValueError: The prompt is empty, a style is unknown, a weight is no number of 0 or more, or
            all of them are 0.
    """
    words = prompt.lower().replace(",", " ").split()
    if not words:
        raise ValueError(f"the prompt is empty; model {model!r} knows {', '.join(known)}")
    weights: dict[str, float] = {}
    for word in words:
        style, colon, amount = word.partition(":")
        if style not in known:
            near = difflib.get_close_matches(style, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(
                f"unknown prompt {style!r:.100}: model {model!r} knows {', '.join(known)}{hint}"
            )
        weights[style] = weights.get(style, 0.0) + (_weight(word, amount) if colon else 1.0)
    total = sum(weights.values())
    if not total:
        raise ValueError(f"all weights of the prompt {prompt!r:.100} are 0")
    if not math.isfinite(total):
        raise ValueError("the weights of the prompt are too large: write numbers such as 0.7")
    shares = {style: weight / total for style, weight in weights.items()}
    return {style: share for style, share in shares.items() if share > 0}


def _weight(word: str, amount: str) -> float:
    try:
        weight = float(amount)
    except ValueError:
        weight = math.nan
    if not (math.isfinite(weight) and weight >= 0):
        raise ValueError(
            f"the weight in {word!r:.100} must be a number of 0 or more, as in 'ink:0.5'"
        )
    return weight
