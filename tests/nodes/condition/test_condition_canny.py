"""Canny's edges in torch against OpenCV's: no pixel differs where linking has rounds enough."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from nodes.condition.canny import MAX_PIXELS, canny, link
from nodes.condition.filters import levels


def drawn(picture, low, high, *, l2, **options):
    pixels = torch.from_numpy(picture).permute(2, 0, 1)[None]
    made = canny(levels(pixels), torch.tensor(low), torch.tensor(high), l2=l2, **options)
    return made[0, 0].numpy()


def expected(picture, low, high, *, l2):
    gray = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    return cv2.Canny(gray, low, high, apertureSize=3, L2gradient=l2)


@pytest.mark.parametrize("l2", [False, True], ids=["l1", "l2"])
@pytest.mark.parametrize(
    ("low", "high"), [(100.0, 200.0), (50.5, 150.2), (20.0, 200.0), (200.0, 100.0), (0.0, 1.0)]
)
def test_edges_of_photographs_are_those_of_opencv(photographs, low, high, l2):
    for name, picture in photographs.items():
        edges = expected(picture, low, high, l2=l2)
        assert edges.any()
        differ = np.count_nonzero(drawn(picture, low, high, l2=l2) != edges)
        assert differ == 0, name


@pytest.mark.parametrize("l2", [False, True], ids=["l1", "l2"])
def test_edges_of_noise_are_those_of_opencv(l2):
    # Noise has every direction, many ties, and edges at all four borders.
    random = np.random.default_rng(3)
    for shape in ((64, 96, 3), (33, 35, 3), (1, 40, 3), (40, 1, 3), (2, 2, 3)):
        picture = random.integers(0, 4, shape, dtype=np.uint8) * 60
        np.testing.assert_array_equal(
            drawn(picture, 150.0, 400.0, l2=l2), expected(picture, 150.0, 400.0, l2=l2)
        )


def test_batches_are_drawn_one_by_one(photographs):
    both = np.stack([photographs["astronaut"][:256, :256], photographs["camera"]])
    pixels = torch.from_numpy(both).permute(0, 3, 1, 2)
    made = canny(levels(pixels), torch.tensor(50.0), torch.tensor(150.0))
    for picture, one in zip(both, made[:, 0].numpy(), strict=True):
        edges = expected(np.ascontiguousarray(picture), 50.0, 150.0, l2=False)
        np.testing.assert_array_equal(one, edges)


def test_few_rounds_lose_long_weak_edges_and_invent_none(astronaut):
    edges = expected(astronaut, 20.0, 200.0, l2=False)
    lost = []
    for rounds in (2, 4, 6, 8, 10):
        made = drawn(astronaut, 20.0, 200.0, l2=False, rounds=rounds)
        assert not np.any(made[edges == 0])
        lost.append(int(np.count_nonzero(made != edges)))
    assert lost == sorted(lost, reverse=True)
    assert lost[0] > 0
    assert lost[-1] == 0


def test_an_edge_that_winds_through_the_whole_picture_is_followed():
    side = 256
    winding = np.zeros((side, side), np.float32)
    for number, row in enumerate(range(0, side - 4, 4)):
        winding[row] = 1
        winding[row : row + 5, side - 1 if number % 2 == 0 else 0] = 1
    begun = np.zeros_like(winding)
    begun[0, 0] = 1
    strong, weak = (torch.from_numpy(part)[None, None] for part in (begun, winding))
    assert torch.equal(link(strong, weak, rounds=14), weak)
    assert not torch.equal(link(strong, weak, rounds=4), weak)


def test_linking_finds_the_connected_parts_of_noise():
    # Just below the density at which one part spans the whole: the most tangled there are.
    random = np.random.default_rng(0)
    weak = (random.random((200, 300)) < 0.40).astype(np.uint8)
    strong = weak * (random.random(weak.shape) < 0.002)
    _, parts = cv2.connectedComponents(weak, connectivity=8)
    held = np.isin(parts, np.unique(parts[strong > 0]))
    begun, all_of_it = (
        torch.from_numpy(part.astype(np.float32))[None, None] for part in (strong, weak)
    )
    np.testing.assert_array_equal(link(begun, all_of_it)[0, 0].numpy() > 0, held)


def test_a_picture_that_cannot_be_counted_is_refused():
    with torch.device("meta"):
        image = torch.zeros(1, 1, 4096, 4097)
    assert image.numel() > MAX_PIXELS
    with pytest.raises(ValueError, match="4097x4096"):
        link(image, image)
