"""Prompts of models that take any text: one text, or several with weights.

    a castle on a hill
    a castle on a hill:0.7 | a forest:0.3

Without a bar the text is taken as it is, colons included.
"""

from __future__ import annotations

import math
import re

BAR = "|"
LONGEST = 4_000
"""Characters of a prompt; a text encoder reads some 75 words of it."""

# No digit stands before the colon, so that `at 12:30` is a time and not a weight.
_WEIGHTED = re.compile(r"(?P<text>.*?(^|\D)):\s*(?P<weight>[-+]?[\w.+-]+)", re.DOTALL)


def parse(prompt: str) -> tuple[tuple[str, float], ...]:
    """The texts of a prompt and their weights, which are positive and add up to 1.

    Raises:
        ValueError: The prompt is too long, a part of a blend is empty, or all weights are zero or
            one is negative.
    """
    if not isinstance(prompt, str):
        raise ValueError(f"the prompt must be text, not {prompt!r:.100}")
    if len(prompt) > LONGEST:
        raise ValueError(f"the prompt has {len(prompt)} characters; at most {LONGEST} are read")
    if BAR not in prompt:
        return ((prompt.strip(), 1.0),)
    weights: dict[str, float] = {}
    for part in prompt.split(BAR):
        text, weight = _split(part.strip())
        if not text:
            raise ValueError(
                f"a part of the blend {prompt!r:.100} is empty: write 'one:0.7 | other:0.3'"
            )
        weights[text] = weights.get(text, 0.0) + weight
    total = sum(weights.values())
    if not math.isfinite(total):
        raise ValueError("the weights of the prompt are too large: write numbers such as 0.7")
    if total <= 0:
        raise ValueError(f"the weights of {prompt!r:.100} add up to 0: one must be above it")
    shares = ((text, weight / total) for text, weight in weights.items())
    return tuple((text, share) for text, share in shares if share > 0)


def _split(part: str) -> tuple[str, float]:
    match = _WEIGHTED.fullmatch(part)
    if match is None:
        return part, 1.0
    try:
        weight = float(match["weight"])
    except ValueError:
        # A word: the colon is one of the text's own.
        return part, 1.0
    if not (math.isfinite(weight) and weight >= 0):
        raise ValueError(
            f"the weight in {part!r:.100} must be a number from 0, as in 'a castle:0.5'"
        )
    return match["text"].strip(), weight
