"""The bundled model, on photographs that it was never trained on, against what taught it.

The floors lie well above what the source picture itself, a blurred target or another style reach;
the last test of the file holds them to that.
"""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from nodes.sdxs import OneStep
from nodes.sdxs.bundle import Bundle
from nodes.sdxs.distill.measure import edges, likeness, restlessness, swimming
from nodes.sdxs.distill.pictures import HELD_OUT, TRAINED_ON, held_out
from nodes.sdxs.styles import OPERATORS

Bytes = NDArray[np.uint8]

STYLES = Bundle.open("bundled").styles
LIKENESS = {
    "ink": 0.93,
    "oil": 0.87,
    "comic": 0.85,
    "pencil": 0.83,
    "watercolor": 0.86,
    "neon": 0.92,
}
EDGES = {
    "ink": 0.91,
    "oil": 0.86,
    "comic": 0.91,
    "pencil": 0.89,
    "watercolor": 0.88,
    "neon": 0.90,
}


@pytest.fixture(scope="module")
def photographs() -> dict[str, Bytes]:
    return {name: held_out(name, size=256) for name in HELD_OUT}


@pytest.fixture(scope="module")
def taught(photographs: dict[str, Bytes]) -> dict[str, dict[str, Bytes]]:
    """What each style's operator makes of each photograph."""
    return {
        style: {name: OPERATORS[style](source) for name, source in photographs.items()}
        for style in STYLES
    }


@pytest.fixture(scope="module")
def painted(loaded: OneStep, photographs: dict[str, Bytes]) -> dict[str, dict[str, Bytes]]:
    """What the model makes of each photograph in each style."""
    loaded.conditioning_scale, loaded.seed = 1.0, 0
    found = {}
    for style in STYLES:
        loaded.prompt = style
        found[style] = {name: loaded(source) for name, source in photographs.items()}
    return found


def test_the_photographs_were_held_out() -> None:
    assert HELD_OUT == ("astronaut", "coffee", "chelsea")
    assert not set(HELD_OUT) & set(TRAINED_ON)
    with pytest.raises(ValueError, match="'rocket' is not held out"):
        held_out("rocket", size=64)


@pytest.mark.parametrize("style", STYLES)
def test_the_model_draws_as_it_was_taught(
    painted: dict[str, dict[str, Bytes]], taught: dict[str, dict[str, Bytes]], style: str
) -> None:
    pairs = [(painted[style][name], taught[style][name]) for name in HELD_OUT]
    assert np.mean([likeness(*pair) for pair in pairs]) > LIKENESS[style]
    assert np.mean([edges(*pair) for pair in pairs]) > EDGES[style]


@pytest.mark.parametrize("style", STYLES)
def test_colours_are_not_cast(
    painted: dict[str, dict[str, Bytes]], taught: dict[str, dict[str, Bytes]], style: str
) -> None:
    for name in HELD_OUT:
        drift = painted[style][name].mean(axis=(0, 1)) - taught[style][name].mean(axis=(0, 1))
        assert np.abs(drift - drift.mean()).max() < 5, name
        assert abs(drift.mean()) < 14, name


@pytest.mark.parametrize("style", STYLES)
def test_there_is_no_checkerboard(
    painted: dict[str, dict[str, Bytes]], taught: dict[str, dict[str, Bytes]], style: str
) -> None:
    """Blocks of 2 × 2 and 4 × 4 pixels go through the network as channels: none may stand out."""
    for period in (2, 4):
        for name in HELD_OUT:
            error = painted[style][name].mean(axis=2) - taught[style][name].mean(axis=2)
            phases = [
                error[row::period, column::period].mean()
                for row in range(period)
                for column in range(period)
            ]
            assert np.ptp(phases) < 1.5, (name, period)


@pytest.mark.parametrize("style", STYLES)
def test_a_still_noisy_picture_stays_still(
    engine: OneStep, photographs: dict[str, Bytes], style: str
) -> None:
    engine.prompt = style
    for name, source in photographs.items():
        assert restlessness(engine, source) < 0.6, name


@pytest.mark.parametrize("style", STYLES)
def test_a_moving_picture_does_not_swim(
    engine: OneStep, photographs: dict[str, Bytes], style: str
) -> None:
    """Blocks of 4 × 4 pixels share a latent: a move by one pixel must not redraw the picture."""
    engine.prompt = style
    # Thin bright lines on black differ most where they are a little off.
    most = 7 if style == "neon" else 6
    for name, source in photographs.items():
        assert swimming(engine, source) < most, name


def test_the_floors_tell_a_broken_model_from_a_working_one(
    photographs: dict[str, Bytes], taught: dict[str, dict[str, Bytes]]
) -> None:
    for style in STYLES:
        targets = taught[style]
        blurred = {name: cv2.GaussianBlur(target, (0, 0), 2) for name, target in targets.items()}
        assert np.mean([edges(blurred[name], targets[name]) for name in targets]) < EDGES[style]
        for wrong in (
            photographs,
            *(taught[other] for other in STYLES if other != style),
        ):
            alike = np.mean([likeness(wrong[name], targets[name]) for name in targets])
            traced = np.mean([edges(wrong[name], targets[name]) for name in targets])
            assert alike < LIKENESS[style] or traced < EDGES[style], style
