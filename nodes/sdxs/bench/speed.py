"""How fast whole pictures are, from uint8 to uint8, both in the GPU's memory."""

from __future__ import annotations

from functools import partial
from typing import Any, Final

from nodes.sdxs.bench import timing
from nodes.sdxs.bench.rig import Compiler, Model, Rig, loaded, recorder
from nodes.sdxs.checkpoint import flops
from nodes.sdxs.checkpoint.compiled import compiled
from nodes.sdxs.checkpoint.engine import CheckpointOneStep
from streamer.bench.acceptance.goals import Conditions, Outcome

TFLOPS: Final = 790e12
"""floating-point operations a second of an H200 in float16 as large multiplications reach them;
no picture can be faster than its operations at this rate"""
STEADY: Final = 1.3
"""p99 over p50 at most"""


def fastest(conditions: Conditions, model: Model, *, at_least: float, **options: Any) -> Outcome:
    """`speed` captured; where that misses the goal, compiled as well, as `compile: on` does.

    Args:
        conditions: under which.
        model: which.
        at_least: pictures a second that reach the goal.
        options: of `speed`.
    """
    plain = speed(conditions, model, at_least=at_least, **options)
    if plain.reached:
        return plain
    compiler = compiler_for(conditions)
    made = speed(conditions, model, at_least=at_least, compiler=compiler, **options)
    figures = {**made.figures, "captured_only": dict(plain.figures)}
    text = f"captured and compiled: {made.text}; captured alone: {plain.text}"
    return Outcome(text, made.reached, figures)


def compiler_for(conditions: Conditions) -> Compiler:
    """torch.compile as the node has it; on a CPU without its kernels, which take minutes there."""
    return partial(compiled, backend="eager" if conditions.fake else "inductor")


def speed(
    conditions: Conditions,
    model: Model,
    *,
    at_least: float | None,
    count: int = 1,
    steady: bool = False,
    capture: bool = True,
    compiler: Compiler | None = None,
    engine: CheckpointOneStep | None = None,
) -> Outcome:
    """Pictures a second, each pass waited for before the next.

    Args:
        conditions: under which.
        model: which.
        at_least: pictures a second that reach the goal; None for none.
        count: pictures in a pass.
        steady: whether p99 must be within `STEADY` of p50.
        capture: whether a pass is recorded and replayed.
        compiler: makes a compiled network of the model's; None to compile nothing.
        engine: the model, loaded in some other way.
    """
    model = model.under(conditions)
    engine = engine or loaded(model, conditions)
    frames, warm_ups = (6, 2) if conditions.fake else (timing.FRAMES, timing.WARM_UPS)
    if not steady and not conditions.fake:
        frames //= 2  # which is enough for a rate
    with Rig(
        engine,
        side=model.side,
        recorder=recorder(conditions) if capture else None,
        compiler=compiler,
        count=count,
    ) as rig:
        times = timing.one_by_one(rig, rig.device, frames=frames, warm_ups=warm_ups)
        packed = timing.back_to_back(rig, rig.device, frames=frames) * count
    fps = times.fps * count
    work = sum(flops.count(engine.network, width=model.side, height=model.side).values())
    floor_ms = count * work / TFLOPS * 1e3
    figures: dict[str, Any] = {
        **times.figures(),
        "pictures_a_pass": count,
        "fps": round(fps, 2),
        "fps_back_to_back": round(packed, 2),
        "tflop_a_picture": round(work / 1e12, 4),
        "floor_ms": round(floor_ms, 4),
        "model": model.name,
        "control": model.control,
        "side": model.side,
        "dtype": engine.dtype,
    }
    ratio = times.percentile(99) / times.p50
    text = (
        f"{fps:.0f} FPS ({packed:.0f} back to back), p50 {times.p50:.2f} "
        f"p95 {times.percentile(95):.2f} p99 {times.percentile(99):.2f} ms"
    )
    if not conditions.fake:
        text += f", {times.p50 / floor_ms:.1f} x the floor of {floor_ms:.2f} ms"
    if at_least is None:
        return Outcome(text, None, figures)
    return Outcome(text, fps >= at_least and (not steady or ratio <= STEADY), figures)
