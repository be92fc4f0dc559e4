"""The condition node with a GPU: the same drawings, lying there."""

from __future__ import annotations

import numpy as np
import pytest
from on_gpu_stage import OnGpu, frame_on, made_of, waves

from nodes.colour import Colour
from nodes.condition import Condition
from streamer.testing import SoloContext, solo

INPUTS = ("yuv420p", "nv12", "rgb24", "bgr24", "gray")
COLOUR = Colour("bt709", False)


def drawn(context, frame, **params):
    node = solo(Condition, context=context, **params)
    with frame, node.process(frame) as made:
        pixels, memory = made.numpy().copy(), made.memory
    node.close()
    return pixels, memory


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("format", INPUTS)
def test_tensors_show_what_arrays_do(format, full):
    import torch

    from nodes.condition.on_gpu import seen_of

    frame = made_of(waves(64, 48), format, Colour("bt601", full))
    if format in ("yuv420p", "nv12"):
        frame.numpy()[:4] = np.arange(256, dtype=np.uint8).reshape(4, 64)
    node = solo(Condition, context=SoloContext(), kind="sketch")
    expected = node._seen(frame)
    pixels = torch.from_numpy(frame.numpy().copy())
    seen = seen_of(pixels, format, full=frame.header.full_range).numpy()
    assert seen.dtype == np.uint8
    assert (seen == expected).all()
    node.close()


def test_a_drawing_fills_slots_of_one_channel_and_of_three():
    import torch

    from nodes.condition.on_gpu import show

    drawing = torch.arange(48, dtype=torch.uint8).reshape(6, 8)
    gray, rgb = torch.zeros(6, 8, dtype=torch.uint8), torch.zeros(6, 8, 3, dtype=torch.uint8)
    show(drawing, gray)
    show(drawing, rgb)
    assert (gray == drawing).all()
    assert all((rgb[..., channel] == drawing).all() for channel in range(3))


def test_what_torch_draws_on_its_device_is_what_it_draws_for_the_host():
    import torch

    from nodes.condition.on_torch import TorchExtractor
    from nodes.condition.params import ConditionParams

    extractor = TorchExtractor(ConditionParams(kind="canny").settings())
    picture = waves(64, 48)
    for pixels in (picture, np.ascontiguousarray(picture[..., 0])):
        there = extractor.drawn(torch.from_numpy(pixels.copy()))
        assert (there.numpy() == extractor.picture(pixels)).all()


@pytest.mark.parametrize("wanted", ["rgb24", "gray"])
@pytest.mark.parametrize("format", ["nv12", "rgb24"])
def test_what_the_cpu_is_told_to_draw_lies_on_the_gpu_all_the_same(device, format, wanted):
    frame = made_of(waves(96, 64), format, COLOUR)
    given = {"kind": "canny", "device": "cpu"}
    expected, _ = drawn(SoloContext(wanted=(wanted,)), frame.hold(), **given)
    there = frame_on(device, frame, filled=True)
    pixels, memory = drawn(OnGpu(device, wanted=(wanted,)), there, **given)
    assert memory == "cuda"
    assert (pixels == expected).all()


@pytest.mark.gpu
@pytest.mark.parametrize("up", [True, False])
@pytest.mark.parametrize("format", INPUTS)
@pytest.mark.parametrize("kind", ["sketch", "canny", "soft", "luminance"])
def test_the_gpu_draws_what_the_cpu_does(real_gpu, kind, format, up):
    frame = made_of(waves(96, 64), format, COLOUR)
    expected, _ = drawn(SoloContext(), frame.hold(), kind=kind)
    there = frame_on(real_gpu, frame, filled=True) if up else frame
    there._lease.device = real_gpu
    pixels, memory = drawn(OnGpu(real_gpu), there, kind=kind)
    assert memory == "cuda"
    assert (np.abs(pixels.astype(int) - expected) > 1).mean() < 0.01
