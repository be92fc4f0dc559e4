"""The one-step engine: pictures in, styled pictures out.

`OneStep` is what every model offers; `OneStep.load` picks the class that runs the model: the
bundled one is `nodes.sdxs.small`, published checkpoints are `nodes.sdxs.checkpoint`.
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from nodes.sdxs.jobs import Bytes, Job, Settings, SpoiledPictureError
from nodes.sdxs.names import ModelName
from nodes.sdxs.settings import Adjustable

if TYPE_CHECKING:
    from nodes.sdxs.names import Lora
    from nodes.sdxs.stages import Note

__all__ = ["Bytes", "OneStep", "SpoiledPictureError"]


class Turns(Protocol):
    """How siblings in several threads take turns at their model; see `nodes.sdxs.batching`."""

    def paint(self, jobs: Sequence[Job]) -> None:
        """Paints jobs as `OneStep.paint_jobs`, with those of others maybe."""
        ...

    def alone(self) -> AbstractContextManager[None]:
        """A turn for other work."""
        ...


class OneStep(Adjustable):
    """A one-step diffusion model, loaded and ready.

    Make one with `OneStep.load`. The settings `prompt`, `conditioning_scale`, `seed`, `seeds` and
    `blend` can change between any two pictures. One engine serves one thread at a time.

    The result depends on the picture and the settings alone: the noise is drawn once from the
    seed, so a still picture stays still.
    """

    log: logging.Logger
    """receives warnings, a sentence each"""
    turns: Turns | None = None
    """by which pictures are painted, where siblings paint in other threads"""

    def __init__(self) -> None:
        super().__init__()
        self.log = logging.getLogger("nodes.sdxs")

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
        capture: str = "auto",
        compile: bool = False,
        log: logging.Logger | None = None,
        note: Note | None = None,
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
            capture: `"auto"` records a checkpoint's work for pictures of a size once, in the
                background, and replays it from then on, on CUDA; `"off"` never does.
            compile: Whether to compile a checkpoint's networks by torch.compile, for each size
                and in the background, which takes minutes.
            log: Receives warnings, a sentence each; that of `nodes.sdxs` by default.
            note: Told in a few words what is being loaded, as `note(text, done=1, of=5)`; later
                what is being done in the background, as `note(text)`, and `""` after it.

        Raises:
            FileNotFoundError: There is no such model here; the message says how to get it.
            ValueError: An argument is unknown or does not fit the others, or the files are not
                what the model needs.
            ImportError: The backend that was named is not installed.
            MemoryError: There is too little of it; what was taken is given back.
        """
        if capture not in ("auto", "off"):
            raise ValueError(f"unknown capture {capture!r}; known are auto and off")
        name = ModelName.parse(model)
        if name.is_bundle:
            from nodes.sdxs.small import SmallOneStep

            for what, given in (("control", control), ("lora", tuple(lora))):
                if given:
                    raise ValueError(
                        f"model {name} takes no {what}: the picture itself is its condition; "
                        "load a published checkpoint instead"
                    )
            if compile:
                raise ValueError(
                    f"model {name} is not compiled; compile is for published checkpoints"
                )
            return SmallOneStep.open(
                name.id, device=device, dtype=dtype, backend=backend, threads=threads
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
            capture=capture,
            compile=compile,
            log=log,
            note=note,
        )

    @staticmethod
    def prompts_of(model: str | Path = "bundled") -> tuple[str, ...]:
        """The vocabulary of a model, without loading it; empty where any text will do.

        Raises:
            FileNotFoundError: There is no such model.
            ValueError: The folder holds no model.
        """
        from nodes.sdxs.bundle import Bundle

        name = ModelName.parse(model)
        return Bundle.open(name.id).styles if name.is_bundle else ()

    @staticmethod
    def check_prompt(prompt: str, model: str | Path = "bundled") -> None:
        """Checks a prompt without loading the model.

        Raises:
            ValueError: As when setting `prompt`.
            FileNotFoundError: There is no such model.
        """
        from nodes.sdxs import texts, vocabulary
        from nodes.sdxs.bundle import Bundle

        name = ModelName.parse(model)
        if name.is_bundle:
            bundle = Bundle.open(name.id)
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
    def device(self) -> str:
        """Where it computes: `"cpu"`, or as `"cuda:0"`."""
        return "cpu"

    @property
    def takes_tensors(self) -> bool:
        """Whether pictures of `paint_jobs` may be tensors of torch on `device`."""
        return False

    @property
    def paints_together(self) -> bool:
        """Whether `paint_jobs` paints several pictures in one pass; else one after another."""
        return False

    def close(self) -> None:
        """Ends what is done in the background, and waits for the device; no picture comes after.

        Of siblings, the last one in use is to be closed.
        """

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
            SpoiledPictureError: as a call does.
            MemoryError: as a call does.
        """
        job = Job(image, out, self.snapshot(), past=past, share=share)
        self.paint_jobs([job])
        if not bool(job.finite):
            raise SpoiledPictureError(self._spoiled())
        return job.latents

    def paint_jobs(self, jobs: Sequence[Job]) -> None:
        """Styles pictures of one size, each by settings of its own, in one pass where that pays.

        Every result is what the engine alone would paint for it, to one grey level. A result that
        is not finite raises nothing: it is told by `Job.finite`, of its own job alone.

        Args:
            jobs: at least one; the settings are snapshots of this engine or of its siblings.

        Raises:
            ValueError: pictures are not as in a call, or not all of one size; a job has a `past`
                or a `share` and the engine does not mix latents.
            MemoryError: there is too little for pictures of this size; none is painted.
        """
        if not jobs:
            raise ValueError("there is no picture to paint")
        if not self.feeds_back_latents and any(job.past is not None or job.share for job in jobs):
            raise ValueError(f"model {self.name} has no latent to mix; mix the picture itself")
        sizes = {self._checked_job(job) for job in jobs}
        if len(sizes) > 1:
            shown = ", ".join(f"{width}x{height}" for height, width in sorted(sizes))
            raise ValueError(f"pictures of one pass must have one size, not {shown}")
        if self.turns is None:
            self._paint_jobs(jobs)
        else:
            self.turns.paint(jobs)

    def _paint_jobs(self, jobs: Sequence[Job]) -> None:
        """Paints jobs that fit together, one after another."""
        for job in jobs:
            self._paint_array(job.image, job.out, None, job.settings)

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
        self._checked(image)
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
        if self.turns is not None and image.ndim == 3 and control is None:
            job = Job(image, out, self.snapshot())
            self.paint_jobs([job])
            if not bool(job.finite):
                raise SpoiledPictureError(self._spoiled())
            return out
        with self._alone():
            self._paint_array(image, out, control, self.snapshot())
        return out

    def _alone(self) -> AbstractContextManager[None]:
        return nullcontext() if self.turns is None else self.turns.alone()

    def _paint_array(
        self, image: Bytes, out: Bytes, control: Bytes | None, settings: Settings
    ) -> None:
        shape = (-1, *image.shape[-3:])
        # No backend looks at read-only memory: that is copied, as is what has gaps.
        pixels = np.require(image, requirements=("C", "W")).reshape(shape)
        guide = (
            None if control is None else np.require(control, requirements=("C", "W")).reshape(shape)
        )
        # The model writes straight into `out` where it can.
        direct = out.flags.c_contiguous and not np.may_share_memory(out, pixels)
        target = out.reshape(shape) if direct else np.empty(pixels.shape, np.uint8)
        self._paint(pixels, guide, target, settings)
        if not direct:
            out[...] = target.reshape(out.shape)

    def warm_up(self, width: int, height: int, *, batch: int = 1) -> None:
        """Does for one size now what the first picture would otherwise wait for.

        Raises:
            ValueError: A side is not a positive multiple of `multiple`.
        """
        blank = np.zeros((batch, height, width, 3), np.uint8)
        self._checked(blank)
        with self._alone():
            self._prepare(batch, height, width)
        self(blank)

    def __repr__(self) -> str:
        return (
            f"OneStep({self.name!r}, {self.backend}, {self.dtype}, "
            f"prompt={self.prompt!r}, conditioning_scale={self.conditioning_scale:g}, "
            + (f"seed={self.seed})" if self.seeds is None else f"seeds={self.seeds!r})")
        )

    @abstractmethod
    def _draw(self, seed: int, shape: tuple[int, ...]) -> Any:
        """The noise of a seed, of variance 1."""

    @abstractmethod
    def _prepare(self, batch: int, height: int, width: int) -> None:
        """Does what depends on the size alone."""

    @abstractmethod
    def _paint(self, image: Bytes, control: Bytes | None, out: Bytes, settings: Settings) -> None:
        """One step from uint8 NHW3 to uint8 NHW3, all contiguous; `out` shares no memory."""

    def _spoiled(self) -> str:
        return f"model {self.name} gave numbers that are not finite"

    def _checked_job(self, job: Job) -> tuple[int, int]:
        """Height and width of a job's picture."""
        if isinstance(job.image, np.ndarray) is not isinstance(job.out, np.ndarray):
            raise ValueError("image and out of a job must both be arrays, or both be tensors")
        if job.image.ndim != 3:
            raise ValueError(f"a job has one picture, not an image of {tuple(job.image.shape)}")
        _, height, width = self._checked(job.image)
        if job.out.shape != job.image.shape or job.out.dtype != job.image.dtype:
            raise ValueError(
                f"out must be uint8 of shape {tuple(job.image.shape)}, not {job.out.dtype} of "
                f"{tuple(job.out.shape)}"
            )
        if isinstance(job.out, np.ndarray) and not job.out.flags.writeable:
            raise ValueError("out is read-only")
        return height, width

    def _checked(self, image: Any) -> tuple[int, int, int]:
        # A tensor's type is torch's, whose name ends likewise.
        if (
            not str(image.dtype).endswith("uint8")
            or image.ndim not in (3, 4)
            or image.shape[-1] != 3
        ):
            raise ValueError(
                "a picture must be uint8 of height × width × 3, or a batch of such, "
                f"not {image.dtype} of {tuple(image.shape)}"
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
