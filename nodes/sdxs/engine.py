"""The one-step engine: pictures in, styled pictures out."""

from __future__ import annotations

import operator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nodes.sdxs import vocabulary
from nodes.sdxs.backends import Backend, choose
from nodes.sdxs.bundle import Bundle
from nodes.sdxs.tokens import read_tokens

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]

STRONGEST_HOLD = 2.0
LARGEST_SEED = 2**32 - 1


class OneStep:
    """A one-step image-conditioned diffusion model, loaded and ready.

    Make one with `OneStep.load`. The settings `prompt`, `conditioning_scale` and `seed` can change
    between any two pictures and cost nothing. One engine serves one thread at a time.

    The result depends on the picture and the settings alone: the noise is drawn once from the
    seed, so a still picture stays still.
    """

    def __init__(self, bundle: Bundle, backend: Backend) -> None:
        self._bundle = bundle
        self._backend = backend
        self._table = read_tokens(bundle)
        self._noises: dict[tuple[int, int, int], Floats] = {}
        self._prompt = ""
        self._scale = 1.0
        self._seed = -1
        self.prompt = bundle.styles[0]
        self.conditioning_scale = 1.0
        self.seed = 0

    @classmethod
    def load(
        cls,
        model: str | Path = "bundled",
        *,
        device: str = "cpu",
        dtype: str = "auto",
        backend: str = "auto",
        threads: int | None = None,
    ) -> OneStep:
        """Loads a model.

        Args:
            model: `"bundled"`, or a folder in the layout of `nodes.sdxs.bundle`.
            device: `"cpu"`, or any that torch knows, as `"cuda:0"`.
            dtype: Arithmetic: `"auto"`, `"float32"`, `"bfloat16"` or `"float16"`. Automatic is
                bfloat16 in OpenVINO where the processor has instructions for it, float16 on
                CUDA, float32 elsewhere.
            backend: `"auto"`, `"openvino"` or `"torch"`. Automatic is OpenVINO on the CPU where
                it is installed and the model brings a graph for it, torch elsewhere.
            threads: How many the network may use; None leaves it to the backend.

        Raises:
            FileNotFoundError: There is no such model.
            ValueError: An argument is unknown or does not fit the others.
            ImportError: The backend that was named is not installed.
        """
        bundle = Bundle.open(model)
        return cls(
            bundle, choose(bundle, backend=backend, device=device, dtype=dtype, threads=threads)
        )

    @staticmethod
    def prompts_of(model: str | Path = "bundled") -> tuple[str, ...]:
        """The vocabulary of a model, without loading it.

        Raises:
            FileNotFoundError: There is no such model.
            ValueError: The folder holds no model.
        """
        return Bundle.open(model).styles

    @staticmethod
    def check_prompt(prompt: str, model: str | Path = "bundled") -> None:
        """Checks a prompt without loading the model.

        Raises:
            ValueError: As when setting `prompt`.
            FileNotFoundError: There is no such model.
        """
        bundle = Bundle.open(model)
        vocabulary.parse(prompt, known=bundle.styles, model=bundle.name)

    @property
    def prompts(self) -> tuple[str, ...]:
        """The styles that a prompt can name."""
        return self._bundle.styles

    @property
    def native_size(self) -> tuple[int, int]:
        """Width and height in pixels that the model was made for; others work."""
        return self._bundle.native_size

    @property
    def multiple(self) -> int:
        """Width and height must be multiples of this."""
        return self._bundle.multiple

    @property
    def backend(self) -> str:
        """What computes: `"openvino"` or `"torch"`."""
        return self._backend.name

    @property
    def dtype(self) -> str:
        """The arithmetic that was chosen: `"float32"`, `"bfloat16"` or `"float16"`."""
        return self._backend.dtype

    @property
    def prompt(self) -> str:
        """The style, or a blend such as `ink:0.7 comic:0.3`.

        Setting it raises ValueError if it names a style that the model does not know.
        """
        return self._prompt

    @prompt.setter
    def prompt(self, prompt: str) -> None:
        weights = vocabulary.parse(prompt, known=self.prompts, model=self._bundle.name)
        tokens = np.zeros(self._table.shape[1:], np.float32)
        for style, weight in weights.items():
            tokens += np.float32(weight) * self._table[self.prompts.index(style)]
        self._tokens = tokens[None]
        self._prompt = prompt

    @property
    def conditioning_scale(self) -> float:
        """How firmly the source picture holds, 0 to 2.

        1 is the style as it was trained. Above 1 the source comes through, until at 2 it is
        nearly all there is; below 1 the style departs from it further than it was trained to.

        Setting it raises ValueError if it is not a number from 0 to 2.
        """
        return self._scale

    @conditioning_scale.setter
    def conditioning_scale(self, scale: float) -> None:
        number = _number("conditioning_scale", scale)
        if not 0 <= number <= STRONGEST_HOLD:
            raise ValueError(f"conditioning_scale must be from 0 to 2, not {scale!r}")
        self._scale = number
        # What the source does not hold, the U-Net's step changes.
        self._strength = np.full((1, 1, 1, 1), STRONGEST_HOLD - number, np.float32)

    @property
    def seed(self) -> int:
        """Which noise lies beside the picture: another seed is another sheet of paper.

        Setting it raises ValueError if it is not an integer from 0 to 2³² − 1.
        """
        return self._seed

    @seed.setter
    def seed(self, seed: int) -> None:
        try:
            number = operator.index(seed)
        except TypeError:
            raise ValueError(f"seed must be an integer, not {seed!r}") from None
        if not 0 <= number <= LARGEST_SEED:
            raise ValueError(f"seed must be from 0 to {LARGEST_SEED}, not {number}")
        if number != self._seed:
            self._noises.clear()
        self._seed = number

    def __call__(self, image: Bytes, out: Bytes | None = None) -> Bytes:
        """Styles a picture, or a batch of pictures.

        Args:
            image: uint8 RGB, height × width × 3, or count × height × width × 3.
            out: Receives the result; uint8 of the same shape. It may be `image` itself.

        Returns:
            `out`, or a new array if there is none.

        Raises:
            ValueError: Shape or type are not as above, or a side is not a multiple of
                `multiple`.
        """
        batch, height, width = self._checked(image)
        if out is None:
            out = np.empty(image.shape, np.uint8)
        elif out.shape != image.shape or out.dtype != np.uint8:
            raise ValueError(
                f"out must be uint8 of shape {image.shape}, not {out.dtype} of {out.shape}"
            )
        elif not out.flags.writeable:
            raise ValueError("out is read-only")
        shape = (batch, height, width, 3)
        # Both backends refuse to look at read-only memory: that is copied, as is what has gaps.
        pixels = np.require(image, requirements=("C", "W")).reshape(shape)
        # The backend writes straight into `out` where it can.
        direct = out.flags.c_contiguous and not np.may_share_memory(out, pixels)
        target = out.reshape(shape) if direct else np.empty(shape, np.uint8)
        self._backend.run(
            pixels,
            _repeat(self._tokens, batch),
            self._noise(batch, height, width),
            _repeat(self._strength, batch),
            out=target,
        )
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
        self._backend.prepare((batch, height, width))
        self(blank)

    def __repr__(self) -> str:
        return (
            f"OneStep({self._bundle.name!r}, {self.backend}, {self.dtype}, "
            f"prompt={self.prompt!r}, conditioning_scale={self.conditioning_scale:g}, "
            f"seed={self.seed})"
        )

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

    def _noise(self, batch: int, height: int, width: int) -> Floats:
        shape = (batch, height, width)
        if shape not in self._noises:
            if len(self._noises) >= 4:
                self._noises.clear()
            shrink = self._bundle.shrink
            noise = np.random.default_rng(self.seed).standard_normal(
                (1, self._bundle.noise_channels, height // shrink, width // shrink), np.float32
            )
            self._noises[shape] = _repeat(noise, batch)
        return self._noises[shape]


def _repeat(array: Floats, count: int) -> Floats:
    return array if count == 1 else np.repeat(array, count, axis=0)


def _number(name: str, value: float) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be a number, not {value!r}") from None
