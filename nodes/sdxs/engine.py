"""The one-step engine: pictures in, styled pictures out.

`OneStep` is what every model offers; `OneStep.load` picks the class that runs the model: the
bundled one is `nodes.sdxs.small`, published checkpoints are `nodes.sdxs.checkpoint`.
"""

from __future__ import annotations

import logging
import operator
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nodes.sdxs import blending, seeds
from nodes.sdxs.names import ModelName
from nodes.sdxs.noise import Noises

if TYPE_CHECKING:
    from nodes.sdxs.names import Lora

Bytes = NDArray[np.uint8]

STRONGEST_HOLD = 2.0


class SpoiledPictureError(ArithmeticError):
    """A result holds NaN or infinite numbers, and so is no picture."""


class OneStep(ABC):
    """A one-step diffusion model, loaded and ready.

    Make one with `OneStep.load`. The settings `prompt`, `conditioning_scale`, `seed`, `seeds` and
    `blend` can change between any two pictures. One engine serves one thread at a time.

    The result depends on the picture and the settings alone: the noise is drawn once from the
    seed, so a still picture stays still.
    """

    log: logging.Logger
    """receives warnings, a sentence each"""

    def __init__(self) -> None:
        self.log = logging.getLogger("nodes.sdxs")
        self._prompt = ""
        self._scale = 1.0
        self._seed = 0
        self._seeds: str | None = None
        self._blend = "linear"
        self._turn = 0.0
        self._noises = Noises()

    @staticmethod
    def load(
        model: str | Path = "bundled",
        *,
        control: str | Path | Sequence[str | Path] | None = None,
        lora: Sequence[str | Path | Lora] = (),
        vae: str = "tiny",
        device: str = "cpu",
        dtype: str = "auto",
        backend: str = "auto",
        threads: int | None = None,
        text_encoder: str = "auto",
        log: logging.Logger | None = None,
    ) -> OneStep:
        """Loads a model.

        Args:
            model: `"bundled"`; a repository of the Hugging Face hub that `streamer pull` has
                fetched, as `"IDKiro/sdxs-512-dreamshaper"`, with `@revision` if need be; a folder
                in diffusers' layout, or in that of `nodes.sdxs.bundle`; or `"random:NAME"`, the
                exact architecture with seeded random weights.
            control: A ControlNet, or several, each as a repository, a folder or `"random"`.
            lora: Adapters that are merged into the weights, in this order.
            vae: Which decoder of a checkpoint: `"tiny"` or `"large"`.
            device: `"cpu"`, or any that torch knows, as `"cuda:0"`.
            dtype: Arithmetic: `"auto"`, `"float32"`, `"bfloat16"` or `"float16"`. Automatic is
                float16 on CUDA, bfloat16 in OpenVINO where the processor has instructions for
                it, float32 elsewhere.
            backend: `"auto"`, `"openvino"` or `"torch"`. Automatic is OpenVINO on the CPU where
                it is installed and the model brings a graph for it, torch elsewhere.
            threads: How many the network may use; None leaves it to the backend.
            text_encoder: Of a checkpoint: `"keep"` it for other prompts, `"release"` it after
                each, or `"auto"`, which releases it where memory is short.
            log: Receives warnings, a sentence each; that of `nodes.sdxs` by default.

        Raises:
            FileNotFoundError: There is no such model here; the message says how to get it.
            ValueError: An argument is unknown or does not fit the others, or the files are not
                what the model needs.
            ImportError: The backend that was named is not installed.
            MemoryError: There is too little of it; what was taken is given back.
        """
        name = ModelName.parse(model)
        if name.is_bundle:
            from nodes.sdxs.small import SmallOneStep

            for what, given in (("control", control), ("lora", tuple(lora))):
                if given:
                    raise ValueError(
                        f"model {name} takes no {what}: the picture itself is its condition; "
                        "load a published checkpoint instead"
                    )
            return SmallOneStep.open(
                model, device=device, dtype=dtype, backend=backend, threads=threads
            )
        from nodes.sdxs.checkpoint.engine import CheckpointOneStep

        return CheckpointOneStep.open(
            name,
            control=control,
            lora=lora,
            vae=vae,
            device=device,
            dtype=dtype,
            backend=backend,
            threads=threads,
            text_encoder=text_encoder,
            log=log,
        )

    @staticmethod
    def prompts_of(model: str | Path = "bundled") -> tuple[str, ...]:
        """The vocabulary of a model, without loading it; empty where any text will do.

        Raises:
            FileNotFoundError: There is no such model.
            ValueError: The folder holds no model.
        """
        from nodes.sdxs.bundle import Bundle

        return Bundle.open(model).styles if ModelName.parse(model).is_bundle else ()

    @staticmethod
    def check_prompt(prompt: str, model: str | Path = "bundled") -> None:
        """Checks a prompt without loading the model.

        Raises:
            ValueError: As when setting `prompt`.
            FileNotFoundError: There is no such model.
        """
        from nodes.sdxs import texts, vocabulary
        from nodes.sdxs.bundle import Bundle

        if ModelName.parse(model).is_bundle:
            bundle = Bundle.open(model)
            vocabulary.parse(prompt, known=bundle.styles, model=bundle.name)
        else:
            texts.parse(prompt)

    @property
    @abstractmethod
    def name(self) -> str:
        """The model, as it was asked for."""

    @property
    @abstractmethod
    def prompts(self) -> tuple[str, ...]:
        """The styles that a prompt can name; empty where any text will do."""

    @property
    @abstractmethod
    def native_size(self) -> tuple[int, int]:
        """Width and height in pixels that the model was made for; others work."""

    @property
    @abstractmethod
    def multiple(self) -> int:
        """Width and height must be multiples of this."""

    @property
    @abstractmethod
    def backend(self) -> str:
        """What computes: `"openvino"` or `"torch"`."""

    @property
    @abstractmethod
    def dtype(self) -> str:
        """The arithmetic that was chosen: `"float32"`, `"bfloat16"` or `"float16"`."""

    @property
    @abstractmethod
    def sees_picture(self) -> bool:
        """Whether the picture steers the result; without a ControlNet, a checkpoint's does not."""

    def prefetch(self, prompt: str) -> None:
        """Computes what a prompt needs, so that setting it later takes no time.

        May be called from another thread while pictures are painted.

        Raises:
            ValueError: As when setting `prompt`.
        """
        self.check_prompt(prompt, self.name)

    @property
    def prompt(self) -> str:
        """What to paint, or a blend: `ink:0.7 comic:0.3`; of any text, `a castle:0.7 | a wood:0.3`.

        Setting it raises ValueError if the model cannot take it; the old one stays then.
        """
        return self._prompt

    @prompt.setter
    def prompt(self, prompt: str) -> None:
        self._take_prompt(prompt)
        self._prompt = prompt

    @property
    def conditioning_scale(self) -> float:
        """How firmly the picture steers, 0 to 2; 1 is as trained.

        Of the bundled model, 2 leaves nearly nothing but the source and 0 departs from it further
        than it was trained to. Of a checkpoint with a ControlNet, it multiplies what that adds, so
        that 0 leaves the prompt alone.

        Setting it raises ValueError if it is not a number from 0 to 2.
        """
        return self._scale

    @conditioning_scale.setter
    def conditioning_scale(self, scale: float) -> None:
        number = _number("conditioning_scale", scale)
        if not 0 <= number <= STRONGEST_HOLD:
            raise ValueError(f"conditioning_scale must be from 0 to 2, not {scale!r}")
        self._scale = number
        self._take_scale(number)

    @property
    def seed(self) -> int:
        """Which noise: another seed is another sheet of paper, or another picture.

        Setting it raises ValueError if it is not an integer from 0 to 2³² − 1.
        """
        return self._seed

    @seed.setter
    def seed(self, seed: int) -> None:
        try:
            number = operator.index(seed)
        except TypeError:
            raise ValueError(f"seed must be an integer, not {seed!r}") from None
        if not 0 <= number <= seeds.LARGEST:
            raise ValueError(f"seed must be from 0 to {seeds.LARGEST}, not {number}")
        self._seed = number
        self._take_noise()

    @property
    def seeds(self) -> str | None:
        """Seeds whose noises are mixed, in place of `seed`: `7:0.7 42:0.3`; None for `seed` alone.

        The mixed noise is as strong as each of them, whatever `blend` says.

        Setting it raises ValueError if it is not understood; the old one stays then.
        """
        return self._seeds

    @seeds.setter
    def seeds(self, given: str | None) -> None:
        if given is not None:
            seeds.parse(given)
        self._seeds = given
        self._take_noise()

    @property
    def blend(self) -> str:
        """How the parts of a prompt, and those of `seeds`, are mixed: `linear` or `spherical`.

        Setting it raises ValueError if it is neither.
        """
        return self._blend

    @blend.setter
    def blend(self, blend: str) -> None:
        blending.check(blend)
        former, self._blend = self._blend, blend
        if blend == former:
            return
        try:
            self._take_prompt(self._prompt)
        except BaseException:
            self._blend = former
            raise
        self._take_noise()

    @property
    def turn(self) -> float:
        """How far the noise has turned, at least 0: 1 is the next seed's, 0.5 is halfway there.

        Setting it raises ValueError if it is negative or no number.
        """
        return self._turn

    @turn.setter
    def turn(self, turn: float) -> None:
        number = _number("turn", turn)
        if not 0 <= number < seeds.LARGEST:
            raise ValueError(f"turn must be from 0 to {seeds.LARGEST}, not {turn!r}")
        changed, self._turn = number != self._turn, number
        if changed:
            self._take_noise()

    @property
    def feeds_back_latents(self) -> bool:
        """Whether `paint_after` mixes latents; else the picture itself is to be mixed."""
        return False

    def paint_after(self, image: Bytes, out: Bytes, *, past: Any, share: float) -> Any:
        """Styles a picture with a share of the last one's latent in it.

        Args:
            image: uint8 RGB, height × width × 3.
            out: receives the result.
            past: what the last call returned, None at first.
            share: of the past, 0 to 1.

        Returns:
            The latent, for the next call.

        Raises:
            ValueError: not `feeds_back_latents`, or as a call does.
        """
        raise ValueError(f"model {self.name} has no latent to mix; mix the picture itself")

    def _take_noise(self) -> None:
        parts = ((self._seed, 1.0),) if self._seeds is None else seeds.parse(self._seeds)
        self._noises.take(parts, blend=self._blend, turn=self._turn)

    def __call__(
        self, image: Bytes, out: Bytes | None = None, *, control: Bytes | None = None
    ) -> Bytes:
        """Styles a picture, or a batch of pictures.

        Args:
            image: uint8 RGB, height × width × 3, or count × height × width × 3.
            out: Receives the result; uint8 of the same shape. It may be `image` itself.
            control: Picture for the ControlNet, of the shape of `image`; `image` by default.

        Returns:
            `out`, or a new array if there is none.

        Raises:
            ValueError: Shape or type are not as above, a side is not a multiple of `multiple`, or
                `control` was given to a model without ControlNet.
            SpoiledPictureError: The network's result is not finite; `out` holds no picture.
            MemoryError: There is too little for pictures of this size.
        """
        batch, height, width = self._checked(image)
        if control is not None and (control.shape != image.shape or control.dtype != np.uint8):
            raise ValueError(
                f"control must be uint8 of shape {image.shape}, not {control.dtype} of "
                f"{control.shape}"
            )
        if out is None:
            out = np.empty(image.shape, np.uint8)
        elif out.shape != image.shape or out.dtype != np.uint8:
            raise ValueError(
                f"out must be uint8 of shape {image.shape}, not {out.dtype} of {out.shape}"
            )
        elif not out.flags.writeable:
            raise ValueError("out is read-only")
        shape = (batch, height, width, 3)
        # No backend looks at read-only memory: that is copied, as is what has gaps.
        pixels = np.require(image, requirements=("C", "W")).reshape(shape)
        guide = (
            None if control is None else np.require(control, requirements=("C", "W")).reshape(shape)
        )
        # The model writes straight into `out` where it can.
        direct = out.flags.c_contiguous and not np.may_share_memory(out, pixels)
        target = out.reshape(shape) if direct else np.empty(shape, np.uint8)
        self._paint(pixels, guide, target)
        if not direct:
            out[...] = target.reshape(out.shape)
        return out

    def warm_up(self, width: int, height: int, *, batch: int = 1) -> None:
        """Does for one size now what the first picture would otherwise wait for.

        Raises:
            ValueError: A side is not a positive multiple of `multiple`.
        """
        blank = np.zeros((batch, height, width, 3), np.uint8)
        self._checked(blank)
        self._prepare(batch, height, width)
        self(blank)

    def __repr__(self) -> str:
        return (
            f"OneStep({self.name!r}, {self.backend}, {self.dtype}, "
            f"prompt={self.prompt!r}, conditioning_scale={self.conditioning_scale:g}, "
            + (f"seed={self.seed})" if self.seeds is None else f"seeds={self.seeds!r})")
        )

    @abstractmethod
    def _take_prompt(self, prompt: str) -> None:
        """Gets ready for a prompt as `blend` says; raises ValueError, changing nothing, if not."""

    @abstractmethod
    def _take_scale(self, scale: float) -> None:
        """Gets ready for a conditioning scale, checked already."""

    @abstractmethod
    def _draw(self, seed: int, shape: tuple[int, ...]) -> Any:
        """The noise of a seed, of variance 1."""

    @abstractmethod
    def _prepare(self, batch: int, height: int, width: int) -> None:
        """Does what depends on the size alone."""

    @abstractmethod
    def _paint(self, image: Bytes, control: Bytes | None, out: Bytes) -> None:
        """One step from uint8 NHW3 to uint8 NHW3, all contiguous; `out` shares no memory."""

    def _checked(self, image: Bytes) -> tuple[int, int, int]:
        if image.dtype != np.uint8 or image.ndim not in (3, 4) or image.shape[-1] != 3:
            raise ValueError(
                "a picture must be uint8 of height × width × 3, or a batch of such, "
                f"not {image.dtype} of {image.shape}"
            )
        height, width = image.shape[-3:-1]
        batch = image.shape[0] if image.ndim == 4 else 1
        step = self.multiple
        if batch < 1 or height < step or width < step or height % step or width % step:
            near = f"{max(width // step, 1) * step}x{max(height // step, 1) * step}"
            raise ValueError(
                f"width and height must be multiples of {step}, not {width}x{height}; "
                f"{near} would fit"
            )
        return batch, height, width


def _number(name: str, value: float) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be a number, not {value!r}") from None
