"""The model's goals on one H200, in float16, with random weights of the exact architectures."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, Final

from streamer.bench.acceptance.goals import Conditions, Goal, Outcome


def _later(module: str, function: str, **options: Any) -> Callable[[Conditions], Outcome]:
    """A function of this package, which imports torch, and so only when it is called."""

    def measure(conditions: Conditions) -> Outcome:
        found = getattr(import_module(f"nodes.sdxs.bench.{module}"), function)
        outcome: Outcome = found(conditions, **options)
        return outcome

    return measure


def _speed(model: str, **options: Any) -> Callable[[Conditions], Outcome]:
    def measure(conditions: Conditions) -> Outcome:
        from nodes.sdxs.bench import rig, speed

        return speed.fastest(conditions, getattr(rig, model), **options)

    return measure


GRAPH_GOALS: Final = (
    Goal(
        name="graph-60",
        text="four processes, 512x512, H.264 file at 60 FPS: every frame delivered",
        seconds=100,
        measure=_later("graphs", "delivered", fps=60, share=1.0),
    ),
    Goal(
        name="graph-100",
        text="the same at 100 FPS: >= 99 % delivered, age p99 < 50 ms",
        seconds=100,
        measure=_later("graphs", "delivered", fps=100, share=0.99, age=50.0),
    ),
    Goal(
        name="graph-links",
        text="the same at 100 FPS: all links together < 0.5 ms a frame at p50",
        seconds=100,
        measure=_later("graphs", "links", fps=100),
    ),
    Goal(
        name="graph-bytes",
        text="the same at 100 FPS: bytes between host and GPU the least possible",
        seconds=100,
        measure=_later("graphs", "moved", fps=100),
    ),
    Goal(
        name="prompt",
        text="a prompt change in that graph: first new frame within 2 frames",
        seconds=100,
        measure=_later("prompts", "change"),
    ),
)
GOALS: Final = (
    Goal(
        name="control-512",
        text="SDXS-512 with ControlNet, batch 1: >= 400 FPS, p99 <= 1.3 p50",
        seconds=240,
        measure=_speed("WITH_CONTROL", at_least=400.0, steady=True),
    ),
    Goal(
        name="batch-8",
        text="SDXS-512 with ControlNet, batch 8: >= 800 frames/s",
        seconds=240,
        measure=_speed("WITH_CONTROL", at_least=800.0, count=8),
    ),
    Goal(
        name="plain-512",
        text="SDXS-512 without ControlNet, batch 1: >= 600 FPS",
        seconds=240,
        measure=_speed("WITHOUT_CONTROL", at_least=600.0),
    ),
    Goal(
        name="sdxs-1024",
        text="SDXS-1024, batch 1: >= 100 FPS",
        seconds=240,
        measure=_speed("LARGE", at_least=100.0),
    ),
    Goal(
        name="diffusers",
        text="SDXS-512 with ControlNet, PIL to PIL, against diffusers' own pipeline",
        seconds=75,
        measure=_later("ratios", "diffusers"),
    ),
    Goal(
        name="stream-diffusion",
        text="the same against StreamDiffusion's loop, SD-Turbo's shape and TAESD",
        seconds=75,
        measure=_later("ratios", "streamdiffusion"),
    ),
    Goal(
        name="eager",
        text="option: SDXS-512 with ControlNet, batch 1, neither captured nor compiled",
        seconds=45,
        measure=_later("options", "eager"),
        optional=True,
    ),
    Goal(
        name="contiguous",
        text="option: captured, without channels-last",
        seconds=45,
        measure=_later("options", "contiguous"),
        optional=True,
    ),
    Goal(
        name="compiled",
        text="option: captured and compiled",
        seconds=150,
        measure=_later("options", "compiled"),
        optional=True,
    ),
    Goal(
        name="fp8",
        text="option: captured and compiled, FP8 by torchao",
        seconds=150,
        measure=_later("options", "fp8"),
        optional=True,
    ),
    Goal(
        name="tensorrt",
        text="option: TensorRT by torch_tensorrt",
        seconds=150,
        measure=_later("options", "tensorrt"),
        optional=True,
    ),
)
