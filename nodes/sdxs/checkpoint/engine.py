"""`OneStep` for published checkpoints, on torch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nodes.sdxs.checkpoint import edge, parts, streams, text
from nodes.sdxs.checkpoint import lora as adapters
from nodes.sdxs.checkpoint.capture import CudaGraph
from nodes.sdxs.checkpoint.memory import Budget, available_bytes, in_words
from nodes.sdxs.checkpoint.network import Condition, Network
from nodes.sdxs.checkpoint.onepass import silent, step
from nodes.sdxs.checkpoint.painter import Painter, Part
from nodes.sdxs.checkpoint.prompted import Prompted
from nodes.sdxs.checkpoint.text import Embedding, Encoders, Prompts
from nodes.sdxs.device import place_of
from nodes.sdxs.engine import OneStep
from nodes.sdxs.jobs import Bytes, Job, Settings, SpoiledPictureError
from nodes.sdxs.names import Lora, ModelName
from nodes.sdxs.stages import Note, counted

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class CheckpointOneStep(OneStep):
    """A text-to-image checkpoint, with ControlNets or without.

    Besides what every `OneStep` has:

    - `network` is the U-Net, the ControlNets and the decoder, and `latents` and `decode` are the
      two halves of a picture on torch tensors, for whoever wants to change the latent in between.
    - `embedding` is what the prompt comes to.
    - `painter` runs the networks, and records their work where `capture` says so.
    """

    def __init__(
        self, name: str, network: Network, prompts: Prompts, *, native_size: int, painter: Painter
    ) -> None:
        super().__init__()
        self._name = name
        self.network = network
        self._prompts = prompts
        self._native = native_size
        self.painter = painter
        self._warned: set[tuple[int, int]] = set()
        self.prompt = ""

    @classmethod
    def open(
        cls,
        name: ModelName,
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
    ) -> CheckpointOneStep:
        """See `OneStep.load`."""
        place, arithmetic = _checked(device, dtype, backend, threads, text_encoder)
        if place.type == "cuda":
            # cuDNN's attention makes a plan for each shape in each thread, which takes tenths of a
            # second in the midst of pictures; flash attention takes any shape at once.
            torch.backends.cuda.enable_cudnn_sdp(False)
        if threads is not None and place.type == "cpu":
            torch.set_num_threads(threads)
        budget = Budget(place, arithmetic, what=f"model {name}")
        nets = _listed(control)
        say = counted(note, 4 + len(nets) + bool(lora))
        with in_words(f"memory ran out while model {name} was loaded"):
            found = parts.load(name, vae=vae, budget=budget, say=say)
            controls = []
            for one in nets:
                say(f"loading the ControlNet {one}")
                net = ModelName.parse_part(one, "control")
                controls.append(parts.load_control(net, unet=found.unet, budget=budget))
            if lora:
                say("merging adapters")
            merges = [adapters.read(Lora.of(one)) for one in lora]
            for merge in merges:
                merge.into_unet(found.unet)
            say(f"bringing the networks to {place}")
            network = Network(
                found.unet, found.vae, controls, step=found.step, device=place, dtype=arithmetic
            )

        def load_text() -> Encoders:
            # The networks have their weights by now, at each time.
            left = Budget(place, arithmetic, what=f"model {name}")
            with in_words(f"memory ran out while the text encoder of model {name} was loaded"):
                encoders = text.load_encoders(found.name, found.source, budget=left)
                for merge in merges:
                    merge.into_text([encoder for _, encoder in encoders.pairs])
                return encoders.to(place, arithmetic)

        say("loading the text encoder")
        first = load_text() if text_encoder == "auto" else None
        release = text_encoder == "release" or (
            first is not None and text.short_of_memory(first.size(), available_bytes(place))
        )
        config = found.unet.config
        engine = cls(
            str(name),
            network,
            Prompts(load_text, release=release, first=first),
            native_size=int(config.sample_size) * network.shrink,
            painter=Painter(
                network,
                recorder=CudaGraph if capture == "auto" and place.type == "cuda" else None,
                compile=compile,
                log=log,
                note=note,
            ),
        )
        engine.log = log or engine.log
        if place.type == "cuda":
            # Pictures may be painted on another stream than the weights were brought on.
            torch.cuda.current_stream(place).synchronize()
        if found.step.caution is not None:
            engine.log.warning("model %s: %s", name, found.step.caution)
        return engine

    @property
    def name(self) -> str:
        """See `OneStep.name`."""
        return self._name

    @property
    def prompts(self) -> tuple[str, ...]:
        """Empty: any text will do."""
        return ()

    @property
    def native_size(self) -> tuple[int, int]:
        """See `OneStep.native_size`."""
        return (self._native, self._native)

    @property
    def multiple(self) -> int:
        """See `OneStep.multiple`."""
        return self.network.shrink

    @property
    def backend(self) -> str:
        """`"torch"`."""
        return "torch"

    @property
    def dtype(self) -> str:
        """See `OneStep.dtype`."""
        return str(self.network.dtype).removeprefix("torch.")

    @property
    def device(self) -> str:
        """See `OneStep.device`."""
        return str(self.network.device)

    @property
    def takes_tensors(self) -> bool:
        """Always."""
        return True

    @property
    def paints_together(self) -> bool:
        """Always."""
        return True

    def close(self) -> None:
        """See `OneStep.close`."""
        self.painter.close()

    def warm_up(self, width: int, height: int, *, batch: int = 1) -> None:
        """See `OneStep.warm_up`; waits for the recording, too, but not for a compiler."""
        super().warm_up(width, height, batch=batch)
        self.painter.await_capture(batch, height, width)

    @property
    def sees_picture(self) -> bool:
        """Whether there is a ControlNet."""
        return bool(self.controls)

    @property
    def controls(self) -> int:
        """How many ControlNets there are."""
        return len(self.network.controls)

    @property
    def embedding(self) -> Embedding:
        """What the prompt comes to; setting it goes past the prompt."""
        return self._prompted.embedding

    @embedding.setter
    def embedding(self, embedding: Embedding) -> None:
        self._prompted = Prompted(embedding)
        self._snapshot = None

    def embed(self, prompt: str) -> Embedding:
        """The embedding of another prompt, kept for when it is set; from any thread.

        Raises:
            ValueError: As when setting `prompt`.
        """
        embedding = self._prompts.embed(prompt, blend=self._blend)
        if self.network.device.type == "cuda":
            # Computed on this thread's stream, and used on that of the pictures: another one even
            # in their own thread, where frames bring theirs with the first of them.
            torch.cuda.current_stream(self.network.device).synchronize()
        return embedding

    def prefetch(self, prompt: str) -> None:
        """See `OneStep.prefetch`."""
        self.embed(prompt)

    def release_text_encoder(self) -> None:
        """Frees the text encoder's memory; the next new prompt loads it again."""
        self._prompts.release()

    def noise(self, width: int, height: int) -> Tensor:
        """The seed's noise for a size in pixels: float32 1 × 4 × h × w on the device.

        It is drawn on the CPU, as diffusers does with a generator of the CPU, so that a seed means
        the same everywhere; and always in float32, where diffusers draws in the model's own type.
        """
        return self.painter.noise(self._noises, width, height)

    def condition(self, width: int, height: int) -> Condition:
        """The prompt's condition for a size in pixels."""
        return self._prompted.condition(self.network, width, height)

    @torch.inference_mode()
    def latents(
        self,
        width: int,
        height: int,
        *,
        control: Tensor | Sequence[Tensor] | None = None,
        scale: float | Tensor | Sequence[float | Tensor] | None = None,
        noise: Tensor | None = None,
        count: int = 1,
        mark: Callable[[str], None] | None = None,
    ) -> Tensor:
        """The step, up to the latents.

        Args:
            width: Pixels, a multiple of `multiple`.
            height: Pixels, a multiple of `multiple`.
            control: Control pictures, uint8 N × height × width × 3, on any device; for several
                ControlNets one for each, or one for all. None leaves the ControlNets out.
            scale: Conditioning scale; `conditioning_scale` by default. A tensor may hold one for
                each picture, N × 1 × 1 × 1; a sequence one for each ControlNet.
            noise: float32 1 or N × 4 × h × w; the seed's by default.
            count: How many pictures, where there is no control.
            mark: Called with the name of a part when its work was given to the device: `condition`,
                `control`, `unet`.

        Returns:
            float32 N × 4 × h × w.

        Raises:
            ValueError: Control pictures or scales are not one for each ControlNet.
        """
        net = self.network
        drawn = self.noise(width, height) if noise is None else noise
        pictures = self._pictures(control)
        scales = self._scales(scale)
        count = len(pictures[0]) if pictures else max(count, len(drawn))
        return step(
            net,
            drawn.expand(count, -1, -1, -1),
            self.condition(width, height),
            [net.pictures(picture.to(net.device)) for picture in pictures],
            scales if pictures else (),
            mark=mark or silent,
        )

    @torch.inference_mode()
    def decode(self, latents: Tensor, *, mark: Callable[[str], None] | None = None) -> Tensor:
        """Pictures of latents.

        Args:
            latents: float32 N × 4 × h × w.
            mark: As in `latents`: `decoder`, `conversion`.

        Returns:
            uint8 N × height × width × 3 on the device.
        """
        say = mark or silent
        decoded = self.network.decode(latents)
        say("decoder")
        levels = self.network.levels(decoded)
        say("conversion")
        return levels

    def advice(self, width: int, height: int) -> str | None:
        """Why a size in pixels does not suit the model, as a sentence; None if it does."""
        if (width, height) == self.native_size:
            return None
        native = "x".join(map(str, self.native_size))
        return (
            f"model {self.name} was made for {native} pixels and looks worse at {width}x{height}; "
            f"put a preprocess node with size {native} before it (`streamer style`: --size "
            f"{native})"
        )

    def _take_prompt(self, prompt: str) -> None:
        self._prompted = Prompted(self.embed(prompt))

    def _embedded(self) -> Prompted:
        return self._prompted

    def _draw(self, seed: int, shape: tuple[int, ...]) -> Tensor:
        return self.painter.draw(seed, shape)

    def _prepare(self, batch: int, height: int, width: int) -> None:
        self.noise(width, height)

    @property
    def feeds_back_latents(self) -> bool:
        """Always: a control picture is no picture to mix with."""
        return True

    def _paint_jobs(self, jobs: Sequence[Job]) -> None:
        height, width = jobs[0].image.shape[:2]
        self._warn(width, height)
        device = self.network.device
        with self._memory_for(width, height):
            streams.before(jobs, device)
            parts = [
                Part(one.settings, edge.upload(one.image, device), past=one.past, share=one.share)
                for one in jobs
            ]
            made = self.painter.paint(parts)
            # Copies, since a captured picture's own are overwritten by the next.
            finite = made.finite.clone()
            for index, job in enumerate(jobs):
                if isinstance(job.out, Tensor):
                    job.out.copy_(made.levels[index])
                if job.share:
                    job.latents = made.latents[index : index + 1].clone()
                job.finite = finite[index]
            streams.after(jobs, device)
            on_host = [n for n, job in enumerate(jobs) if not isinstance(job.out, Tensor)]
            for n, levels in zip(
                on_host, edge.download([made.levels[n] for n in on_host]), strict=True
            ):
                np.copyto(jobs[n].out, levels)
            for job in jobs:
                if device.type != "cuda" or not isinstance(job.out, Tensor):
                    job.finite = bool(job.finite)

    def _paint(self, image: Bytes, control: Bytes | None, out: Bytes, settings: Settings) -> None:
        height, width = image.shape[1:3]
        self._warn(width, height)
        if control is not None and not self.controls:
            raise ValueError(
                f"model {self.name} was loaded without a ControlNet: a control picture needs one"
            )
        guide = image if control is None else control
        with self._memory_for(width, height):
            device = self.network.device
            made = self.painter.paint([Part(settings, edge.upload(one, device)) for one in guide])
            np.copyto(out, edge.download([made.levels])[0])
            fine = bool(made.finite.all())
        if not fine:
            raise SpoiledPictureError(self._spoiled())

    @contextmanager
    def _memory_for(self, width: int, height: int) -> Iterator[None]:
        try:
            with in_words(f"no memory for pictures of {width}x{height}"), torch.inference_mode():
                yield
        except MemoryError:
            self.painter.save_memory()
            raise

    def _warn(self, width: int, height: int) -> None:
        if (width, height) not in self._warned:
            self._warned.add((width, height))
            if (advice := self.advice(width, height)) is not None:
                self.log.warning("%s", advice)

    def _pictures(self, control: Tensor | Sequence[Tensor] | None) -> list[Tensor]:
        if control is None:
            return []
        if not self.controls:
            raise ValueError(f"model {self.name} was loaded without a ControlNet")
        given = [control] * self.controls if isinstance(control, Tensor) else list(control)
        if len(given) != self.controls:
            raise ValueError(f"{len(given)} control pictures for {self.controls} ControlNets")
        return given

    def _scales(
        self, scale: float | Tensor | Sequence[float | Tensor] | None
    ) -> list[float | Tensor]:
        chosen = self.conditioning_scale if scale is None else scale
        if isinstance(chosen, int | float | Tensor):
            chosen = [chosen] * self.controls
        if len(chosen) != self.controls:
            raise ValueError(f"{len(chosen)} conditioning scales for {self.controls} ControlNets")
        net = self.network
        return [
            one.to(net.device, torch.float32) if isinstance(one, Tensor) else float(one)
            for one in chosen
        ]


def _checked(
    device: str, dtype: str, backend: str, threads: int | None, text_encoder: str
) -> tuple[torch.device, torch.dtype]:
    if backend not in ("auto", "torch"):
        raise ValueError(
            f"published checkpoints run on the torch backend, not on {backend!r}"
            + ("" if backend == "openvino" else "; known are auto, openvino, torch")
        )
    if dtype != "auto" and dtype not in DTYPES:
        raise ValueError(f"unknown dtype {dtype!r}; known are auto, {', '.join(DTYPES)}")
    if threads is not None and threads < 1:
        raise ValueError(f"threads must be at least 1, not {threads}")
    if text_encoder not in ("auto", "keep", "release"):
        raise ValueError(f"unknown text_encoder {text_encoder!r}; known are auto, keep, release")
    place = place_of(device)
    if dtype == "auto":
        return place, torch.float16 if place.type == "cuda" else torch.float32
    return place, DTYPES[dtype]


def _listed(control: str | Path | Sequence[str | Path] | None) -> list[str | Path]:
    if control is None:
        return []
    return [control] if isinstance(control, str | Path) else list(control)
