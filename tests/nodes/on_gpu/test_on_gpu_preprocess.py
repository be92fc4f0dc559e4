"""Preprocess on a GPU makes what it makes on the CPU, within a few levels of gray."""

from __future__ import annotations

import numpy as np
import pytest
from on_gpu_stage import OnGpu, frame_on, made_of, waves

from nodes.colour import Colour
from nodes.preprocess import Preprocess
from streamer import FrameError
from streamer.gpu.device import Copy, Device
from streamer.testing import SoloContext, solo

INPUTS = ("rgb24", "bgr24", "gray", "rgba", "yuv420p", "nv12")
OUTPUTS = ("rgb24", "bgr24", "gray", "yuv420p", "nv12")
COLOUR = Colour("bt709", False)
LEVELS = 4
"""of gray that a sample may differ by: swscale's tables round several times, kernels once"""


def both(device: Device, rgb, source, wanted, *, up: bool, **params):
    """The frame as made on the CPU and on the GPU, each as (header, pixels)."""
    made = []
    for context in (SoloContext(wanted=(wanted,)), OnGpu(device, wanted=(wanted,))):
        node = solo(Preprocess, context=context, **params)
        frame = made_of(rgb, source, COLOUR)
        if isinstance(context, OnGpu):
            frame = frame_on(device, frame, filled=True) if up else with_gpu(device, frame)
        with frame:
            out = node.process(frame)
        with out:
            assert out.memory == ("cuda" if isinstance(context, OnGpu) else "host")
            made.append((out.header, out.numpy().copy()))
        node.close()
    return made


def with_gpu(device: Device, frame):
    """A frame in host memory, as a node with a GPU receives it."""
    frame._lease.device = device
    return frame


def assert_alike(made, levels=LEVELS):
    (on_cpu, expected), (on_gpu, pixels) = made
    for name in ("width", "height", "format", "colorspace", "full_range", "pts", "seq"):
        assert getattr(on_gpu, name) == getattr(on_cpu, name), name
    assert pixels.shape == expected.shape
    assert np.abs(pixels.astype(int) - expected).max() <= levels


@pytest.mark.parametrize("wanted", OUTPUTS)
@pytest.mark.parametrize("source", INPUTS)
def test_every_format_from_every_other(device, source, wanted):
    given = {"size": "64x64", "mirror": "horizontal", "background": "#20a060"}
    assert_alike(both(device, waves(192, 108), source, wanted, up=True, **given))


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"size": "100x40", "fit": "contain", "background": "red"},
        {"size": "300x200", "fit": "stretch"},
        {"size": "60x200", "fit": "stretch", "mirror": "both"},
        {"crop": "80x60+12+8"},
        {"crop": "81x61+13+7", "size": "64x64"},
        {"crop": "81x61+13+7", "mirror": "vertical", "format": "rgb24"},
    ],
    ids=str,
)
@pytest.mark.parametrize("formats", [("yuv420p", "rgb24"), ("rgb24", "rgb24"), ("rgb24", "nv12")])
def test_every_fit_crop_and_mirror(device, formats, params):
    source, wanted = formats
    if wanted == "nv12":
        params = {"size": "64x64"} | params | {"format": "auto"}
    assert_alike(both(device, waves(192, 108), source, wanted, up=True, **params))


def test_a_picture_of_the_host_comes_up_once_as_it_is(device):
    before = device.copied[Copy.TO_DEVICE]
    made = both(device, waves(192, 108), "yuv420p", "rgb24", up=False, size="64x64")
    assert_alike(made)
    assert device.copied[Copy.TO_DEVICE] - before == 192 * 108 * 3 // 2


def test_memory_for_in_between_is_kept_from_picture_to_picture(device):
    node = solo(Preprocess, context=OnGpu(device, wanted=("nv12",)), size="64x64")
    rgb, taken = waves(192, 108), []
    for _ in range(4):
        with frame_on(device, made_of(rgb, "rgb24", COLOUR), filled=True) as frame:
            calls = device.calls["malloc"]
            node.process(frame).release()
            taken.append(device.calls["malloc"] - calls)
    assert taken[1:] == [1, 1, 1]  # the slot
    node.close()


def test_a_crop_beyond_a_picture_that_shrank_is_told_as_on_the_cpu(device):
    node = solo(Preprocess, context=OnGpu(device), crop="100x100+0+0")
    with frame_on(device, made_of(waves(120, 120), "rgb24", COLOUR), filled=True) as frame:
        node.process(frame).release()
    with (
        frame_on(device, made_of(waves(80, 80), "rgb24", COLOUR), filled=True) as frame,
        pytest.raises(FrameError, match="beyond the picture"),
    ):
        node.process(frame)
    node.close()
