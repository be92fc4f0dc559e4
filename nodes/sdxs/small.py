"""Small models in the layout of `nodes.sdxs.bundle`, the bundled one among them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nodes.sdxs import blending, vocabulary
from nodes.sdxs.backends import Backend, Torch, choose
from nodes.sdxs.bundle import Bundle
from nodes.sdxs.engine import OneStep
from nodes.sdxs.jobs import Bytes, Job, Settings
from nodes.sdxs.settings import STRONGEST_HOLD
from nodes.sdxs.tokens import read_tokens

Floats = NDArray[np.float32]


class SmallOneStep(OneStep):
    """A model whose condition is the picture itself and whose prompts are a fixed vocabulary."""

    def __init__(self, bundle: Bundle, backend: Backend) -> None:
        super().__init__()
        self._bundle = bundle
        self._backend = backend
        self._table = read_tokens(bundle)
        self.prompt = bundle.styles[0]
        self.conditioning_scale = 1.0

    @classmethod
    def open(
        cls,
        model: str | Path,
        *,
        device: str,
        dtype: str,
        backend: str,
        threads: int | None,
    ) -> SmallOneStep:
        """See `OneStep.load`."""
        bundle = Bundle.open(model)
        return cls(
            bundle, choose(bundle, backend=backend, device=device, dtype=dtype, threads=threads)
        )

    @property
    def name(self) -> str:
        """See `OneStep.name`."""
        return self._bundle.name

    @property
    def prompts(self) -> tuple[str, ...]:
        """See `OneStep.prompts`."""
        return self._bundle.styles

    @property
    def native_size(self) -> tuple[int, int]:
        """See `OneStep.native_size`."""
        return self._bundle.native_size

    @property
    def multiple(self) -> int:
        """See `OneStep.multiple`."""
        return self._bundle.multiple

    @property
    def backend(self) -> str:
        """See `OneStep.backend`."""
        return self._backend.name

    @property
    def dtype(self) -> str:
        """See `OneStep.dtype`."""
        return self._backend.dtype

    @property
    def sees_picture(self) -> bool:
        """Always."""
        return True

    def _take_prompt(self, prompt: str) -> None:
        weights = vocabulary.parse(prompt, known=self.prompts, model=self.name)
        found = np.stack([self._table[self.prompts.index(style)] for style in weights])
        shares = blending.factors(found, list(weights.values()), self._blend)
        self._tokens: Floats = (shares[..., None] * found).sum(0, keepdims=True).astype(np.float32)

    def _embedded(self) -> Floats:
        return self._tokens

    def _draw(self, seed: int, shape: tuple[int, ...]) -> Floats:
        return np.random.default_rng(seed).standard_normal(shape, np.float32)

    def _prepare(self, batch: int, height: int, width: int) -> None:
        self._backend.prepare((batch, height, width))

    def _paint(self, image: Bytes, control: Bytes | None, out: Bytes, settings: Settings) -> None:
        if control is not None:
            raise ValueError(
                f"model {self.name!r} takes no control picture: the picture itself is its condition"
            )
        batch, height, width = image.shape[:3]
        # What the source does not hold, the U-Net's step changes.
        strength = STRONGEST_HOLD - settings.conditioning_scale
        self._backend.run(
            image,
            _repeat(settings.embedding, batch),
            _repeat(self._noise(settings, height, width), batch),
            np.full((batch, 1, 1, 1), strength, np.float32),
            out=out,
        )

    @property
    def device(self) -> str:
        """See `OneStep.device`."""
        return self._backend.device if isinstance(self._backend, Torch) else "cpu"

    @property
    def takes_tensors(self) -> bool:
        """On torch."""
        return isinstance(self._backend, Torch)

    def _paint_jobs(self, jobs: Sequence[Job]) -> None:
        if isinstance(jobs[0].image, np.ndarray):
            super()._paint_jobs(jobs)
            return
        if not isinstance(self._backend, Torch):
            raise ValueError(f"model {self.name!r} takes no tensors on {self.backend}")
        import torch

        from nodes.sdxs.checkpoint import streams

        device = torch.device(self.device)
        streams.before(jobs, device)
        for job in jobs:
            settings, (height, width) = job.settings, job.image.shape[:2]
            self._backend.run_there(
                job.image[None],
                settings.embedding,
                self._noise(settings, height, width),
                STRONGEST_HOLD - settings.conditioning_scale,
                out=job.out[None],
            )
        streams.after(jobs, device)

    def _noise(self, settings: Settings, height: int, width: int) -> Floats:
        shrink = self._bundle.shrink
        shape = (1, self._bundle.noise_channels, height // shrink, width // shrink)
        found: Floats = np.asarray(settings.noise.of(shape, self._draw), np.float32)
        return found


def _repeat(array: Floats, count: int) -> Floats:
    return array if count == 1 else np.repeat(array, count, axis=0)
