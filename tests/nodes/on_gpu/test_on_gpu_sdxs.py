"""The `sdxs` node where frames lie on a GPU paints what it paints in host memory."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from on_gpu_stage import OnGpu, frame_on, waves

from nodes.sdxs.node import Sdxs
from streamer import Frame
from streamer.gpu.device import Device
from streamer.testing import SoloContext, solo

TINY = {"model": "random:tiny", "control": "random", "prompt": "a castle", "threads": 1}
SIDE = 64


@pytest.fixture(autouse=True)
def as_exact_as_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU's convolutions of float32 leave out 13 of its bits, unless they are told not to."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def pictures(count: int) -> list[Any]:
    made = waves(SIDE + 8 * count, SIDE)
    return [np.ascontiguousarray(made[:, 8 * n : 8 * n + SIDE]) for n in range(count)]


def painted(node: Sdxs, pixels: Any, *, up: bool = True) -> Any:
    frame = Frame.of(pixels)
    context: Any = node.context
    if isinstance(context, OnGpu):
        if up:
            frame = frame_on(context.device, frame, filled=True)
        else:
            lease: Any = frame._lease
            lease.device = context.device
    with frame:
        out = node.process(frame)
    with out:
        assert out.memory == ("cuda" if isinstance(context, OnGpu) else "host")
        return out.numpy().copy()


def on(place: Device | None, **params: Any) -> Sdxs:
    context = SoloContext() if place is None else OnGpu(place)
    return solo(Sdxs, context=context, **{**TINY, "dtype": "float32", **params})


@pytest.mark.parametrize("up", [True, False], ids=["frame on the GPU", "frame on the host"])
@pytest.mark.parametrize("more", [{}, {"feedback": 0.3}, {"drift": 3}], ids=str)
def test_it_paints_the_same_there(device: Device, more: dict[str, Any], up: bool) -> None:
    here, there = on(None, **more), on(device, **more)
    for picture in pictures(4):
        expected, found = painted(here, picture), painted(there, picture, up=up)
        assert expected.std() > 5
        assert np.abs(found.astype(int) - expected).max() <= 2
    here.close()
    there.close()


class Gated(Sdxs):
    """Whose model waits for the test."""

    gate: threading.Event

    def _loaded(self, params: Any, stages: Any) -> Any:
        assert self.gate.wait(60)
        return super()._loaded(params, stages)


@pytest.mark.parametrize("up", [True, False], ids=["frame on the GPU", "frame on the host"])
def test_pictures_pass_there_while_the_model_loads(device: Device, up: bool) -> None:
    Gated.gate = threading.Event()
    params = {**TINY, "dtype": "float32", "loading": "pass"}
    node, (first, second) = solo(Gated, context=OnGpu(device), **params), pictures(2)
    context: Any = node.context
    for picture in (first, second):
        assert np.array_equal(painted(node, picture, up=up), picture)
    Gated.gate.set()
    end = time.monotonic() + 120
    while not context.calls:
        assert time.monotonic() < end
        time.sleep(0.01)
    expected, found = painted(on(None), second), painted(node, second, up=up)
    assert np.abs(found.astype(int) - expected).max() <= 2
    assert context.passes == 2
    node.close()


def test_a_setting_shows_in_the_next_picture(device: Device) -> None:
    node, (picture,) = on(device), pictures(1)
    before = painted(node, picture)
    params = node.Params(**{**node.params.model_dump(), "prompt": "a dog", "seed": 5})
    node.update(params, node.prepare(params))
    expected = painted(on(None, prompt="a dog", seed=5), picture)
    after = painted(node, picture)
    assert np.abs(after.astype(int) - expected).max() <= 2
    assert np.abs(after.astype(int) - before).max() > 8
    node.close()


def test_a_still_source_is_painted_once_and_shown_again(device: Device) -> None:
    node, (first, second) = on(device, similar=2.0), pictures(2)
    context: Any = node.context
    shown = [painted(node, picture) for picture in [first] * 5 + [second] * 5]
    # On a GPU each decision is taken by the difference of the picture before.
    assert 6 <= context.repeats <= 8
    assert np.array_equal(shown[3], shown[4])
    assert np.array_equal(shown[8], shown[9])
    assert not np.array_equal(shown[4], shown[9])
    node.close()


def test_the_last_good_picture_stands_in_for_a_spoiled_one(
    device: Device, caplog: pytest.LogCaptureFixture
) -> None:
    node, (first, second) = on(device), pictures(2)
    context: Any = node.context
    good = painted(node, first)
    engine: Any = node._steady.engine
    healthy = engine.embedding
    engine.embedding = replace(healthy, tokens=healthy.tokens * float("nan"))
    with caplog.at_level(logging.WARNING):
        assert np.array_equal(painted(node, second), good)
        engine.embedding = healthy
        fresh = painted(node, second)
    assert not np.array_equal(fresh, good)
    assert context.spoils == 1
    assert "gave numbers that are not finite; the last good picture is shown" in caplog.text
    node.close()


def test_the_bundled_model_paints_frames_of_a_gpu_too(device: Device) -> None:
    more = {"model": "bundled", "prompt": "ink", "control": None, "backend": "torch"}
    here, there = on(None, **more), on(device, **more)
    for picture in pictures(2):
        expected, found = painted(here, picture), painted(there, picture)
        assert np.abs(found.astype(int) - expected).max() <= 2
    here.close()
    there.close()


def test_a_model_on_the_cpu_paints_frames_of_a_gpu(device: Device) -> None:
    more = {"model": "bundled", "prompt": "ink", "control": None, "device": "cpu"}
    here, there = on(None, **more), on(device, **more)
    (picture,) = pictures(1)
    assert np.array_equal(painted(here, picture), painted(there, picture))
    here.close()
    there.close()
