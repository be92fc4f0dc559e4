"""The engine against other loops over pictures, in turns in the same run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from PIL import Image

from nodes.sdxs.bench import stream_diffusion, timing
from nodes.sdxs.bench.rig import PROMPT, SHOWN, WITH_CONTROL, Model, Rig, loaded
from nodes.sdxs.bench.rig import recorder as recorder_under
from nodes.sdxs.checkpoint import reference
from nodes.sdxs.checkpoint.engine import CheckpointOneStep
from nodes.sdxs.names import ModelName
from streamer.bench.acceptance.goals import Conditions, Outcome

_FRAMES: Final = 100
_FEW: Final = 3

Paint = Callable[[Image.Image], Image.Image]


def diffusers(conditions: Conditions) -> Outcome:
    """Against diffusers' own pipeline over the same weights, with a ControlNet."""
    model = WITH_CONTROL.under(conditions)
    engine = loaded(model, conditions)
    pipe = reference.pipeline(
        ModelName.parse(model.name),
        control=["random"],
        device=engine.network.device,
        dtype=engine.network.dtype,
    )
    embedding = engine.embedding.to(engine.network.device, engine.network.dtype)
    noise = engine.noise(model.side, model.side).to(engine.network.device, engine.network.dtype)

    def run(picture: Image.Image, **told: Any) -> Image.Image:
        painted = pipe(
            **told,
            image=picture,
            controlnet_conditioning_scale=engine.conditioning_scale,
            num_inference_steps=1,
            guidance_scale=0.0,
            width=model.side,
            height=model.side,
            latents=noise,
            output_type="pil",
        )
        made: Image.Image = painted.images[0]
        return made

    return _compared(
        conditions,
        model,
        engine,
        {
            "diffusers, prompt given": lambda picture: run(picture, prompt=PROMPT),
            "diffusers, prompt embedded": lambda picture: run(
                picture, prompt_embeds=embedding.tokens
            ),
        },
    )


def streamdiffusion(conditions: Conditions) -> Outcome:
    """Against a replica of StreamDiffusion's loop, which sees the picture as a ControlNet does."""
    model = WITH_CONTROL.under(conditions)
    engine = loaded(model, conditions)
    loop = stream_diffusion.StreamDiffusionLoop(
        stream_diffusion.TINY if conditions.fake else stream_diffusion.SD_TURBO,
        side=model.side,
        device=engine.network.device,
        dtype=engine.network.dtype,
    )
    return _compared(conditions, model, engine, {"StreamDiffusion's loop": loop})


def _compared(
    conditions: Conditions, model: Model, engine: CheckpointOneStep, others: dict[str, Paint]
) -> Outcome:
    """All of them from PIL pictures to PIL pictures, the event pair round everything."""
    frames, warm_ups = (_FEW, 1) if conditions.fake else (_FRAMES, timing.WARM_UPS)
    dice = np.random.default_rng(0)
    pictures = [
        Image.fromarray(dice.integers(0, 256, (model.side, model.side, 3), np.uint8))
        for _ in range(SHOWN)
    ]
    shown = iter(range(1 << 62))

    def work(paint: Paint) -> Callable[[], Image.Image]:
        return lambda: paint(pictures[next(shown) % SHOWN])

    with Rig(engine, side=model.side, recorder=recorder_under(conditions)) as rig:
        works = {"ours": work(rig.paint), **{name: work(one) for name, one in others.items()}}
        times = timing.in_turns(works, rig.device, frames=frames, warm_ups=warm_ups)
    ours = times.pop("ours")
    text = f"{ours.p50:.2f} ms a picture"
    for name, other in times.items():
        text += f"; {name}: {other.p50:.2f} ms, {other.p50 / ours.p50:.1f} x"
    figures: dict[str, Any] = {"ours": ours.figures(), "model": model.name}
    for name, other in times.items():
        figures[name] = {**other.figures(), "ratio": round(other.p50 / ours.p50, 3)}
    return Outcome(text, None, figures)
