"""Goals of the links: one hop, and many frames."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from streamer.bench.acceptance.goals import Conditions, Goal, Outcome

if TYPE_CHECKING:
    from streamer.bench.gpu_link import GpuHop

_HOP_LIMIT: Final = 150.0
"""microseconds"""
_GROWTH: Final = 16 << 20
"""bytes that may come and go without being a leak"""


def _hop(conditions: Conditions) -> Outcome:
    from streamer.bench.gpu_link import measure

    frames, pace = (200, 100.0) if conditions.fake else (2000, 200.0)
    found = measure(frames=frames, pace=pace)
    text = f"p50 {found.p50:.0f} µs, p99 {found.p99:.0f} µs"
    return Outcome(text, found.p50 < _HOP_LIMIT, found.to_dict())


def _flat(conditions: Conditions) -> Outcome:
    from streamer.bench.gpu_link import measure

    found = measure(width=512, height=512, frames=400 if conditions.fake else 30_000)
    text = (
        f"{found.frames} frames: GPU {found.grown_device / 2**20:+.1f} MiB, "
        f"host {found.grown_host / 2**20:+.1f} MiB, copied {found.copied} B"
    )
    return Outcome(text, _is_flat(found), found.to_dict())


def _is_flat(found: GpuHop) -> bool:
    return max(found.grown_device, found.grown_host) < _GROWTH and not found.copied


GOALS: Final = (
    Goal(
        name="hop",
        text="one hop of 1920x1080 rgb24 between two processes: p50 < 150 µs",
        seconds=50,
        measure=_hop,
    ),
    Goal(
        name="flat",
        text="30,000 frames: GPU and host memory flat, 0 copies by links",
        seconds=60,
        measure=_flat,
    ),
)
