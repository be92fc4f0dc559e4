"""A model set up to be timed: pictures and results on its device, and how it is run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from itertools import cycle
from typing import Final, Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from nodes.sdxs import OneStep
from nodes.sdxs.checkpoint.capture import CudaGraph, Recorder, Traced
from nodes.sdxs.checkpoint.engine import CheckpointOneStep
from nodes.sdxs.checkpoint.network import Network
from nodes.sdxs.checkpoint.painter import Painter
from nodes.sdxs.jobs import Job
from streamer.bench.acceptance.goals import Conditions

Compiler = Callable[[Network], Network]
PROMPT: Final = "a castle on a hill, oil painting"
SHOWN: Final = 4
"""different pictures, shown in turn"""
FAKE_SIZE: Final = 64
_SEED: Final = 7


@dataclass(frozen=True, slots=True)
class Model:
    """Which model is timed, with random weights.

    Attributes:
        name: of the exact architecture.
        control: whether with a ControlNet.
        side: of its pictures, pixels.
    """

    name: str
    control: bool
    side: int

    def under(self, conditions: Conditions) -> Model:
        """The model itself, or the smallest one."""
        if conditions.fake:
            return Model("random:tiny", self.control, FAKE_SIZE)
        return self


WITH_CONTROL: Final = Model("random:sdxs-512-dreamshaper", True, 512)
WITHOUT_CONTROL: Final = Model("random:sdxs-512-dreamshaper", False, 512)
LARGE: Final = Model("random:sdxs-1024", False, 1024)


def load(model: Model, conditions: Conditions) -> CheckpointOneStep:
    """A model on the GPU in float16, or on the CPU in float32, to be recorded by a `Rig`."""
    device, dtype = ("cpu", "float32") if conditions.fake else ("cuda:0", "float16")
    engine = OneStep.load(
        model.name,
        control="random" if model.control else None,
        device=device,
        dtype=dtype,
        capture="off",
    )
    assert isinstance(engine, CheckpointOneStep)
    engine.prompt = PROMPT
    return engine


@cache
def loaded(model: Model, conditions: Conditions) -> CheckpointOneStep:
    """As `load`, once in a process; nobody may change it."""
    return load(model, conditions)


def recorder(conditions: Conditions) -> Recorder:
    """What records whole pictures: a CUDA graph, or its twin on a CPU."""
    return Traced if conditions.fake else CudaGraph


class Rig:
    """Paints pictures that lie on the device to memory on the device; a call is one pass.

    A context manager: inside, all is ready; what was recorded goes at its end.

    Args:
        engine: with its settings, which are taken as they are now; it stays as it is.
        recorder: records passes; None to run the networks as they stand.
        compiler: makes a compiled network of the engine's; None to compile nothing.
        count: pictures in a pass.
        side: of the pictures, pixels.
    """

    def __init__(
        self,
        engine: CheckpointOneStep,
        *,
        side: int,
        recorder: Recorder | None,
        compiler: Compiler | None = None,
        count: int = 1,
    ) -> None:
        self.device = engine.network.device
        self.out = torch.zeros(count, side, side, 3, dtype=torch.uint8, device=self.device)
        self._engine = engine.sibling()
        self._engine.painter = Painter(
            engine.network, recorder=recorder, compile=compiler is not None
        )
        if compiler is not None:
            self._engine.painter.compiler = compiler
        self._recorded = recorder is not None or compiler is not None
        self._key = (count, side, side)
        draw = partial(torch.randint, 0, 256, (side, side, 3), dtype=torch.uint8)
        generator = torch.Generator().manual_seed(_SEED)
        settings = engine.snapshot()
        self._passes = cycle(
            [
                [Job(draw(generator=generator).to(self.device), out, settings) for out in self.out]
                for _ in range(SHOWN)
            ]
        )

    def __call__(self) -> Tensor:
        """One pass; on a GPU it has only been given to it.

        Returns:
            uint8 N × height × width × 3 on the device.
        """
        self._engine.paint_jobs(next(self._passes))
        return self.out

    def paint(self, picture: Image.Image) -> Image.Image:
        """One picture from and to the host."""
        return Image.fromarray(self._engine(np.asarray(picture)))

    def get_ready(self) -> None:
        """Paints, and waits for what is recorded or compiled in the background.

        Raises:
            RuntimeError: It cannot be.
        """
        self()
        if self._recorded:
            captures = self._engine.painter.captures
            captures.wait(self._key)
            if why := captures.failures.get(self._key):
                raise RuntimeError(f"it cannot be recorded or compiled: {why}")

    def __enter__(self) -> Self:
        try:
            self.get_ready()
        except BaseException:
            self._engine.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._engine.close()
