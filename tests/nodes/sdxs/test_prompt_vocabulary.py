from __future__ import annotations

import re

import pytest

from nodes.sdxs.vocabulary import parse

KNOWN = ("ink", "oil")


@pytest.mark.parametrize(
    ("prompt", "weights"),
    [
        ("ink", {"ink": 1.0}),
        ("  OIL ", {"oil": 1.0}),
        ("ink oil", {"ink": 0.5, "oil": 0.5}),
        ("ink:3, oil:1", {"ink": 0.75, "oil": 0.25}),
        ("ink:1 ink:1 oil:2", {"ink": 0.5, "oil": 0.5}),
        ("ink:0 oil:1", {"oil": 1.0}),  # where a fade ends
    ],
)
def test_weights_add_up_to_one(prompt: str, weights: dict[str, float]) -> None:
    assert parse(prompt, known=KNOWN, model="m") == weights


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("", "the prompt is empty; model 'm' knows ink, oil"),
        ("oli", "unknown prompt 'oli': model 'm' knows ink, oil; did you mean 'oil'?"),
        ("photograph", "unknown prompt 'photograph': model 'm' knows ink, oil"),
        ("ink:0 oil:0", "all weights of the prompt 'ink:0 oil:0' are 0"),
        ("ink:-1", "the weight in 'ink:-1' must be a number of 0 or more, as in 'ink:0.5'"),
        ("ink:", "the weight in 'ink:' must be a number of 0 or more, as in 'ink:0.5'"),
        ("ink:inf", "the weight in 'ink:inf' must be a number of 0 or more, as in 'ink:0.5'"),
    ],
)
def test_mistakes_are_named(prompt: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        parse(prompt, known=KNOWN, model="m")
