"""The two extractors: in torch, to be captured, and by OpenCV; both draw the same."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

from nodes.condition import extract
from nodes.condition.filters import ramp
from nodes.condition.on_opencv import OpenCvExtractor
from nodes.condition.on_torch import TorchExtractor
from nodes.condition.settings import dark_on_white, setting

CHOICES = {
    "sketch": [setting("sketch")],
    "sketch-wide": [setting("sketch", blur=2.2, low=1, high=30)],
    "sketch-sharp": [setting("sketch", blur=0)],
    "canny": [setting("canny")],
    "canny-blurred": [setting("canny", low=30, high=90, blur=1.4)],
    "soft": [setting("soft")],
    "soft-blurred": [setting("soft", low=0, high=150, blur=0.8)],
    "luminance": [setting("luminance")],
    "levels": [setting("luminance", low=50, high=180, blur=3)],
    "two": [setting("canny", weight=0.7), setting("soft", weight=0.3)],
    "overlaid": [setting("sketch", weight=1.5), setting("soft"), setting("luminance", weight=0.25)],
    "faint": [setting("canny", weight=0.4)],
}


def in_torch(extractor, picture):
    planes = picture[None] if picture.ndim == 2 else picture.transpose(2, 0, 1)
    made = extractor(torch.from_numpy(np.ascontiguousarray(planes))[None])
    assert made.shape == (1, 3, *picture.shape[:2])
    assert torch.equal(made[:, 0], made[:, 1])
    assert torch.equal(made[:, 0], made[:, 2])
    return made[0, 0].numpy()


@pytest.mark.parametrize("invert", [False, True], ids=["as-is", "inverted"])
@pytest.mark.parametrize("name", CHOICES)
def test_both_draw_the_same(photographs, name, invert):
    settings = CHOICES[name]
    ours = TorchExtractor(settings, invert=invert)
    theirs = OpenCvExtractor(settings, invert=invert)
    # Where sums are rounded in another order, a level is the other neighbour.
    most = math.ceil(sum(one.weight for one in settings if one.kind in ("sketch", "soft")))
    for seen in (photographs["coffee"], photographs["camera"][..., 0].copy()):
        one, other = in_torch(ours, seen), theirs.picture(seen)
        assert other.shape == seen.shape[:2]
        assert one.std() > 0, "a picture of one level would tell nothing"
        apart = np.abs(one.astype(int) - other)
        assert apart.max() <= most
        assert np.count_nonzero(apart) <= 0.002 * apart.size


def test_a_sketch_is_dark_on_white_and_edges_are_white_on_black(astronaut):
    for name in ("sketch", "sketch-wide", "overlaid"):
        assert np.median(OpenCvExtractor([CHOICES[name][0]]).picture(astronaut)) == 255
    for name in ("canny", "soft", "two"):
        assert np.median(OpenCvExtractor(CHOICES[name]).picture(astronaut)) < 30
    assert dark_on_white([setting("canny")], invert=True)
    assert not dark_on_white([setting("sketch")], invert=True)


def test_a_drawn_line_gives_one_line_of_the_sketch():
    paper = np.full((64, 64), 230, np.uint8)
    cv2.line(paper, (10, 32), (54, 32), 40, 2)
    drawn = OpenCvExtractor([setting("sketch")]).picture(paper)
    column = drawn[:, 32] < 128
    assert np.count_nonzero(np.diff(column.astype(int)) == 1) == 1, "one line, not one a side"
    assert column[31:33].all()
    assert (drawn[:20] == 255).all()


def test_weights_add_up_and_stop_at_white():
    marks = [torch.full((1, 1, 2, 2), level) for level in (100.0, 200.0, 60.0)]
    black, white = torch.tensor(0.0), torch.tensor(1.0)
    mean = extract.combine(marks[:2], torch.tensor([0.5, 0.5]), black)
    assert mean.unique().tolist() == [150]
    assert extract.combine(marks, torch.ones(3), black).unique().tolist() == [255]
    dark = extract.combine(marks[2:], torch.tensor([0.5]), white)
    assert dark.unique().tolist() == [225]
    with pytest.raises(ValueError, match="3 pictures take as many weights"):
        extract.combine(marks, torch.ones(2), black)


def test_floating_point_pictures_come_back_as_such(astronaut):
    pixels = torch.from_numpy(astronaut).permute(2, 0, 1)[None]
    draw = TorchExtractor([setting("canny")])
    whole, part = draw(pixels), draw((pixels.float() / 255).to(torch.float32))
    assert whole.dtype == torch.uint8
    assert part.dtype == torch.float32
    assert torch.equal(part, whole.float() / 255)


def test_a_change_shows_in_the_next_picture_and_needs_the_same_kinds(astronaut):
    for make in (TorchExtractor, OpenCvExtractor):
        draw = make([setting("canny")])
        see = draw.picture
        before = see(astronaut)
        draw.change([setting("canny", low=20, high=60)], invert=True)
        after = see(astronaut)
        expected = cv2.Canny(cv2.cvtColor(astronaut, cv2.COLOR_RGB2GRAY), 20, 60)
        np.testing.assert_array_equal(after, 255 - expected)
        assert not np.array_equal(before, 255 - after)
        with pytest.raises(ValueError, match="the kinds stay canny"):
            draw.change([setting("soft")])


ALL = [setting("sketch"), setting("canny"), setting("soft", weight=0.5), setting("luminance")]


def test_nothing_is_read_back_on_the_way():
    # Fake tensors have no values: whatever asks for one from the host is an error.
    with FakeTensorMode():
        draw = TorchExtractor(ALL)
        made = draw(torch.zeros(2, 3, 64, 96, dtype=torch.uint8))
        assert made.shape == (2, 3, 64, 96)


def test_what_was_captured_once_follows_later_changes(astronaut, photographs):
    """A recorded list of operations is run again with other values in the same buffers."""
    pixels = torch.from_numpy(astronaut[:128, :128].copy()).permute(2, 0, 1)[None]
    other = torch.from_numpy(photographs["camera"][64:192, 64:192].copy()).permute(2, 0, 1)[None]
    draw = TorchExtractor(ALL)
    captured = make_fx(draw)(pixels)
    assert torch.equal(captured(pixels), draw(pixels))
    changed = [
        setting("sketch", low=1, high=4, blur=2),
        setting("canny", low=30, high=60, weight=0.3),
        setting("soft", high=200),
        setting("luminance", low=20, weight=0.1),
    ]
    before = captured(other)
    draw.change(changed, invert=True)
    assert torch.equal(captured(other), TorchExtractor(changed, invert=True)(other))
    assert not torch.equal(captured(other), before)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", CHOICES)
def test_a_captured_cuda_graph_draws_the_same(name):
    settings = CHOICES[name]
    # Drawn, as photographs take a package that few GPUs have: soft shapes, hard ones, and noise.
    dice = np.random.default_rng(0)
    picture = cv2.resize(dice.integers(0, 256, (12, 16, 3), np.uint8), (512, 384))
    cv2.circle(picture, (200, 150), 90, (240, 30, 60), 5)
    cv2.rectangle(picture, (300, 200), (470, 350), (20, 200, 90), -1)
    picture[:120, :160] = dice.integers(0, 256, (120, 160, 3), np.uint8)
    first = torch.from_numpy(picture).permute(2, 0, 1)[None].contiguous()
    second = first.flip(3).contiguous()
    draw = TorchExtractor(settings, device="cuda")
    buffer = first.cuda()
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        draw(buffer)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        made = draw(buffer)
    expected = TorchExtractor(settings)
    for pixels in (first, second):
        buffer.copy_(pixels)
        graph.replay()
        apart = (made.cpu().int() - expected(pixels).int()).abs()
        assert apart.max() <= 1
        assert torch.count_nonzero(apart) <= 0.002 * apart.numel()
    draw.change(settings, invert=True)
    expected.change(settings, invert=True)
    graph.replay()
    assert (made.cpu().int() - expected(second).int()).abs().max() <= 1


@pytest.mark.parametrize("level", range(0, 256, 51))
def test_a_picture_without_anything_in_it_gives_no_lines(level):
    blank = np.full((40, 56, 3), level, np.uint8)
    for kind, expected in (("sketch", 255), ("canny", 0), ("soft", 0), ("luminance", level)):
        draw = [setting(kind)]
        assert np.unique(OpenCvExtractor(draw).picture(blank)).tolist() == [expected]
        assert np.unique(in_torch(TorchExtractor(draw), blank)).tolist() == [expected]


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        ("pose", {}, "a kind is one of sketch, canny"),
        ("soft", {"low": 500}, "soft: low must be below high, not 500 to 400"),
        ("sketch", {"low": 5, "high": 5}, "low must be below high"),
        ("canny", {"high": 3000}, "canny: high is 0 to 2048, not 3000"),
        ("canny", {"blur": 4}, "canny: blur is 0 to 3, not 4"),
        ("canny", {"weight": -1}, "canny: weight is 0 to 2, not -1"),
        ("canny", {"low": float("nan")}, "canny: low is 0 to 2048, not nan"),
        ("depth", {"blur": 1}, "depth takes no blur"),
    ],
)
def test_settings_that_make_no_sense(kind, values, message):
    with pytest.raises(ValueError, match=message):
        setting(kind, **values)


def test_an_extractor_draws_something():
    for make in (TorchExtractor, OpenCvExtractor):
        with pytest.raises(ValueError, match="one kind at least"):
            make([])
        with pytest.raises(ValueError, match="depth needs a model"):
            make([setting("depth")])


@pytest.mark.parametrize(
    "picture",
    [np.zeros((8, 8, 4), np.uint8), np.zeros((8, 8, 3), np.float32), np.zeros(8, np.uint8)],
    ids=["rgba", "float", "flat"],
)
def test_what_is_no_picture_for_opencv_is_refused(picture):
    with pytest.raises(ValueError, match="a picture is uint8 of shape"):
        OpenCvExtractor([setting("canny")]).picture(picture)


def test_a_ramp_of_tensors_is_that_of_numbers():
    values = torch.linspace(-10, 300, 1001)
    low, high = torch.tensor(20.0), torch.tensor(200.0)
    exact = np.clip((values.double().numpy() - 20) * 255 / 180, 0, 255)
    assert np.abs(ramp(values, low, high).numpy() - exact).max() <= 0.5 + 1e-4
