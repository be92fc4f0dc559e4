from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from nodes.sdxs.styles import OPERATORS
from nodes.sdxs.styles import filters as f
from nodes.sdxs.styles.painting import kuwahara

STYLES = tuple(OPERATORS)


@pytest.mark.parametrize("style", STYLES)
def test_operators_depend_on_the_picture_alone(style: str, coffee: NDArray[np.uint8]) -> None:
    before = coffee.copy()
    first = OPERATORS[style](coffee)
    assert first.shape == coffee.shape
    assert first.dtype == np.uint8
    assert np.array_equal(OPERATORS[style](coffee), first)
    assert np.array_equal(coffee, before)


@pytest.mark.parametrize("style", STYLES)
def test_operators_move_with_the_picture(style: str, coffee: NDArray[np.uint8]) -> None:
    moved = OPERATORS[style](np.ascontiguousarray(coffee[16:, 24:]))[40:-40, 40:-40]
    still = OPERATORS[style](coffee)[16:, 24:][40:-40, 40:-40]
    assert np.abs(moved.astype(int) - still).mean() < 0.1


@pytest.mark.parametrize("style", STYLES)
def test_operators_calm_a_noisy_picture_or_keep_it(
    style: str, astronaut: NDArray[np.uint8]
) -> None:
    rng = np.random.default_rng(0)
    noisy = [
        np.clip(np.rint(astronaut + rng.normal(0, 2, astronaut.shape)), 0, 255).astype(np.uint8)
        for _ in range(2)
    ]
    before = np.abs(noisy[0].astype(int) - noisy[1]).mean()
    styled = [OPERATORS[style](picture).astype(int) for picture in noisy]
    assert np.abs(styled[0] - styled[1]).mean() < 1.5 * before


@pytest.mark.parametrize("style", ["ink", "pencil"])
def test_a_dark_edge_becomes_a_dark_line_on_paper(style: str) -> None:
    picture = np.full((64, 64, 3), 210, np.uint8)
    picture[:, 30:34] = 90
    drawn = OPERATORS[style](picture).mean(axis=2)
    assert drawn[10:-10, 31:33].max() < 120
    assert drawn[10:-10, :20].min() > 215


def test_kuwahara_keeps_a_step_and_removes_grain() -> None:
    rng = np.random.default_rng(0)
    clean = np.full((64, 64, 3), 0.25, np.float32)
    clean[:, 32:] = 0.75
    noisy = (clean + rng.normal(0, 0.03, (64, 64, 1))).astype(np.float32)
    painted = kuwahara(noisy, radius=4)
    assert np.abs(painted - clean)[8:-8, 8:-8].max() < 0.06
    assert painted[8:-8, 8:24].std() < 0.5 * noisy[8:-8, 8:24].std()


def test_steps_are_flat_between_ramps_and_never_fall() -> None:
    ramp = np.linspace(0, 1, 1001, dtype=np.float32)[:-1]
    levels = f.steps(ramp, count=4, sharpness=6)
    assert (np.diff(levels) > -1e-6).all()
    assert np.abs(levels - ramp).max() < 0.5 / 4
    slope = np.diff(levels)
    # Flat at a quarter of the way between two ramps, steep within them.
    assert slope.max() > 5 * slope.min()


def test_tangents_lie_along_an_edge() -> None:
    picture = np.zeros((32, 32), np.float32)
    picture[:, 16:] = 1
    x, y = f.tangents(picture, sigma=2)
    assert np.abs(x[8:-8, 14:18]).max() < 0.01
    assert np.abs(y[8:-8, 14:18]).min() > 0.99


def test_a_blur_along_an_edge_keeps_it() -> None:
    picture = np.zeros((32, 32), np.float32)
    picture[:, 16:] = 1
    blurred = f.along(picture, f.tangents(picture, sigma=2), sigma=3)
    assert np.abs(blurred - picture)[10:-10].max() < 0.05
