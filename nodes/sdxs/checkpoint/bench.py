"""`streamer bench model`: frames a second of the engine, against diffusers' pipeline in one run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nodes.sdxs import OneStep
from nodes.sdxs.checkpoint import flops, parts, reference
from nodes.sdxs.checkpoint.engine import CheckpointOneStep
from nodes.sdxs.names import ModelName

PROMPT = "a castle on a hill, oil painting"
BLOCK = 3
"""Pictures in a row; engine and reference take turns, so that other load falls on both."""

Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class Speed:
    """Times of whole pictures, from uint8 to uint8.

    Attributes:
        ms: Median milliseconds of a picture.
        fps: Pictures a second at that.
        frames: How many were timed.
    """

    ms: float
    fps: float
    frames: int


@dataclass(frozen=True)
class Result:
    """What was measured.

    Attributes:
        model: Its name.
        control: ControlNets.
        size: Width and height in pixels.
        device: Where.
        dtype: Arithmetic.
        threads: Of the CPU.
        load_s: Seconds to load.
        parameters: By part.
        gflop: By part, of one picture; counted, not measured.
        engine: The engine.
        parts_ms: Median milliseconds by part of one picture; `text` is of one new prompt.
        pipeline: diffusers' pipeline called with the prompt, or None.
        pipeline_embedded: The same called with the prompt's embedding, or None.
        largest_difference: Grey levels between the two pictures of one seed, or None.
    """

    model: str
    control: list[str]
    size: tuple[int, int]
    device: str
    dtype: str
    threads: int
    load_s: float
    parameters: dict[str, int]
    gflop: dict[str, float]
    engine: Speed
    parts_ms: dict[str, float]
    pipeline: Speed | None
    pipeline_embedded: Speed | None
    largest_difference: int | None

    @property
    def ratio(self) -> float | None:
        """How many times faster the engine is than the pipeline called with the prompt."""
        return None if self.pipeline is None else self.pipeline.ms / self.engine.ms

    @property
    def ratio_embedded(self) -> float | None:
        """How many times faster it is than the pipeline that need not encode the prompt."""
        return (
            None if self.pipeline_embedded is None else self.pipeline_embedded.ms / self.engine.ms
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON types."""
        return {**asdict(self), "ratio": self.ratio, "ratio_embedded": self.ratio_embedded}


def measure(
    model: str,
    *,
    control: Sequence[str] = (),
    against: bool = False,
    size: tuple[int, int] | None = None,
    vae: str = "tiny",
    device: str = "cpu",
    dtype: str = "auto",
    threads: int | None = None,
    seconds: float = 10.0,
    progress: Callable[[str], None] = lambda text: None,
) -> Result:
    """Measures a checkpoint.

    Args:
        model: As `OneStep.load` takes it, but no small model.
        control: ControlNets.
        against: Whether to measure diffusers' pipeline beside it.
        size: Width and height in pixels; the native one by default.
        vae: Which decoder.
        device: Where.
        dtype: Arithmetic.
        threads: Of the CPU.
        seconds: How long about, loading apart; at least one block of pictures is timed.
        progress: Told what is being done.

    Raises:
        ValueError: The model is a small one, or as in `OneStep.load`.
        FileNotFoundError: As in `OneStep.load`.
    """
    if ModelName.parse(model).is_bundle:
        raise ValueError(f"model {model!r} is no checkpoint; name one, as in random:tiny")
    progress(f"loading {model}")
    started = time.perf_counter()
    engine = OneStep.load(
        model, control=list(control), vae=vae, device=device, dtype=dtype, threads=threads
    )
    assert isinstance(engine, CheckpointOneStep)
    load_s = time.perf_counter() - started
    width, height = size or engine.native_size
    picture = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    text_ms = _text(engine)
    engine.prompt = PROMPT
    runs: dict[str, Callable[[], Bytes]] = {"engine": lambda: engine(picture)}
    if against:
        progress("loading diffusers' pipeline")
        runs |= _pipeline_runs(engine, model, control, vae, picture)
    progress(f"painting {width}x{height}")
    times, last = _in_turns(runs, seconds)
    speeds = {name: _speed(found) for name, found in times.items()}
    return Result(
        model=model,
        control=list(control),
        size=(width, height),
        device=str(engine.network.device),
        dtype=engine.dtype,
        threads=torch.get_num_threads(),
        load_s=round(load_s, 2),
        parameters=_parameters(engine),
        gflop={
            name: number / 1e9
            for name, number in flops.count(engine.network, width=width, height=height).items()
        },
        engine=speeds["engine"],
        parts_ms={"text": text_ms, **_parts(engine, picture, times["engine"])},
        pipeline=speeds.get("pipeline"),
        pipeline_embedded=speeds.get("embedded"),
        largest_difference=(
            int(np.abs(last["engine"].astype(int) - last["pipeline"]).max()) if against else None
        ),
    )


def _pipeline_runs(
    engine: CheckpointOneStep, model: str, control: Sequence[str], vae: str, picture: Bytes
) -> dict[str, Callable[[], Bytes]]:
    from PIL import Image

    net = engine.network
    pipe = reference.pipeline(
        ModelName.parse(model), control=control, vae=vae, device=net.device, dtype=net.dtype
    )
    height, width = picture.shape[:2]
    noise = engine.noise(width, height).to(net.dtype)
    embedding = engine.embedding.to(net.device, net.dtype)
    embedded: dict[str, Any] = {"prompt_embeds": embedding.tokens}
    if embedding.pooled is not None:
        embedded["pooled_prompt_embeds"] = embedding.pooled

    def run(**told: Any) -> Bytes:
        if control:
            shown = Image.fromarray(picture)
            told["image"] = [shown] * len(control) if len(control) > 1 else shown
            one = engine.conditioning_scale
            told["controlnet_conditioning_scale"] = (
                [one] * len(control) if len(control) > 1 else one
            )
        painted = pipe(
            **told,
            num_inference_steps=1,
            guidance_scale=0.0,
            width=width,
            height=height,
            latents=noise,
            output_type="pil",
        )
        return np.asarray(painted.images[0])

    return {"pipeline": lambda: run(prompt=PROMPT), "embedded": lambda: run(**embedded)}


def _in_turns(
    runs: dict[str, Callable[[], Bytes]], seconds: float
) -> tuple[dict[str, list[float]], dict[str, Bytes]]:
    """Seconds of each picture by run, and the last picture of each; the first one is not timed."""
    last = {name: run() for name, run in runs.items()}
    times: dict[str, list[float]] = {name: [] for name in runs}
    end = time.perf_counter() + seconds
    while True:
        for name, run in runs.items():
            for _ in range(BLOCK):
                started = time.perf_counter()
                last[name] = run()
                times[name].append(time.perf_counter() - started)
        if time.perf_counter() >= end:
            return times, last


def _parts(engine: CheckpointOneStep, picture: Bytes, like: list[float]) -> dict[str, float]:
    """Milliseconds by part: as many pictures as were timed whole, but no more than 20."""
    height, width = picture.shape[:2]
    device = engine.network.device
    found: dict[str, list[float]] = {}
    clock = [0.0]

    def mark(part: str) -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        now = time.perf_counter()
        found.setdefault(part, []).append((now - clock[0]) * 1e3)
        clock[0] = now

    guide = torch.from_numpy(picture)[None] if engine.controls else None
    for _ in range(min(len(like), 20)):
        clock[0] = time.perf_counter()
        levels = engine.decode(engine.latents(width, height, control=guide, mark=mark), mark=mark)
        levels.cpu().contiguous()
        mark("conversion")
    return {part: _merged(part, values) for part, values in found.items()}


def _merged(part: str, values: list[float]) -> float:
    if part == "conversion":
        # It is marked twice a picture: to bytes on the device, and from it.
        values = [sum(pair) for pair in zip(values[::2], values[1::2], strict=True)]
    return statistics.median(values)


def _text(engine: CheckpointOneStep) -> float:
    engine.embed("a first prompt, which is not timed")
    started = time.perf_counter()
    engine.embed("another prompt, which nobody has asked for before")
    return (time.perf_counter() - started) * 1e3


def _parameters(engine: CheckpointOneStep) -> dict[str, int]:
    """Of the networks as they are published: the engine folds and fuses some of them away."""
    net = engine.network
    vae = parts.build(type(net.vae).__name__, net.vae.config)
    return {
        "control": sum(parts.count(parts.build("ControlNetModel", c.config)) for c in net.controls),
        "unet": parts.count(parts.build("UNet2DConditionModel", net.unet.config)),
        "decoder": parts.count(vae.decoder),
    }


def _speed(times: list[float]) -> Speed:
    median = statistics.median(times)
    return Speed(ms=median * 1e3, fps=1 / median, frames=len(times))
