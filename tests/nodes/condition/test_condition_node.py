from __future__ import annotations

import subprocess
import sys

import cv2
import numpy as np
import pytest
from pydantic import ValidationError

import streamer
from nodes.colour import RGB, Colour
from nodes.condition import Condition, ConditionParams
from nodes.planes import av_frame, av_planes, reformat, slot_planes
from streamer import Frame
from streamer.testing import SoloContext, solo


@pytest.fixture(scope="module")
def picture(photographs):
    return photographs["coffee"][:198, :300].copy()


def drawn(frame, *, wanted=("rgb24",), **params):
    node = solo(Condition, context=SoloContext(wanted=wanted), **params)
    with frame, node.process(frame) as made:
        assert made.header.seq == frame.header.seq
        assert made.pts == frame.pts
        pixels = made.numpy().copy()
    node.close()
    return pixels


def canny(picture, low=100, high=200):
    return cv2.Canny(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), low, high)


def yuv(picture, format, colour):
    """A frame of a picture in YUV, by FFmpeg's conversion."""
    from av.video.reformatter import Interpolation, VideoReformatter

    height, width = picture.shape[:2]
    made = reformat(
        VideoReformatter(),
        av_frame(picture, "rgb24"),
        format,
        (width, height),
        source=RGB,
        target=colour,
        flags=Interpolation.BILINEAR,
    )
    array = np.zeros((height * 3 // 2, width), np.uint8)
    for source, target in zip(
        av_planes(made), slot_planes(array, format, width, height), strict=True
    ):
        target[:] = source
    frame = Frame.of(array, format=format)
    frame.header.colorspace, frame.header.full_range = colour
    return frame


def test_canny_is_that_of_opencv_in_three_equal_channels(picture):
    made = drawn(Frame.of(picture, pts=77), kind="canny", low=60, high=150)
    assert made.shape == picture.shape
    for channel in range(3):
        np.testing.assert_array_equal(made[..., channel], canny(picture, 60, 150))


def test_the_default_is_a_sketch_as_the_control_net_wants_it(picture):
    made = drawn(Frame.of(picture))
    assert np.median(made) == 255
    assert made.min() == 0
    inverted = drawn(Frame.of(picture), invert=True)
    np.testing.assert_array_equal(inverted, 255 - made)


def test_every_way_to_store_colours_gives_the_same_picture(picture):
    bgr = Frame.of(np.ascontiguousarray(picture[..., ::-1]), format="bgr24")
    np.testing.assert_array_equal(drawn(bgr, kind="canny")[..., 0], canny(picture))
    gray = Frame.of(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), format="gray")
    np.testing.assert_array_equal(drawn(gray, kind="canny")[..., 0], canny(picture))


@pytest.mark.parametrize("format", ["yuv420p", "nv12"])
@pytest.mark.parametrize("full", [False, True], ids=["limited", "full"])
def test_of_yuv_the_luminance_is_used_in_full_range(picture, format, full):
    frame = yuv(picture, format, Colour("bt601", full))
    made = drawn(frame, kind="luminance")[..., 0]
    expected = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    assert np.abs(made.astype(int) - expected).max() <= 2
    assert made.max() > 250, "the picture's white is white again"


def test_gray_is_handed_on_where_it_is_wanted(picture):
    made = drawn(Frame.of(picture), wanted=("gray", "rgb24"), kind="canny")
    np.testing.assert_array_equal(made, canny(picture))


def test_kinds_are_mixed_by_their_weights(picture):
    single = [drawn(Frame.of(picture), kind=kind)[..., 0] for kind in ("canny", "soft")]
    made = drawn(Frame.of(picture), kinds={"canny": 0.7, "soft": {"weight": 0.3}})[..., 0]
    expected = 0.7 * single[0] + 0.3 * single[1]
    assert np.abs(made - expected).max() <= 0.5 + 1e-3


def change(node, **params):
    """As the runtime does it: prepared beside the pictures, taken between two of them."""
    wanted = ConditionParams(**params)
    node.update(wanted, node.prepare(wanted))
    assert node.params == wanted


def shown(node, picture):
    with Frame.of(picture) as frame, node.process(frame) as made:
        return made.numpy()[..., 0].copy()


def test_values_and_kinds_change_between_two_pictures(picture):
    node = solo(Condition, kind="canny")
    np.testing.assert_array_equal(shown(node, picture), canny(picture))
    change(node, kind="canny", low=30, high=80, invert=True)
    np.testing.assert_array_equal(shown(node, picture), 255 - canny(picture, 30, 80))
    change(node, kinds={"canny": 0.5})
    mixed = shown(node, picture)
    np.testing.assert_array_equal(mixed, np.rint(canny(picture) * 0.5))
    change(node, kinds={"canny": 0.5, "luminance": {"weight": 0.5}})
    assert np.count_nonzero(shown(node, picture)) > 2 * np.count_nonzero(mixed)
    change(node)
    np.testing.assert_array_equal(shown(node, picture), drawn(Frame.of(picture))[..., 0])
    node.close()


def test_changes_that_overtake_each_other_are_taken_in_order(picture):
    node = solo(Condition, kind="canny")
    there, back = ConditionParams(kind="soft"), ConditionParams(kind="canny", low=20, high=60)
    asked = (there, back, ConditionParams(kind="canny", low=30, high=80))
    prepared = [node.prepare(params) for params in asked]
    # What takes time is done before it is taken, and not again for other thresholds.
    assert [ready is not None for ready in prepared] == [True, True, False]
    for params, ready in zip(asked, prepared, strict=True):
        node.update(params, ready)
    np.testing.assert_array_equal(shown(node, picture), canny(picture, 30, 80))
    node.close()


def test_a_change_that_fails_leaves_things_as_they_were(picture, tmp_path):
    for name in ("config.json", "preprocessor_config.json"):
        (tmp_path / name).write_text('{"model_type": "clip"}')
    (tmp_path / "model.safetensors").write_bytes(b"")
    node = solo(Condition, kind="canny", depth_model=str(tmp_path))
    with pytest.raises(streamer.ParameterError, match="a model of type 'clip'"):
        node.prepare(ConditionParams(kind="depth", depth_model=str(tmp_path)))
    np.testing.assert_array_equal(shown(node, picture), canny(picture))
    node.close()


def test_what_can_change_live_is_marked():
    fields = ConditionParams.model_json_schema()["properties"]
    live = {name for name, field in fields.items() if field.get("live")}
    assert live == {"kind", "kinds", "low", "high", "blur", "invert"}


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"kind": "pose"}, "'sketch', 'canny', 'soft', 'luminance' or 'depth'"),
        ({"kind": "canny", "low": 300}, "canny: low must be below high, not 300 to 200"),
        ({"low": -1}, "greater than or equal to 0"),
        ({"blur": 9}, "less than or equal to 3"),
        ({"kinds": {}}, "at least 1"),
        ({"kinds": {"canny": 3}}, "less than or equal to 2"),
        ({"kinds": {"canny": 0, "soft": {"weight": 0}}}, "one weight at least must be above 0"),
        ({"kinds": {"canny": 1}, "low": 5}, "kinds leaves no place for low"),
        ({"kinds": {"canny": 1}, "kind": "soft"}, "kinds leaves no place for kind"),
        ({"kinds": {"canny": {"thick": 1}}}, "Extra inputs"),
        ({"kind": "depth"}, "depth needs depth_model"),
        ({"kind": "depth", "depth_model": "/nowhere/at/all"}, "there is no folder /nowhere/at/all"),
        ({"depth_model": "/nowhere"}, "depth_model: there is no folder /nowhere"),
        ({"device": "tpu"}, "String should match"),
    ],
)
def test_parameters_that_make_no_sense(params, message):
    with pytest.raises(ValidationError, match=message):
        ConditionParams(**params)


def test_a_device_that_is_not_there_is_said_so():
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is one here")
    with pytest.raises(streamer.ParameterError, match="torch sees no GPU here"):
        solo(Condition, device="cuda:0")


def test_a_model_that_cannot_be_read_is_said_so(tmp_path):
    for name in ("config.json", "preprocessor_config.json"):
        (tmp_path / name).write_text('{"model_type": "clip"}')
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(streamer.ParameterError, match="a model of type 'clip'"):
        solo(Condition, kind="depth", depth_model=str(tmp_path))


def test_checking_a_graph_loads_nothing_heavy():
    code = (
        "import sys, nodes.condition\n"
        "heavy = {'torch', 'cv2', 'av', 'numpy', 'transformers'} & set(sys.modules)\n"
        "sys.exit(f'loaded {sorted(heavy)}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_on_the_cpu_no_torch_is_loaded(tmp_path):
    code = (
        "import sys, numpy\n"
        "from nodes.condition import Condition\n"
        "from streamer import Frame\n"
        "from streamer.testing import solo\n"
        "node = solo(Condition, kinds={'sketch': 1, 'canny': 0.5})\n"
        "with Frame.of(numpy.zeros((32, 32, 3), numpy.uint8)) as frame:\n"
        "    node.process(frame).release()\n"
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
