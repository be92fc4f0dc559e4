"""The goals on one H200, fp16, random weights of the exact architectures; and verdicts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from streamer.bench.gpu_link import GpuHop, measure

NOT_BUILT: Final = "not built"
_HOP_LIMIT: Final = 150.0
_GROWTH: Final = 16 << 20
"""bytes that may come and go without being a leak"""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    Attributes:
        goal: what must be reached.
        measured: what was; or why nothing was.
        verdict: `reached`, `missed`, `not built`, `failed`, or `simulated`: a figure of no GPU.
    """

    goal: str
    measured: str
    verdict: str


@dataclass(frozen=True, slots=True)
class Goal:
    """What must be reached, and what measures it; None where the code does not exist yet."""

    text: str
    needs: str
    measure: Callable[[bool], tuple[str, bool]] | None = None


def _hop(fake: bool) -> tuple[str, bool]:
    found = measure(frames=300 if fake else 3000, pace=60.0 if fake else 100.0)
    return f"p50 {found.p50:.0f} µs, p99 {found.p99:.0f} µs", found.p50 < _HOP_LIMIT


def _flat(fake: bool) -> tuple[str, bool]:
    found = measure(width=512, height=512, frames=600 if fake else 30_000)
    text = (
        f"{found.frames} frames: GPU {found.grown_device / 2**20:+.1f} MiB, "
        f"host {found.grown_host / 2**20:+.1f} MiB, copied {found.copied} B"
    )
    return text, _is_flat(found)


def _is_flat(found: GpuHop) -> bool:
    return max(found.grown_device, found.grown_host) < _GROWTH and not found.copied


_GRAPH: Final = "one captured graph a frame"
_CODECS: Final = "decoding to and encoding from the GPU"
GOALS: Final = (
    Goal("one hop of 1920x1080 rgb24 between two processes: p50 < 150 µs", "", _hop),
    Goal("30,000 frames: GPU and host memory flat, 0 copies by links", "", _flat),
    Goal("SDXS-512 with ControlNet, batch 1: >= 400 FPS, p99 <= 1.3 p50", _GRAPH),
    Goal("SDXS-512 without ControlNet, batch 1: >= 600 FPS", _GRAPH),
    Goal("SDXS-512 with ControlNet, batch 8: >= 800 frames/s", _GRAPH),
    Goal("SDXS-1024: >= 100 FPS", _GRAPH),
    Goal("ratio to diffusers' own pipeline, same run", _GRAPH),
    Goal("ratio to StreamDiffusion's loop with SD-Turbo's shape and TAESD, same run", _GRAPH),
    Goal("four processes, 512x512, H.264 file at 60 FPS: every frame delivered", _CODECS),
    Goal("the same at 100 FPS: >= 99 % delivered, age p99 < 50 ms", _CODECS),
    Goal("the same: all links together < 0.5 ms a frame at p50", _CODECS),
    Goal("the same: bytes between host and GPU equal to the least possible", _CODECS),
    Goal("a prompt change: first new frame within 2 frames", _GRAPH),
)


def judge(goal: Goal, *, fake: bool) -> Row:
    """Measures what can be, and says of a goal whether it is reached."""
    if goal.measure is None:
        return Row(goal.text, f"needs {goal.needs}", NOT_BUILT)
    try:
        text, reached = goal.measure(fake)
    except Exception as error:  # one goal that cannot be measured does not hide the others
        return Row(goal.text, f"{type(error).__name__}: {error}", "failed")
    if fake:
        return Row(goal.text, f"{text} (simulated GPU, no measure)", "simulated")
    return Row(goal.text, text, "reached" if reached else "missed")
