from __future__ import annotations

import numpy as np
import pytest
from skimage import data

from nodes.stability.flow import Flow, warped


@pytest.fixture(scope="module")
def scene():
    return np.ascontiguousarray(data.astronaut()[:, :, :])


def window(scene, x, y, width=200, height=160):
    return np.ascontiguousarray(scene[y : y + height, x : x + width])


@pytest.mark.parametrize(("dx", "dy"), [(0, 0), (3, 0), (-2, 4), (7, 5)])
def test_the_motion_of_a_moved_picture_is_found(scene, dx, dy):
    # A window that moves by (dx, dy) shows what was at (x + dx, y + dy) of the window before.
    earlier, later = window(scene, 120, 100), window(scene, 120 + dx, 100 + dy)
    motion = Flow().between(earlier, later)
    assert motion.field.shape == (160, 200, 2)
    trusted = motion.field[motion.trusted]
    assert motion.trusted.mean() > 0.8
    np.testing.assert_allclose(np.median(trusted, axis=0), (dx, dy), atol=0.25)


def test_what_comes_from_outside_is_not_trusted(scene):
    earlier, later = window(scene, 120, 100), window(scene, 128, 100)
    motion = Flow().between(earlier, later)
    assert not motion.trusted[:, -4:].any()


def test_nothing_is_trusted_across_a_cut(scene):
    motion = Flow().between(window(scene, 0, 0), window(data.coffee(), 300, 100))
    assert motion.trusted.mean() < 0.3


def test_warping_is_sampling_where_the_flow_points_to():
    random = np.random.default_rng(0)
    picture = random.integers(0, 256, (20, 30, 3), dtype=np.uint8)
    field = np.zeros((20, 30, 2), np.float32)
    field[..., 0], field[..., 1] = 2, -1
    moved = warped(picture, field)
    np.testing.assert_array_equal(moved[1:, :-2], picture[:-1, 2:])
    np.testing.assert_array_equal(moved[5, -1], picture[4, -1])
    half = np.zeros((20, 30, 2), np.float32)
    half[..., 0] = 0.5
    expected = (picture[:, :-1].astype(float) + picture[:, 1:]) / 2
    np.testing.assert_allclose(warped(picture, half)[:, :-1], expected, atol=0.01)


@pytest.mark.parametrize(
    ("one", "other", "message"),
    [
        (np.zeros((32, 32, 3), np.uint8), np.zeros((32, 40, 3), np.uint8), "differ in shape"),
        (np.zeros((32, 32, 4), np.uint8), np.zeros((32, 32, 4), np.uint8), "uint8 of shape"),
        (np.zeros((32, 32)), np.zeros((32, 32)), "float64"),
        (np.zeros((8, 40), np.uint8), np.zeros((8, 40), np.uint8), "16 pixels a side"),
    ],
)
def test_what_makes_no_pair_is_refused(one, other, message):
    with pytest.raises(ValueError, match=message):
        Flow().between(one, other)
