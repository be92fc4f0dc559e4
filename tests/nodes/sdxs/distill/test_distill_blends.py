"""What is said of blends, held to painters whose blends are known; and to the bundled model."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from nodes.sdxs import OneStep, vocabulary
from nodes.sdxs.distill import blends
from nodes.sdxs.styles import OPERATORS

STYLES = ("ink", "neon")


def fading(picture: NDArray[np.uint8], prompt: str) -> NDArray[np.uint8]:
    """The operators' pictures, each as strong as it was asked for."""
    weights = vocabulary.parse(prompt, known=STYLES, model="fading")
    mixed = sum(weight * OPERATORS[style](picture) for style, weight in weights.items())
    return np.rint(mixed).astype(np.uint8)


def jumping(picture: NDArray[np.uint8], prompt: str) -> NDArray[np.uint8]:
    """The first style's picture, until nothing but the last is asked for."""
    weights = vocabulary.parse(prompt, known=STYLES, model="jumping")
    return OPERATORS[STYLES[0] if STYLES[0] in weights else STYLES[1]](picture)


def test_a_picture_lies_between_two_others_as_it_is_mixed() -> None:
    rng = np.random.default_rng(0)
    first, last = rng.integers(0, 256, (2, 16, 16, 3), np.uint8)
    assert blends.position(first, first, last) == 0
    assert blends.position(last, first, last) == pytest.approx(1)
    mixed = np.rint(0.25 * last + 0.75 * first).astype(np.uint8)
    assert blends.position(mixed, first, last) == pytest.approx(0.25, abs=0.01)
    # What leads neither to the one nor to the other does not count.
    aside = np.where(first == last, 255 - first, first).astype(np.uint8)
    assert blends.position(aside, first, last) == 0


def test_even_blends_are_told_from_jumps() -> None:
    even = blends.judge(fading, STYLES, size=96)
    assert even.uneven < 0.005
    assert even.likeness > 0.999
    jump = blends.judge(jumping, STYLES, size=96)
    assert jump.uneven == pytest.approx(np.mean(blends.WEIGHTS), abs=1e-6)
    assert jump.worst == pytest.approx(max(blends.WEIGHTS), abs=1e-6)
    assert jump.where == "ink:0.25 neon:0.75"
    assert jump.likeness < 0.8
    assert str(jump).endswith("at most 0.75 (ink:0.25 neon:0.75)")


def test_the_bundled_model_goes_over_evenly(tmp_path: Path) -> None:
    engine = OneStep.load("bundled", threads=1)

    def paint(picture: NDArray[np.uint8], prompt: str) -> NDArray[np.uint8]:
        engine.prompt = prompt
        return engine(picture)

    found = blends.judge(paint, engine.prompts, size=128)
    assert found.uneven < 0.1, found
    assert found.worst < 0.25, found
    path = tmp_path / "blends.png"
    blends.draw(paint, [("ink", "oil"), ("comic", "neon")], path=path, size=64)
    drawn = cv2.imread(str(path))
    assert drawn is not None
    assert drawn.shape == (2 * 64, 5 * 64, 3)
