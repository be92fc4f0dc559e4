from __future__ import annotations

import re

import numpy as np
import pytest
from numpy.typing import NDArray

from nodes.sdxs import OneStep
from nodes.sdxs.distill.pictures import held_out


@pytest.fixture(scope="module")
def in_torch() -> OneStep:
    return OneStep.load("bundled", backend="torch", dtype="float32")


@pytest.mark.parametrize(("width", "height"), [(256, 256), (136, 264)])
def test_openvino_equals_torch(in_torch: OneStep, width: int, height: int) -> None:
    pytest.importorskip("openvino")
    exact = OneStep.load("bundled", backend="openvino", dtype="float32")
    chosen = OneStep.load("bundled", backend="openvino")
    assert exact.dtype == "float32"
    picture: NDArray[np.uint8] = np.ascontiguousarray(held_out("coffee", size=320)[:height, :width])
    for prompt in exact.prompts:
        for engine in (exact, chosen, in_torch):
            engine.prompt = prompt
        reference = in_torch(picture).astype(int)
        assert np.abs(exact(picture) - reference).max() <= 2
        # Where the processor has bfloat16, that is what was chosen.
        difference = np.abs(chosen(picture) - reference)
        assert (difference <= 2).mean() > 0.99
        assert difference.mean() < 0.8


def test_torch_obeys_the_settings(in_torch: OneStep) -> None:
    picture = held_out("coffee", size=128)
    assert in_torch.backend == "torch"
    in_torch.prompt = "comic"
    comic = in_torch(picture).astype(int)
    in_torch.conditioning_scale = 2.0
    source = in_torch(picture)
    in_torch.conditioning_scale = 1.0
    assert np.abs(source - picture.astype(int)).mean() < np.abs(comic - picture).mean() / 2


def test_a_gpu_that_is_not_there_is_said_in_a_sentence() -> None:
    wanted = r"^device cuda:63 cannot be used: torch sees (no NVIDIA GPU|\d+ GPUs?) here$"
    for model in ("bundled", "random:tiny"):
        with pytest.raises(ValueError, match=wanted):
            OneStep.load(model, device="cuda:63")
    with pytest.raises(ValueError, match=r"^unknown device 'toaster', as in cpu or cuda:0$"):
        OneStep.load("bundled", device="toaster")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"backend": "onnx"}, "unknown backend 'onnx'; known are auto, openvino, torch"),
        ({"dtype": "int8"}, "unknown dtype 'int8'; known are auto, float32, bfloat16, float16"),
        ({"threads": 0}, "threads must be at least 1, not 0"),
        (
            {"backend": "openvino", "device": "cuda"},
            "the openvino backend runs on the cpu, not on 'cuda'",
        ),
    ],
)
def test_arguments_are_checked(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        OneStep.load("bundled", **arguments)  # type: ignore[arg-type]
