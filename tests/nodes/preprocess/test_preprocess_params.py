from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from nodes.preprocess import Preprocess
from nodes.preprocess.geometry import layout
from nodes.sizes import Rect, parse_colour, parse_rect, parse_size


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"size": "0x0"}, "a side has 16 to 16384 pixels, not 0x0"),
        ({"size": "100000x100000"}, "a side has 16 to 16384 pixels, not 100000x100000"),
        ({"size": "512"}, "a size is written WIDTHxHEIGHT, 512x512 say, not '512'"),
        ({"size": "-4x4"}, "a size is written WIDTHxHEIGHT"),
        ({"size": "9" * 5000 + "x1"}, "a size is written WIDTHxHEIGHT"),
        ({"size": "511x512", "format": "yuv420p"}, "size: yuv420p needs even sides, not 511x512"),
        ({"crop": "31x32+0+0", "format": "nv12"}, "crop: nv12 needs even sides, not 31x32"),
        ({"crop": "10x10"}, "a crop is written WIDTHxHEIGHT\\+X\\+Y"),
        ({"crop": "0x10+0+0"}, "a crop has at least one pixel"),
        ({"crop": "10x10+16380+0"}, "at most 16384 pixels a side"),
        ({"background": "mauve"}, "a colour is #rrggbb or one of black"),
        ({"mirror": "sideways"}, "none"),
        ({"fit": "zoom"}, "cover"),
        ({"fps": -1}, "greater than 0"),
        ({"fps": 0}, "greater than 0"),
        ({"sizes": "4x4"}, "Extra inputs"),
    ],
)
def test_parameters_that_make_no_sense(params, expected):
    with pytest.raises(ValidationError, match=expected):
        Preprocess.Params(**params)


def test_ways_to_write_things():
    assert parse_size(" 640 X 480 ") == (640, 480)
    assert parse_size("16384x16") == (16384, 16)
    assert parse_rect("640x480+100+0") == Rect(100, 0, 640, 480)
    assert str(Rect(100, 0, 640, 480)) == "640x480+100+0"
    assert parse_colour("#0fF") == (0, 255, 255)
    assert parse_colour("#102030") == (16, 32, 48)
    assert parse_colour("White") == (255, 255, 255)


SIDE = st.integers(1, 5000)


@given(SIDE, SIDE, SIDE, SIDE, st.sampled_from(["cover", "contain", "stretch"]), st.booleans())
def test_a_layout_stays_inside_and_keeps_the_shape(width, height, wide, tall, fit, even):
    if even:
        wide, tall = wide * 2, tall * 2
    area = Rect(3, 5, width, height)
    plan = layout(area, (wide, tall), fit, even=even)
    source, target = plan.source, plan.target
    assert plan.size == (wide, tall)
    assert area.x <= source.x
    assert source.x + source.width <= area.x + width
    assert area.y <= source.y
    assert source.y + source.height <= area.y + height
    assert min(source.width, source.height, target.width, target.height) >= 1
    assert 0 <= target.x <= wide - target.width
    assert 0 <= target.y <= tall - target.height
    if even:
        assert not any(side % 2 for side in target)
    if fit == "contain":
        assert source == area
        assert target.width == wide or target.height == tall
    else:
        assert target == Rect(0, 0, wide, tall)
    if fit == "stretch":
        assert source == area
    else:
        # A pixel of rounding is all that the shape may lose.
        step = 2 if even else 1
        across = abs(source.width * target.height - source.height * target.width)
        assert across <= step * max(source.width, source.height, target.width, target.height)


@given(SIDE, SIDE, SIDE, SIDE)
def test_a_part_of_yuv_can_be_cut_out_whole(width, height, wide, tall):
    area = Rect(4, 6, width * 2, height * 2)
    source = layout(area, (wide, tall), "cover", even=False, pairs=True).source
    assert not any(number % 2 for number in source)
    assert area.x <= source.x
    assert source.x + source.width <= area.x + area.width
    assert area.y <= source.y
    assert source.y + source.height <= area.y + area.height
