"""Times of pictures: by CUDA events on a GPU, by the clock on a CPU."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch

WARM_UPS: Final = 20
FRAMES: Final = 500
BLOCK: Final = 10
"""pictures in a row of each of several that take turns, so that other load falls on all of them"""


@dataclass(frozen=True, slots=True)
class Times:
    """Milliseconds of each piece of work, waited for before the next began.

    Attributes:
        ms: of each; on a GPU between an event before its first call and one after its last, so
            that what the host takes to give it work is in them.
        seconds: of all together by the clock, waits included.
    """

    ms: Sequence[float]
    seconds: float

    @property
    def fps(self) -> float:
        """Pieces of work a second by the clock."""
        return len(self.ms) / self.seconds

    @property
    def p50(self) -> float:
        """Median, ms."""
        return statistics.median(self.ms)

    def percentile(self, share: int) -> float:
        """The least value that so many hundredths do not exceed, ms."""
        ordered = sorted(self.ms)
        return ordered[max(0, -(-len(ordered) * share // 100) - 1)]

    def figures(self) -> dict[str, float]:
        """As JSON types."""
        return {
            "frames": len(self.ms),
            "fps": round(self.fps, 2),
            "p50_ms": round(self.p50, 4),
            "p95_ms": round(self.percentile(95), 4),
            "p99_ms": round(self.percentile(99), 4),
            "mean_ms": round(statistics.fmean(self.ms), 4),
        }


def one_by_one(
    work: Callable[[], Any],
    device: torch.device,
    *,
    frames: int = FRAMES,
    warm_ups: int = WARM_UPS,
) -> Times:
    """Times work, each piece waited for, as a live stream waits for each picture.

    Args:
        work: gives work to the device.
        device: it.
        frames: timed.
        warm_ups: before those.
    """
    return in_turns({"": work}, device, frames=frames, warm_ups=warm_ups)[""]


def in_turns(
    works: Mapping[str, Callable[[], Any]],
    device: torch.device,
    *,
    frames: int = FRAMES,
    warm_ups: int = WARM_UPS,
) -> dict[str, Times]:
    """Times several kinds of work in blocks, one after another; see `one_by_one`."""
    for work in works.values():
        for _ in range(warm_ups):
            work()
        settle(device)
    ms: dict[str, list[float]] = {name: [] for name in works}
    seconds = dict.fromkeys(works, 0.0)
    timed = _timed_by_events if device.type == "cuda" else _timed_by_clock
    while any(len(found) < frames for found in ms.values()):
        for name, work in works.items():
            began = time.perf_counter()
            for _ in range(min(BLOCK, frames - len(ms[name]))):
                ms[name].append(timed(work, device))
            seconds[name] += time.perf_counter() - began
    return {name: Times(ms[name], seconds[name]) for name in works}


def back_to_back(work: Callable[[], Any], device: torch.device, *, frames: int = FRAMES) -> float:
    """Pieces of work a second when all are given to the device at once and the last is waited for.

    Args:
        work: as in `one_by_one`.
        device: it.
        frames: timed.
    """
    settle(device)
    began = time.perf_counter()
    for _ in range(frames):
        work()
    settle(device)
    return frames / (time.perf_counter() - began)


def settle(device: torch.device) -> None:
    """Waits for a device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _timed_by_events(work: Callable[[], Any], device: torch.device) -> float:
    cuda: Any = torch.cuda
    before, after = cuda.Event(enable_timing=True), cuda.Event(enable_timing=True)
    stream = torch.cuda.current_stream(device)
    before.record(stream)
    work()
    after.record(stream)
    after.synchronize()
    return float(before.elapsed_time(after))


def _timed_by_clock(work: Callable[[], Any], device: torch.device) -> float:
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) * 1e3
