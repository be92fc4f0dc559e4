from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from nodes.condition.filters import RADIUS, blur, gradient, levels, ramp, round_half_up
from nodes.condition.taps import MAX_SIGMA, gaussian_taps


def planes(picture):
    """One picture as torch has it: uint8 of shape (1, 3, H, W)."""
    return torch.from_numpy(picture).permute(2, 0, 1)[None]


def padded(taps):
    row = torch.zeros(RADIUS + 1)
    row[: len(taps)] = torch.tensor(taps, dtype=torch.float32) / 256
    return row


def test_luminance_is_that_of_opencv_for_every_shade():
    shades = np.arange(0, 256, 3, dtype=np.uint8)
    cube = np.stack(np.meshgrid(shades, shades, shades, indexing="ij"), axis=-1)
    picture = np.ascontiguousarray(cube.reshape(len(shades), -1, 3))
    expected = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    np.testing.assert_array_equal(levels(planes(picture))[0, 0].numpy(), expected)


def test_floating_point_pictures_mean_the_same(astronaut):
    whole = planes(astronaut)
    assert torch.equal(levels(whole.float() / 255), levels(whole))
    assert torch.equal(levels(levels(whole).byte()), levels(whole))


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (torch.zeros(3, 8, 8), "shape"),
        (torch.zeros(1, 4, 8, 8), "shape"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.int32), "int32"),
    ],
)
def test_what_is_no_picture_is_refused(pixels, message):
    with pytest.raises(ValueError, match=message):
        levels(pixels)


@pytest.mark.parametrize("sigma", [0.0, 0.1, 0.3, 0.5, 0.77, 1.0, 1.4, 2.0, 2.51, MAX_SIGMA])
def test_a_blur_is_that_of_opencv_to_the_pixel(photographs, sigma):
    taps = gaussian_taps(sigma)
    assert taps[0] + 2 * sum(taps[1:]) == 256
    assert len(taps) <= RADIUS + 1
    gray = cv2.cvtColor(photographs["coffee"], cv2.COLOR_RGB2GRAY)
    made = round_half_up(blur(torch.from_numpy(gray).float()[None, None], padded(taps)))
    side = 2 * len(taps) - 1
    expected = gray
    if sigma:
        expected = cv2.GaussianBlur(gray, (side, side), sigma, borderType=cv2.BORDER_REPLICATE)
    np.testing.assert_array_equal(made[0, 0].numpy(), expected)


@pytest.mark.parametrize("sigma", [-0.1, MAX_SIGMA + 0.1, float("nan")])
def test_blurs_out_of_range_are_refused(sigma):
    with pytest.raises(ValueError, match="0 to 3 pixels"):
        gaussian_taps(sigma)


def test_derivatives_are_those_of_opencv(astronaut):
    gray = cv2.cvtColor(astronaut, cv2.COLOR_RGB2GRAY)
    right, down = gradient(levels(planes(astronaut)))
    expected = cv2.spatialGradient(gray, borderType=cv2.BORDER_REPLICATE)
    np.testing.assert_array_equal(right[0, 0].numpy(), expected[0])
    np.testing.assert_array_equal(down[0, 0].numpy(), expected[1])


def test_a_ramp_rises_between_its_ends():
    values = torch.tensor([-1.0, 10.0, 20.0, 30.0, 99.0])
    made = ramp(values, torch.tensor(10.0), torch.tensor(30.0))
    assert made.tolist() == [0, 0, 128, 255, 255]
