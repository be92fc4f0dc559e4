from __future__ import annotations

from fractions import Fraction

import cv2
import numpy as np
import pytest

from nodes.preprocess import Preprocess
from streamer import Frame, FrameError, NodeError, ParameterError
from streamer.testing import SoloContext, solo

INPUTS = ("rgb24", "bgr24", "gray", "rgba", "yuv420p", "nv12")
OUTPUTS = ("rgb24", "bgr24", "gray", "yuv420p", "nv12")
SHARES = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722)}


def scene(width=192, height=108):
    """A smooth picture without symmetry: rgb, uint8 of shape (height, width, 3)."""
    y, x = np.mgrid[0:height, 0:width] / max(width, height)
    waves = [np.sin(9 * x + 2 * y), np.sin(7 * y - x), np.sin(5 * x + 8 * y)]
    return np.stack([127 + 90 * wave for wave in waves], axis=-1).astype(np.uint8)


def luma(rgb, space):
    red, blue = SHARES[space]
    return rgb[..., 0] * red + rgb[..., 1] * (1 - red - blue) + rgb[..., 2] * blue


def to_yuv(rgb, format, space="bt601", full=False):
    """Reference conversion in floating point; chroma averaged over two by two pixels."""
    red_share, blue_share = SHARES[space]
    rgb = rgb.astype(np.float64)
    y = luma(rgb, space)
    planes = [
        y,
        (rgb[..., 2] - y) / (2 * (1 - blue_share)),
        (rgb[..., 0] - y) / (2 - 2 * red_share),
    ]
    if full:
        y, u, v = planes[0], planes[1] + 128, planes[2] + 128
    else:
        y, u, v = (
            16 + planes[0] * 219 / 255,
            128 + planes[1] * 224 / 255,
            128 + planes[2] * 224 / 255,
        )
    height, width = y.shape
    u, v = (part.reshape(height // 2, 2, width // 2, 2).mean((1, 3)) for part in (u, v))
    halved = [u.ravel(), v.ravel()] if format == "yuv420p" else [np.stack([u, v], -1).ravel()]
    flat = np.concatenate([y.ravel(), *halved])
    return np.clip(np.rint(flat), 0, 255).astype(np.uint8).reshape(height * 3 // 2, width)


def to_rgb(array, format, space="bt601", full=False):
    """Reference conversion back, with chroma repeated."""
    red_share, blue_share = SHARES[space]
    height, width = array.shape[0] * 2 // 3, array.shape[1]
    flat = array.ravel().astype(np.float64)
    y = flat[: width * height].reshape(height, width)
    if format == "nv12":
        u, v = np.moveaxis(flat[width * height :].reshape(height // 2, width // 2, 2), -1, 0)
    else:
        u, v = flat[width * height :].reshape(2, height // 2, width // 2)
    u, v = (np.repeat(np.repeat(part - 128, 2, 0), 2, 1) for part in (u, v))
    if not full:
        y, u, v = (y - 16) * 255 / 219, u * 255 / 224, v * 255 / 224
    red, blue = y + 2 * (1 - red_share) * v, y + 2 * (1 - blue_share) * u
    green = (y - red_share * red - blue_share * blue) / (1 - red_share - blue_share)
    return np.clip(np.stack([red, green, blue], -1), 0, 255)


def made_of(rgb, format, space="bt601", full=False):
    """A frame of any format that shows a picture."""
    if format in ("yuv420p", "nv12"):
        frame = Frame.of(to_yuv(rgb, format, space, full), format=format, pts=7)
        frame.header.colorspace, frame.header.full_range = space, full
        return frame
    array = {
        "rgb24": rgb,
        "bgr24": rgb[..., ::-1],
        "gray": np.rint(luma(rgb, "bt601")).astype(np.uint8),
        "rgba": np.dstack([rgb, np.full(rgb.shape[:2], 255, np.uint8)]),
    }[format]
    array = np.ascontiguousarray(array)
    array.flags.writeable = False  # as received frames are
    return Frame.of(array, format=format, pts=7)


def seen(frame):
    """What a frame shows, as rgb (or gray repeated)."""
    array, header = frame.numpy(), frame.header
    if header.format in ("yuv420p", "nv12"):
        return to_rgb(array, header.format, header.colorspace, header.full_range)
    if header.format == "gray":
        return np.repeat(array[..., None], 3, -1).astype(float)
    return (array[..., ::-1] if header.format == "bgr24" else array).astype(float)


def shaped(frame, *, wanted=OUTPUTS, **params):
    node = solo(Preprocess, context=SoloContext(wanted=wanted), **params)
    with frame, node.process(frame) as made:
        result = seen(made), made.header
    node.close()
    return result


def psnr(one, other):
    return 10 * np.log10(255**2 / max(1e-9, np.mean((np.asarray(one, float) - other) ** 2)))


@pytest.mark.parametrize("source", INPUTS)
@pytest.mark.parametrize("format", OUTPUTS)
@pytest.mark.parametrize("fit", ["cover", "contain", "stretch"])
def test_every_format_to_every_format(source, format, fit):
    rgb = scene()
    shown, header = shaped(made_of(rgb, source), size="96x96", fit=fit, format=format)
    if fit == "cover":
        expected = cv2.resize(rgb[:, 42:150], (96, 96), interpolation=cv2.INTER_AREA)
    elif fit == "stretch":
        expected = cv2.resize(rgb, (96, 96), interpolation=cv2.INTER_AREA)
    else:
        expected = np.zeros((96, 96, 3))
        expected[21:75] = cv2.resize(rgb, (96, 54), interpolation=cv2.INTER_AREA)
        if format in ("yuv420p", "nv12"):
            expected = np.roll(expected, -1, axis=0)  # bars of even height
    if "gray" in (source, format):
        expected = np.repeat(luma(expected, "bt601")[..., None], 3, -1)
    assert (header.width, header.height, header.format) == (96, 96, format)
    assert (header.pts, header.stream) == (7, "array")
    edges = fit == "contain" and {source, format} & {"yuv420p", "nv12"}
    assert psnr(shown, expected) > (28 if edges else 36)


@pytest.mark.parametrize("space", ["bt601", "bt709"])
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("size", ["96x54", "192x108", "300x170"])
@pytest.mark.parametrize("format", ["rgb24", "yuv420p"])
def test_colours_keep_their_matrix_and_range(space, full, size, format):
    rgb = np.zeros((108, 192, 3), np.uint8)
    rgb[:, :96], rgb[:, 96:] = (200, 60, 30), (40, 90, 210)
    shown, header = shaped(made_of(rgb, "yuv420p", space, full), size=size, format=format)
    height, width = shown.shape[:2]
    for left, colour in ((0.2, (200, 60, 30)), (0.8, (40, 90, 210))):
        spot = shown[height // 4 : -height // 4, int(width * left)]
        assert np.abs(spot - colour).max() < 3
    expected = (space, full) if format == "yuv420p" else ("rgb", True)
    assert (header.colorspace, header.full_range) == expected


@pytest.mark.parametrize(("height", "space"), [(96, "bt601"), (720, "bt709")])
def test_yuv_made_of_rgb_says_what_it_is(height, space):
    shown, header = shaped(
        Frame.of(np.full((height, 64, 3), (200, 60, 30), np.uint8)), format="nv12"
    )
    assert (header.colorspace, header.full_range) == (space, False)
    assert np.abs(shown - (200, 60, 30)).max() < 3


@pytest.mark.parametrize("source", INPUTS)
@pytest.mark.parametrize("format", ["rgb24", "yuv420p", "gray"])
@pytest.mark.parametrize("mirror", ["none", "horizontal", "vertical", "both"])
@pytest.mark.parametrize("size", [None, "64x48"])
def test_mirror(source, format, mirror, size):
    rgb = scene(128, 96)
    plain, _ = shaped(made_of(rgb, source), size=size, format=format)
    turned, _ = shaped(made_of(rgb, source), size=size, format=format, mirror=mirror)
    if mirror in ("horizontal", "both"):
        turned = turned[:, ::-1]
    if mirror in ("vertical", "both"):
        turned = turned[::-1]
    assert np.array_equal(turned, plain)


@pytest.mark.parametrize("source", INPUTS)
@pytest.mark.parametrize("crop", ["64x48+20+30", "63x47+21+31", "192x108+0+0", "1x1+191+107"])
def test_crop_is_exact(source, crop):
    rgb = scene()
    width, height, x, y = (int(part) for part in crop.replace("x", "+").split("+"))
    shown, header = shaped(made_of(rgb, source), crop=crop, format="rgb24")
    expected = rgb[y : y + height, x : x + width]
    if source == "gray":
        expected = np.repeat(luma(expected, "bt601")[..., None], 3, -1)
    assert (header.width, header.height) == (width, height)
    assert np.abs(shown - expected).mean() < (2.5 if source in ("yuv420p", "nv12") else 0.6)


@pytest.mark.parametrize("source", ["rgb24", "yuv420p"])
def test_crop_comes_before_the_size(source):
    rgb = scene()
    shown, _ = shaped(made_of(rgb, source), crop="96x54+40+10", size="48x26", fit="stretch")
    expected = cv2.resize(rgb[10:64, 40:136], (48, 26), interpolation=cv2.INTER_AREA)
    assert psnr(shown, expected) > 36


@pytest.mark.parametrize("size", ["97x51", "33x201", "511x19"])
@pytest.mark.parametrize("source", ["rgb24", "yuv420p", "gray"])
def test_odd_sizes_are_made_as_rgb(source, size):
    shown, header = shaped(made_of(scene(), source), size=size, fit="stretch")
    width, height = (int(side) for side in size.split("x"))
    assert (header.width, header.height, header.format) == (width, height, "rgb24")
    grows = width > 192 or height > 108
    expected = cv2.resize(
        scene(), (width, height), interpolation=cv2.INTER_CUBIC if grows else cv2.INTER_AREA
    )
    if source == "gray":
        expected = np.repeat(luma(expected, "bt601")[..., None], 3, -1)
    assert psnr(shown, expected) > 33


def test_shrinking_averages_even_where_the_other_side_grows():
    stripes = np.zeros((60, 200, 3), np.uint8)
    stripes[:, ::2] = 200
    shown, _ = shaped(Frame.of(stripes), size="50x120", fit="stretch", format="rgb24")
    assert np.abs(shown - 100).max() <= 2


@pytest.mark.parametrize("format", OUTPUTS)
def test_the_bars_have_the_background_colour(format):
    rgb = np.full((32, 128, 3), 128, np.uint8)
    shown, _ = shaped(
        Frame.of(rgb), size="64x64", fit="contain", background="#c83c1e", format=format
    )
    expected = np.array((200, 60, 30))
    if format == "gray":
        expected = np.full(3, luma(expected[None, None], "bt601").item())
    for rows in (slice(0, 22), slice(42, 64)):
        assert np.abs(shown[rows] - expected).max() < 3
    assert np.abs(shown[28:36] - 128).max() < 3


def test_what_can_be_seen_through_shows_the_background():
    rgba = np.zeros((20, 30, 4), np.uint8)
    rgba[..., 0], rgba[:, :15, 3], rgba[:, 15:, 3] = 200, 255, 51
    shown, _ = shaped(Frame.of(rgba, format="rgba"), background="white", format="rgb24")
    assert tuple(shown[3, 3]) == (200, 0, 0)
    assert tuple(shown[3, 25]) == (244, 204, 204)


@pytest.mark.parametrize(
    ("source", "wanted", "expected"),
    [
        ("yuv420p", ("yuv420p", "nv12", "rgb24"), "yuv420p"),
        ("nv12", ("yuv420p", "nv12", "rgb24"), "nv12"),
        ("yuv420p", ("rgb24", "yuv420p"), "rgb24"),
        ("rgb24", ("yuv420p", "nv12", "rgb24"), "rgb24"),
        ("rgb24", ("yuv420p", "nv12"), "yuv420p"),
        ("gray", ("rgb24",), "rgb24"),
        ("rgb24", ("bgr24", "gray"), "bgr24"),
    ],
)
def test_the_cheapest_format_is_chosen(source, wanted, expected):
    assert shaped(made_of(scene(), source), wanted=wanted)[1].format == expected


def test_a_picture_that_is_not_changed_stays_what_it_is():
    for format in ("rgb24", "gray", "yuv420p", "nv12"):
        frame = made_of(scene(), format)
        before = frame.numpy().copy()
        node = solo(Preprocess, context=SoloContext(wanted=(format,)))
        with frame, node.process(frame) as made:
            assert np.array_equal(made.numpy(), before)


def test_a_crop_beyond_the_picture_ends_the_run_or_drops_the_frame():
    message = "crop 100x100\\+100\\+0 reaches beyond the picture, which is of 150x120 pixels"
    node = solo(Preprocess, crop="100x100+100+0")
    small = Frame.of(np.zeros((120, 150, 3), np.uint8))
    with pytest.raises(NodeError, match=message):
        node.process(small)
    with node.process(Frame.of(np.zeros((120, 200, 3), np.uint8))) as made:
        assert made.width == 100
    with pytest.raises(FrameError, match=message):
        node.process(small)


def test_odd_pictures_for_somebody_who_takes_only_yuv():
    node = solo(Preprocess, context=SoloContext(wanted=("yuv420p",)))
    with pytest.raises(NodeError, match="pictures of 31x21 cannot be handed on as yuv420p"):
        node.process(Frame.of(np.zeros((21, 31, 3), np.uint8)))


def test_a_format_that_nobody_takes():
    with pytest.raises(ParameterError, match="format nv12 is not taken by the next nodes"):
        solo(Preprocess, context=SoloContext(wanted=("rgb24",)), format="nv12")


def test_a_rate_limit_counts_what_it_drops():
    node = solo(Preprocess, fps=10)
    passed = []
    for number in range(60):
        frame = Frame.of(
            np.zeros((16, 16, 3), np.uint8), pts=number, time_base=Fraction(1, 30), seq=number
        )
        made = node.process(frame)
        if made is not None:
            passed.append(made.seq)
    assert passed == list(range(0, 60, 3))
    assert node.context.dropped == {"rate": 40}


def test_the_trace_and_the_times_go_on():
    frame = made_of(scene(), "rgb24")
    frame.header.duration, frame.header.generation = 40, 3
    _, header = shaped(frame, size="64x64")
    assert (header.duration, header.generation) == (40, 3)
    assert header.capture_ns == frame.header.capture_ns
