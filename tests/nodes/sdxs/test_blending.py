"""Means of directions on the sphere, against closed forms and against what defines them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nodes.sdxs import blending


def units(rng: np.random.Generator, count: int, width: int) -> Any:
    """Unit vectors of one octant, so that there is one mean."""
    drawn = np.abs(rng.standard_normal((count, width))) + 0.01
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def mean(directions: Any, weights: Any) -> Any:
    return blending.spherical_weights(directions @ directions.T, weights) @ directions


def test_two_directions_are_slerp() -> None:
    one, other = np.array([1.0, 0.0, 0.0]), np.array([math.cos(2.0), math.sin(2.0), 0.0])
    for share in (0.0, 0.1, 0.5, 0.9, 1.0):
        expected = [math.cos(2 * share), math.sin(2 * share), 0]
        found = mean(np.stack([one, other]), [1 - share, share])
        assert found == pytest.approx(expected, abs=1e-9)


def test_equal_weights_of_right_angles_lie_in_the_middle() -> None:
    assert mean(np.eye(3), [1 / 3] * 3) == pytest.approx([3**-0.5] * 3)


@settings(deadline=None, max_examples=50)
@given(
    st.integers(2, 8),
    st.integers(2, 30),
    st.integers(0, 2**32 - 1),
    st.lists(st.floats(0.01, 1), min_size=8, max_size=8),
)
def test_it_is_where_the_pulls_of_all_directions_cancel(
    count: int, width: int, seed: int, raw: list[float]
) -> None:
    directions = units(np.random.default_rng(seed), count, width)
    weights = np.array(raw[:count]) / sum(raw[:count])
    found = mean(directions, weights)
    assert np.linalg.norm(found) == pytest.approx(1.0)
    cosines = np.clip(directions @ found, -1, 1)
    away = directions - cosines[:, None] * found
    lengths = np.maximum(np.linalg.norm(away, axis=1, keepdims=True), 1e-12)
    # The gradient of Σ wᵢ · angle²: straight along the arcs, as long as the angles.
    pull = (weights[:, None] * np.arccos(cosines)[:, None] * away / lengths).sum(0)
    assert np.abs(pull).max() < 1e-6
    turned = mean(directions[::-1], weights[::-1])
    assert turned == pytest.approx(found, abs=1e-9)


def test_directions_that_cancel_out_have_a_finite_mean() -> None:
    opposite = np.array([[1.0, 0.0], [-1.0, 0.0]])
    assert blending.spherical_weights(opposite @ opposite.T, [0.5, 0.5]).tolist() == [0.5, 0.5]
    assert np.isfinite(mean(opposite, [0.3, 0.7])).all()
    same = np.array([[1.0, 0.0], [1.0, 0.0]])
    assert mean(same, [0.3, 0.7]) == pytest.approx([1.0, 0.0])


def test_vectors_are_mixed_one_by_one_with_lengths_linearly() -> None:
    vectors = np.array([[[2.0, 0.0], [0.0, 3.0]], [[0.0, 4.0], [0.0, 6.0]]])
    shares = blending.factors(vectors, [0.5, 0.5], "spherical")
    mixed = (shares[..., None] * vectors).sum(0)
    # Half of a right angle, half way between the lengths; and the same direction.
    assert mixed == pytest.approx(np.array([[3 / 2**0.5, 3 / 2**0.5], [0.0, 4.5]]))
    straight = blending.factors(vectors, [0.25, 0.75], "linear")
    assert (straight[..., None] * vectors).sum(0) == pytest.approx(
        0.25 * vectors[0] + 0.75 * vectors[1]
    )
    with pytest.raises(ValueError, match="unknown blend 'cubic'; known are linear and spherical"):
        blending.factors(vectors, [0.5, 0.5], "cubic")


def test_a_vector_without_length_stays_finite() -> None:
    vectors = np.array([[0.0, 0.0], [0.0, 2.0]])
    shares = blending.factors(vectors, [0.5, 0.5], "spherical")
    assert np.isfinite((shares[..., None] * vectors).sum(0)).all()
