from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from nodes.mosaic import Mosaic
from streamer import Frame, FrameError
from streamer.testing import SoloContext, solo

RED, GREEN, BLUE = (220, 20, 30), (10, 200, 40), (30, 20, 210)


def flat(colour, size=(40, 30), **header):
    return Frame.of(np.full((size[1], size[0], 3), colour, np.uint8), **header)


def laid(frames, **params):
    names = tuple(frames)
    node = solo(Mosaic, context=SoloContext(input_names=names), **params)
    with node.process(frames) as made:
        return made.numpy().copy(), made.header


def test_side_by_side():
    shown, header = laid({"a": flat(RED, pts=9, seq=4), "b": flat(GREEN), "c": flat(BLUE)})
    assert shown.shape == (30, 120, 3)
    for index, colour in enumerate((RED, GREEN, BLUE)):
        assert (shown[:, index * 40 : index * 40 + 40] == colour).all()
    assert (header.pts, header.seq, header.format) == (9, 4, "rgb24")


def test_a_grid_with_gaps():
    shown, _ = laid(
        {"a": flat(RED), "b": flat(GREEN), "c": flat(BLUE)}, columns=2, gap=6, background="white"
    )
    assert shown.shape == (66, 86, 3)
    assert (shown[:30, :40] == RED).all()
    assert (shown[:30, 46:] == GREEN).all()
    assert (shown[36:, :40] == BLUE).all()
    rest = shown.copy()
    rest[:30, :40] = rest[:30, 46:] = rest[36:, :40] = 255
    assert (rest == 255).all()


def test_an_input_that_has_sent_nothing_stays_dark():
    shown, _ = laid({"a": flat(RED), "b": None})
    assert (shown[:, :40] == RED).all()
    assert (shown[:, 40:] == 16).all()


def test_a_picture_of_another_shape_is_shown_whole():
    shown, _ = laid({"a": flat(RED), "b": flat(GREEN, size=(80, 20))}, background="#000")
    tile = shown[:, 40:]
    assert (tile[10:20] == GREEN).all()
    assert (tile[:10] == 0).all()
    assert (tile[20:] == 0).all()


@pytest.mark.parametrize("size", [(80, 60), (13, 10), (40, 30)])
def test_tiles_have_the_size_that_is_asked_for(size):
    y, x = np.mgrid[0 : size[1], 0 : size[0]] / size[0]
    picture = np.stack([200 * x, 200 * y, 100 + 0 * x], -1).astype(np.uint8)
    shown, _ = laid({"a": Frame.of(picture), "b": flat(RED)}, size="64x48")
    assert shown.shape == (48, 128, 3)
    middle = shown[24, 32].astype(int)
    assert np.abs(middle - picture[size[1] // 2, size[0] // 2]).max() < 14
    assert (shown[:, 64:] == RED).all()


def test_labels_are_written_on_the_tiles_alone():
    names = {"ink": flat(RED, size=(160, 120)), "oil": flat(GREEN, size=(160, 120))}
    plain, _ = laid(names)
    shown, _ = laid(names, labels=True)
    changed = (shown != plain).any(axis=-1)
    assert changed[:, :160].any()
    assert changed[:, 160:].any()
    assert not changed[:90].any()
    assert shown[changed].max() > 200


def test_a_label_too_long_for_its_tile_is_cut():
    shown, _ = laid({"a" * 32: flat(RED, size=(16, 16)), "b": flat(GREEN)}, labels=True)
    assert shown.shape == (16, 32, 3)


def test_too_many_pixels():
    tiles = {str(number): None for number in range(40)}
    node = solo(Mosaic, context=SoloContext(input_names=tuple(tiles)), size="512x512")
    with pytest.raises(FrameError, match="make 20480x512 pixels, more than 16384 a side"):
        node.process(tiles | {"0": flat(RED)})


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"size": "0x0"}, "a side has 16 to 16384 pixels"),
        ({"columns": 0}, "greater than or equal to 1"),
        ({"gap": -1}, "greater than or equal to 0"),
        ({"background": "pinkish"}, "a colour is #rrggbb"),
    ],
)
def test_parameters_that_make_no_sense(params, expected):
    with pytest.raises(ValidationError, match=expected):
        Mosaic.Params(**params)
