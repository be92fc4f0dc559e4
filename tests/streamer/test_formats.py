"""Sizes of pictures, against the shapes that their layouts have by definition."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.formats import FORMATS, MAX_SIDE, YUV_FORMATS, picture_bytes, picture_shape

BITS = {"rgb24": 24, "bgr24": 24, "rgba": 32, "gray": 8, "yuv420p": 12, "nv12": 12}


def test_every_format_has_its_shape() -> None:
    assert {name: picture_shape(name, 64, 48) for name in FORMATS} == {
        "rgb24": (48, 64, 3),
        "bgr24": (48, 64, 3),
        "rgba": (48, 64, 4),
        "gray": (48, 64),
        "yuv420p": (72, 64),
        "nv12": (72, 64),
    }


@given(st.sampled_from(FORMATS), st.integers(1, MAX_SIDE // 2), st.integers(1, MAX_SIDE // 2))
def test_bytes_are_those_of_the_shape_and_of_the_definition(name: str, w: int, h: int) -> None:
    width, height = 2 * w, 2 * h
    assert picture_bytes(name, width, height) == math.prod(picture_shape(name, width, height))
    assert picture_bytes(name, width, height) * 8 == width * height * BITS[name]


@pytest.mark.parametrize(
    ("width", "height"), [(0, 1), (1, 0), (-4, 4), (MAX_SIDE + 1, 1), (1, 100_000)]
)
@pytest.mark.parametrize("name", FORMATS)
def test_sides_have_bounds(name: str, width: int, height: int) -> None:
    with pytest.raises(ValueError, match=f"1 to 16384 pixels a side, not {width}x{height}"):
        picture_shape(name, width, height)


@pytest.mark.parametrize("name", YUV_FORMATS)
def test_halved_chroma_needs_even_sides(name: str) -> None:
    for width, height in ((3, 4), (4, 3), (1, 1)):
        with pytest.raises(ValueError, match=f"{name} needs even sides, not {width}x{height}"):
            picture_bytes(name, width, height)


def test_an_unknown_format_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(ValueError, match="unknown pixel format 'rgb48'; known: rgb24, bgr24"):
        picture_shape("rgb48", 4, 4)
