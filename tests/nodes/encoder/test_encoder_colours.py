"""Colours: what a player shows is what was put in, and the file says which matrix it has."""

from __future__ import annotations

import numpy as np
import pytest
from encoder_media import decoded, encode, look

from streamer import Frame

PATCHES = [(200, 40, 90), (30, 180, 60), (20, 60, 220), (240, 240, 240), (10, 10, 10)]


def patches(format: str, size: tuple[int, int]) -> Frame:
    width, height = size
    pixels = np.zeros((height, width, 3), np.uint8)
    step = width // len(PATCHES)
    for n, colour in enumerate(PATCHES):
        pixels[:, n * step : (n + 1) * step] = colour
    if format == "bgr24":
        pixels = pixels[..., ::-1].copy()
    if format == "rgba":
        pixels = np.dstack([pixels, np.full((height, width), 255, np.uint8)])
    return Frame.of(pixels, format=format)


@pytest.mark.parametrize("format", ["rgb24", "bgr24", "rgba"])
@pytest.mark.parametrize("name", ["out.mp4", "out.webm", "out.mkv", "1.png", "1.jpg"])
@pytest.mark.parametrize(("size", "matrix"), [((320, 240), 6), ((1280, 720), 1)])
def test_colours_survive(tmp_path, format, name, size, matrix):
    path = tmp_path / name
    encode(path, [patches(format, size)])
    shown = decoded(path)[0]
    step = size[0] // len(PATCHES)
    for n, colour in enumerate(PATCHES):
        got = shown[size[1] // 2, n * step + step // 2].astype(int)
        assert np.abs(got - colour).max() <= 6, (colour, got)
    if path.suffix in (".mp4", ".webm", ".mkv"):
        tags = look(path).stream
        assert (tags["colorspace"], tags["range"]) == (matrix, 1)
        if path.suffix != ".webm":
            assert tags["primaries"] == matrix


@pytest.mark.parametrize("name", ["out.mp4", "1.jpg", "1.png"])
def test_what_is_transparent_is_black_or_stays_transparent(tmp_path, name):
    pixels = np.full((64, 96, 4), 255, np.uint8)
    pixels[:, 32:64, 3] = 128
    pixels[:, 64:, 3] = 0
    encode(tmp_path / name, [Frame.of(pixels, format="rgba")])
    if name.endswith(".png"):
        import cv2

        kept = cv2.imread(str(tmp_path / name), cv2.IMREAD_UNCHANGED)
        assert np.array_equal(kept, pixels)
        return
    shown = decoded(tmp_path / name)[0].astype(int)
    for column, level in ((16, 255), (48, 128), (80, 0)):
        assert np.abs(shown[32, column] - level).max() <= 4


@pytest.mark.parametrize("level", [0, 90, 255])
def test_gray_keeps_its_level(tmp_path, level):
    encode(tmp_path / "out.mp4", [Frame.of(np.full((64, 64), level, np.uint8), format="gray")])
    shown = decoded(tmp_path / "out.mp4")[0]
    assert np.abs(shown.astype(int) - level).max() <= 2


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(("space", "number"), [("bt601", 6), ("bt709", 1), ("bt2020", 9)])
@pytest.mark.parametrize("format", ["yuv420p", "nv12"])
def test_yuv_passes_untouched_with_its_own_tags(tmp_path, format, space, number, full):
    rng = np.random.default_rng(3)
    pixels = rng.integers(0, 255, (96, 64), dtype=np.uint8)
    frame = Frame.of(pixels.copy(), format=format)
    frame.header.colorspace, frame.header.full_range = space, full
    # Quantiser 0 of x264 is lossless.
    encode(tmp_path / "out.mkv", [frame], options={"qp": 0, "crf": -1})
    tags = look(tmp_path / "out.mkv").stream
    assert (tags["colorspace"], tags["range"]) == (number, 2 if full else 1)
    luma = decoded(tmp_path / "out.mkv", "nv12")[0][:64]
    assert np.array_equal(luma, pixels[:64])


def test_yuv_of_unknown_matrix_is_taken_as_players_take_it(tmp_path):
    frame = Frame.of(np.full((96, 64), 128, np.uint8), format="yuv420p")
    assert frame.header.colorspace == "rgb"
    encode(tmp_path / "out.mkv", [frame])
    tags = look(tmp_path / "out.mkv").stream
    assert (tags["colorspace"], tags["range"]) == (6, 1)
