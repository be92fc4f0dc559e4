"""The kernels' source, compiled for the CPU, against the definition and the CPU's conversions."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import pytest
from av.video.reformatter import Interpolation, VideoReformatter

from nodes.colour import RGB, Colour
from nodes.on_gpu import pictures, twin
from nodes.on_gpu.colour import of_rgb
from nodes.on_gpu.pictures import Picture
from nodes.planes import Turn, av_frame, av_planes, reformat, slot_planes
from nodes.sizes import Rect
from streamer.formats import picture_shape

pytestmark = pytest.mark.skipif(twin.compiler() is None, reason="needs g++ for the kernels' twin")

COLOURS = [Colour(s, full) for s in ("bt601", "bt709", "bt2020") for full in (False, True)]
SHARES = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722), "bt2020": (0.2627, 0.0593)}
LEVELS = (0, 1, 15, 16, 17, 64, 127, 128, 129, 192, 234, 235, 236, 240, 254, 255)


class Heap(np.ndarray):
    """An array that computes at once what a simulated GPU's would compute later."""

    def compute(self, function, *sources):
        views = [np.asarray(source).view(np.ndarray) for source in sources]
        self[...] = function(*views)


def heap(shape):
    return np.full(shape, 77, np.uint8).view(Heap)


def to_rgb(y, u, v, colour):
    """The definition (ITU-T H.273, 8.3), in float64."""
    red_share, blue_share = SHARES[colour.space]
    y, u, v = (np.asarray(one, np.float64) for one in (y, u, v))
    u, v = u - 128, v - 128
    if not colour.full:
        y, u, v = (y - 16) * 255 / 219, u * 255 / 224, v * 255 / 224
    red, blue = y + 2 * (1 - red_share) * v, y + 2 * (1 - blue_share) * u
    green = (y - red_share * red - blue_share * blue) / (1 - red_share - blue_share)
    return np.clip(np.stack([red, green, blue], -1), 0, 255)


def to_yuv(rgb, colour):
    red_share, blue_share = SHARES[colour.space]
    rgb = np.asarray(rgb, np.float64)
    red, green, blue = rgb[..., 0], rgb[..., 1], rgb[..., 2]
    y = red_share * red + (1 - red_share - blue_share) * green + blue_share * blue
    u, v = (blue - y) / (2 * (1 - blue_share)), (red - y) / (2 * (1 - red_share))
    if not colour.full:
        y, u, v = y * 219 / 255 + 16, u * 224 / 255, v * 224 / 255
    return np.clip(np.stack([y, u + 128, v + 128], -1), 0, 255)


def mean(plane):
    """Of two by two."""
    height, width = plane.shape[:2]
    return plane.reshape(height // 2, 2, width // 2, 2, *plane.shape[2:]).mean((1, 3))


def waves(width, height):
    """A smooth picture without symmetry: rgb24."""
    y, x = np.mgrid[0:height, 0:width] / max(width, height)
    parts = [np.sin(9 * x + 2 * y), np.sin(7 * y - x), np.sin(5 * x + 8 * y)]
    return np.stack([127 + 110 * part for part in parts], axis=-1).astype(np.uint8)


def noise(*shape):
    return np.random.default_rng(7).integers(0, 256, shape, dtype=np.uint8)


def yuv_of(rgb, format, colour):
    """A YUV picture of the graph, by swscale."""
    height, width = rgb.shape[:2]
    made = reformat(
        VideoReformatter(), av_frame(rgb, "rgb24"), format, (width, height),
        source=RGB, target=colour, flags=Interpolation.BILINEAR | Interpolation.ACCURATE_RND,
    )  # fmt: skip
    out = np.empty(picture_shape(format, width, height), np.uint8)
    planes = slot_planes(out, format, width, height)
    for one, plane in zip(av_planes(made), planes, strict=True):
        plane[...] = one
    return out


def corners(format):
    """Every triple of corner values as a block of two by two pixels; and the triples."""
    triples = np.array(list(itertools.product(LEVELS, repeat=3)), np.uint8)
    rows = len(LEVELS)
    grid = triples.reshape(rows, -1, 3)
    height, width = rows * 2, grid.shape[1] * 2
    out = np.empty(picture_shape(format, width, height), np.uint8)
    luma, *halves = slot_planes(out, format, width, height)
    luma[...] = grid[..., 0].repeat(2, 0).repeat(2, 1)
    if format == "nv12":
        halves[0][...] = grid[..., 1:]
    else:
        halves[0][...], halves[1][...] = grid[..., 1], grid[..., 2]
    return out, grid


@pytest.mark.parametrize("colour", COLOURS, ids=str)
@pytest.mark.parametrize("format", ["nv12", "yuv420p"])
def test_all_corners_of_yuv_become_the_rgb_of_the_definition(format, colour):
    array, grid = corners(format)
    width, height = grid.shape[1] * 2, grid.shape[0] * 2
    out = heap((height, width, 3))
    pictures.convert_to_rgb(out, Picture.of(array, format, width, height), colour)
    expected = to_rgb(grid[..., 0], grid[..., 1], grid[..., 2], colour).repeat(2, 0).repeat(2, 1)
    # A half and a little: rounding to the nearest, and float32 on the way.
    assert np.abs(out - expected).max() <= 0.5001
    swapped = heap((height, width, 3))
    pictures.convert_to_rgb(
        swapped, Picture.of(array, format, width, height), colour, blue_first=True
    )
    assert (swapped[..., ::-1] == out).all()
    # What the CPU's path makes of it: swscale's tables, which are coarser.
    made = reformat(
        VideoReformatter(), av_frame(array, format), "rgb24", (width, height),
        source=colour, target=RGB, flags=Interpolation.BILINEAR,
    )  # fmt: skip
    assert np.abs(out.astype(int) - av_planes(made)[0]).max() <= 3


@pytest.mark.parametrize("colour", COLOURS, ids=str)
@pytest.mark.parametrize("format", ["nv12", "yuv420p"])
def test_all_corners_of_rgb_become_the_yuv_of_the_definition(format, colour):
    triples = np.array(list(itertools.product(LEVELS, repeat=3)), np.uint8)
    rgb = triples.reshape(len(LEVELS), -1, 3).repeat(2, 0).repeat(2, 1)
    height, width = rgb.shape[:2]
    rgb = np.ascontiguousarray(rgb)
    out = heap(picture_shape(format, width, height))
    pictures.convert_to_yuv(out, format, Picture.of(rgb, "rgb24", width, height), colour)
    y, *halves = slot_planes(np.asarray(out), format, width, height)
    u, v = np.moveaxis(halves[0], -1, 0) if format == "nv12" else halves
    expected = to_yuv(rgb, colour)
    assert np.abs(y - expected[..., 0]).max() <= 0.5001
    assert np.abs(u - mean(expected[..., 1])).max() <= 0.5001
    assert np.abs(v - mean(expected[..., 2])).max() <= 0.5001
    flat = slot_planes(yuv_of(rgb, format, colour), format, width, height)
    # Luminance does not depend on how chroma is averaged, so swscale must agree everywhere.
    assert np.abs(y.astype(int) - flat[0]).max() <= 1


@pytest.mark.parametrize("colour", COLOURS, ids=str)
def test_chroma_is_the_mean_of_four_and_odd_pictures_repeat_their_edge(colour):
    rgb = noise(13, 17, 3)
    padded = np.pad(rgb, ((0, 1), (0, 1), (0, 0)), mode="edge")
    out = heap(picture_shape("nv12", 18, 14))
    picture = Picture.of(rgb, "rgb24", 17, 13)
    pictures.convert_to_yuv(out, "nv12", picture, colour, size=(18, 14))
    expected = to_yuv(padded, colour)
    y, uv = slot_planes(np.asarray(out), "nv12", 18, 14)
    assert np.abs(y - expected[..., 0]).max() <= 0.5001
    # Not clipped before it is averaged.
    assert np.abs(uv - mean(expected[..., 1:])).max() <= 1


@pytest.mark.parametrize("format", ["bgr24", "rgba", "gray"])
def test_other_interleaved_pictures_become_yuv_too(format):
    rgb = waves(34, 22)
    source = {
        "bgr24": np.ascontiguousarray(rgb[..., ::-1]),
        "rgba": np.dstack([rgb, np.full(rgb.shape[:2], 9, np.uint8)]),
        "gray": np.ascontiguousarray(rgb[..., 1]),
    }[format]
    shown = np.repeat(source[..., None], 3, -1) if format == "gray" else rgb
    outs = []
    for array, name in ((source, format), (np.ascontiguousarray(shown), "rgb24")):
        out = heap(picture_shape("yuv420p", 34, 22))
        pictures.convert_to_yuv(out, "yuv420p", Picture.of(array, name, 34, 22), COLOURS[2])
        outs.append(out)
    assert (outs[0] == outs[1]).all()


def test_pitched_surfaces_of_8_and_of_16_bits_read_as_contiguous_ones():
    """As a video decoder gives them: odd pitches, planes apart, chroma by itself."""
    colour = Colour("bt709", False)
    array = yuv_of(waves(38, 26), "nv12", colour)
    y, uv = slot_planes(array, "nv12", 38, 26)
    expected = heap((26, 38, 3))
    pictures.convert_to_rgb(expected, Picture.of(array, "nv12", 38, 26), colour)
    luma, chroma = noise(26, 53), noise(13, 61)
    luma[:, :38], chroma[:, :38] = y, uv.reshape(13, 38)
    surface = Picture(
        luma=luma, chroma=chroma, width=38, height=26, format="nv12",
        pitch=53, chroma_pitch=61, chroma_step=2, u_at=0, v_at=1,
    )  # fmt: skip
    out = heap((26, 38, 3))
    pictures.convert_to_rgb(out, surface, colour)
    assert (out == expected).all()
    # P010: ten bits in the upper ones of sixteen.
    wide_luma, wide_chroma = noise(26, 128), noise(13, 128)
    wide_luma[:, 0:76:2], wide_luma[:, 1:76:2] = 0, y
    wide_chroma[:, 0:76:2], wide_chroma[:, 1:76:2] = 0, uv.reshape(13, 38)
    deep = Picture(
        luma=wide_luma, chroma=wide_chroma, width=38, height=26, format="nv12", wide=True,
        pitch=128, chroma_pitch=128, chroma_step=4, u_at=0, v_at=2,
    )  # fmt: skip
    out = heap((26, 38, 3))
    pictures.convert_to_rgb(out, deep, colour)
    assert (out == expected).all()
    # Half a step of eight bits is seen: two bits more than eight are not cut off.
    wide_luma[:, 0:76:2] = 0x80
    finer = heap((26, 38, 3))
    pictures.convert_to_rgb(finer, deep, colour)
    assert (finer.astype(int) - expected).max() == 1
    assert (finer.astype(int) - expected).min() == 0


def test_odd_decoded_pictures_have_a_last_column_and_row():
    colour = Colour("bt601", True)
    luma, u, v = noise(5, 7), noise(3, 4), noise(3, 4)
    whole = np.concatenate([u.ravel(), v.ravel()])
    odd = Picture(
        luma=luma, chroma=whole, width=7, height=5, format="yuv420p",
        pitch=7, chroma_pitch=4, chroma_step=1, u_at=0, v_at=12,
    )  # fmt: skip
    out = heap((5, 7, 3))
    pictures.convert_to_rgb(out, odd, colour)
    wide = [half.repeat(2, 0).repeat(2, 1)[:5, :7] for half in (u, v)]
    assert np.abs(out - to_rgb(luma, *wide, colour)).max() <= 0.5001


def scaled(source, format, size, **given):
    out = heap(picture_shape(format, *size))
    whole = Rect(0, 0, source.width, source.height)
    options = {"part": whole, "target": Rect(0, 0, *size), "colour": RGB} | given
    pictures.scale(out, format, size, source, **options)
    return np.asarray(out)


@pytest.mark.parametrize("size", [(64, 48), (31, 17), (96, 20), (192, 30)])
@pytest.mark.parametrize("make", [waves, lambda w, h: noise(h, w, 3)], ids=["waves", "noise"])
def test_shrinking_is_the_mean_of_what_is_covered_as_opencv_has_it(make, size):
    rgb = make(192, 108)
    out = scaled(Picture.of(rgb, "rgb24", 192, 108), "rgb24", size)
    assert np.abs(out.astype(int) - cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)).max() <= 1


@pytest.mark.parametrize("size", [(192, 108), (100, 61), (50, 61)])
@pytest.mark.parametrize("make", [waves, lambda w, h: noise(h, w, 3)], ids=["waves", "noise"])
def test_growing_is_cubic_as_opencv_has_it(make, size):
    rgb = make(50, 30)
    out = scaled(Picture.of(rgb, "rgb24", 50, 30), "rgb24", size)
    expected = cv2.resize(rgb, size, interpolation=cv2.INTER_CUBIC)
    # OpenCV's weights have eleven bits.
    assert np.abs(out.astype(int) - expected).max() <= 2


def test_scaling_to_the_same_size_changes_nothing():
    rgb = noise(30, 50, 3)
    assert (scaled(Picture.of(rgb, "rgb24", 50, 30), "rgb24", (50, 30)) == rgb).all()
    for colour in COLOURS:
        for format in ("nv12", "yuv420p"):
            array = yuv_of(waves(50, 30), format, colour)
            source = Picture.of(array, format, 50, 30)
            assert (scaled(source, format, (50, 30), colour=colour) == array).all()
            out = heap((30, 50, 3))
            pictures.convert_to_rgb(out, source, colour)
            same = scaled(source, "rgb24", (50, 30), colour=colour, chroma="nearest")
            assert (same == out).all()


@pytest.mark.parametrize("mirror", [Turn(False, x, y) for x in (0, 1) for y in (0, 1)])
@pytest.mark.parametrize("format", ["rgb24", "gray", "nv12"])
def test_a_part_is_mirrored_and_laid_on_a_background(mirror, format):
    colour, back = Colour("bt709", True), (200, 30, 90)
    rgb = waves(60, 40)
    part, target, size = Rect(8, 4, 40, 30), Rect(6, 10, 20, 14), (40, 32)
    name = "nv12" if format == "nv12" else "rgb24"
    array = yuv_of(rgb, "nv12", colour) if name == "nv12" else rgb
    source = Picture.of(array, name, 60, 40)
    given = {"colour": colour, "background": back}
    plain = scaled(source, format, target[2:], part=part, **given)
    out = scaled(source, format, size, part=part, target=target, mirror=mirror, **given)
    flips = (slice(None, None, -1 if mirror.flip_y else 1),)
    flips += (slice(None, None, -1 if mirror.flip_x else 1),)
    level = {"rgb24": [back], "gray": [round(0.299 * 200 + 0.587 * 30 + 0.114 * 90)]}
    levels = level.get(format) or [of_rgb(back, colour)[0], of_rgb(back, colour)[1:]]
    planes, laid = (
        slot_planes(one, format, *sides) for one, sides in ((plain, target[2:]), (out, size))
    )
    for plane, whole, value in zip(planes, laid, levels, strict=True):
        half = 1 if whole.shape[1] == size[0] else 2
        x, y, wide, high = (number // half for number in target)
        assert (whole[y : y + high, x : x + wide] == plane[flips]).all()
        around = np.ones(whole.shape[:2], bool)
        around[y : y + high, x : x + wide] = False
        assert (whole[around] == value).all()


def test_what_can_be_seen_through_shows_the_background():
    rgba = noise(20, 30, 4)
    alpha = rgba[..., 3:] / 255
    out = scaled(Picture.of(rgba, "rgba", 30, 20), "bgr24", (30, 20), background=(10, 200, 90))
    expected = rgba[..., :3] * alpha + np.array([10, 200, 90]) * (1 - alpha)
    assert np.abs(out[..., ::-1] - expected).max() <= 0.51


@pytest.mark.parametrize("colour", COLOURS[:4], ids=str)
@pytest.mark.parametrize("size", [(64, 48), (150, 60), (260, 140)])
@pytest.mark.parametrize("format", ["rgb24", "gray", "yuv420p"])
def test_yuv_is_scaled_as_swscale_does(format, size, colour):
    array = yuv_of(waves(192, 108), "yuv420p", colour)
    smaller = size[0] <= 192
    exact = Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
    made = reformat(
        VideoReformatter(), av_frame(array, "yuv420p"), format, size,
        source=colour, target=colour if format == "yuv420p" else RGB,
        flags=exact | (Interpolation.AREA if smaller else Interpolation.BICUBIC),
    )  # fmt: skip
    out = scaled(
        Picture.of(array, "yuv420p", 192, 108), format, size,
        colour=colour, chroma="linear" if smaller else "cubic",
    )  # fmt: skip
    for ours, theirs in zip(slot_planes(out, format, *size), av_planes(made), strict=True):
        assert np.abs(ours.astype(int) - theirs).max() <= 3


def test_a_kernel_fills_every_byte_and_reads_none_beyond():
    for width, height in ((2, 2), (6, 4), (34, 18)):
        guarded = np.full(width * height * 3 // 2 + 64, 200, np.uint8)
        inner = guarded[32:-32].reshape(height * 3 // 2, width)
        inner[...] = noise(*inner.shape)
        first = heap((height, width, 3))
        pictures.convert_to_rgb(
            first, Picture.of(inner, "nv12", width, height), Colour("bt601", False)
        )
        guarded[:32] = guarded[-32:] = 3
        second = heap((height, width, 3))
        second[...] = 11
        pictures.convert_to_rgb(
            second, Picture.of(inner, "nv12", width, height), Colour("bt601", False)
        )
        assert (first == second).all()
        for size in ((2, 2), (width + 6, height + 2)):
            made = [scaled(Picture.of(inner, "nv12", width, height), "nv12", size) for _ in "ab"]
            assert (made[0] == made[1]).all()
