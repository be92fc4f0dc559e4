"""Pictures through the networks, several in one pass, each by settings of its own."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from nodes.sdxs.checkpoint.buffers import StaticInputs, Values
from nodes.sdxs.checkpoint.capture import Direct, Recorder, Recording
from nodes.sdxs.checkpoint.captures import Captures
from nodes.sdxs.checkpoint.compiled import compiled
from nodes.sdxs.checkpoint.network import Condition, Network
from nodes.sdxs.checkpoint.onepass import Extract, Inputs, Outputs, join, paint
from nodes.sdxs.checkpoint.uploads import Uploads
from nodes.sdxs.jobs import Settings
from nodes.sdxs.noise import Noises

if TYPE_CHECKING:
    from nodes.sdxs.stages import Note

Signature = tuple[int, int, int]
"""How many pictures, their height and width: a recording is made for each."""


@dataclass(frozen=True, slots=True)
class Part:
    """One picture of a pass.

    Attributes:
        settings: Which `embedding` is a `Prompted`.
        image: uint8 H × W × 3, on any device.
        past: Latents of the picture before, float32 1 × 4 × h × w, or None; of another size, they
            are left out.
        share: Of the past, 0 to 1.
    """

    settings: Settings
    image: Tensor
    past: Tensor | None = None
    share: float = 0.0


class Captured:
    """A recorded pass with its inputs."""

    def __init__(
        self, inputs: StaticInputs, recording: Recording[Outputs], device: torch.device
    ) -> None:
        self.inputs = inputs
        self.recording = recording
        self._device = device
        self._used: Any = None

    def run(self, pictures: Sequence[Values]) -> Outputs:
        """Paints; the result holds until the next call."""
        self.inputs.fill(pictures)
        self.recording.replay()
        if self._device.type == "cuda":
            cuda: Any = torch.cuda
            self._used = self._used or cuda.Event()
            self._used.record(torch.cuda.current_stream(self._device))
        return self.recording.outputs

    def retire(self) -> None:
        """See `captures.Entry`."""
        if self._used is not None:
            self._used.synchronize()


class Painter:
    """The networks of a model, for pictures of any size; for one thread at a time.

    Pictures of a size that is new are painted by running the networks as they stand, and by the
    recording from the moment that it is there.

    Args:
        network: Of the model.
        recorder: Records passes; None for none.
        compile: Whether to compile the networks, for each size and in the background.
        log: Receives warnings.
        note: Told what is being done in the background.

    Attributes:
        network: See above.
        compiler: Makes a compiled network of one.
    """

    def __init__(
        self,
        network: Network,
        *,
        recorder: Recorder | None = None,
        compile: bool = False,
        log: logging.Logger | None = None,
        note: Note | None = None,
    ) -> None:
        self.network = network
        self._note = note or _silent
        self._recorder = recorder
        self._compile = compile
        self.compiler: Callable[[Network], Network] = compiled
        self._extract: Extract | None = None
        self._fast: Network | None = None
        self._uploads = Uploads(network.device)
        self._stream: Any = None
        self.captures: Captures[Signature, Captured] = Captures(
            partial(_named, compile=compile), log=log
        )

    @property
    def extract(self) -> Extract | None:
        """See `onepass.paint`; setting it lets go of what was recorded with the former."""
        return self._extract

    @extract.setter
    def extract(self, extract: Extract | None) -> None:
        self._extract = extract
        self.captures.clear()

    @property
    def recorder(self) -> Recorder | None:
        """What records passes; setting it lets go of what was recorded."""
        return self._recorder

    @recorder.setter
    def recorder(self, recorder: Recorder | None) -> None:
        self._recorder = recorder
        self.captures.clear()

    def close(self) -> None:
        """Waits for what is under way, so that the memory can be given to others."""
        if self._stream is not None:
            # First, since copies of a recording's results may be under way.
            self._stream.synchronize()
        self.captures.close()

    def __del__(self) -> None:
        # The memory of the weights is another's once they are let go of.
        stream = getattr(self, "_stream", None)
        if stream is not None and not sys.is_finalizing():
            stream.synchronize()

    def save_memory(self) -> None:
        """Lets go of all recordings, and makes none any more: they keep a picture's memory each."""
        if self.captures.keys:
            self.captures.log.warning("memory is short: pictures go on without being captured")
            self.captures.stop()

    def noise(self, noises: Noises, width: int, height: int) -> Tensor:
        """The noise for pictures of a size in pixels, float32 1 × 4 × h × w on the device."""
        shrink = self.network.shrink
        shape = (1, self.network.latent_channels, height // shrink, width // shrink)
        return self._uploads.of(noises.of(shape, self.draw))

    def draw(self, seed: int, shape: tuple[int, ...]) -> Tensor:
        """The noise of a seed: drawn on the CPU, so that a seed means the same everywhere."""
        return torch.randn(shape, generator=torch.Generator().manual_seed(seed))

    @torch.inference_mode()
    def paint(self, parts: Sequence[Part]) -> Outputs:
        """Paints pictures of one size in one pass, on the current stream.

        Returns:
            Tensors that hold until the next call.
        """
        height, width = parts[0].image.shape[:2]
        if self.network.device.type == "cuda":
            self._follow()
        pictures = [self._values(one, width, height) for one in parts]
        if self._recorder is not None or self._compile:
            key = (len(parts), height, width)
            found = self.captures.get(key, partial(self._capture, key, pictures[0].condition))
            if found is not None:
                return found.run(pictures)
        return paint(self.network, self._inputs(pictures), extract=self._extract)

    def await_capture(self, parts: int, height: int, width: int) -> None:
        """Waits for the recording of a pass that was painted, if one is being made."""
        if self._recorder is not None and not self._compile:  # which may take minutes
            self.captures.wait((parts, height, width))

    def _follow(self) -> None:
        """Orders this thread's stream behind the one that painted before it: memory is shared."""
        stream = torch.cuda.current_stream(self.network.device)
        if self._stream is not None and stream != self._stream:
            stream.wait_stream(self._stream)
        self._stream = stream

    def _values(self, part: Part, width: int, height: int) -> Values:
        settings = part.settings
        noise = self.noise(settings.noise, width, height)
        past = part.past if part.past is not None and part.past.shape == noise.shape else None
        return Values(
            image=part.image,
            noise=noise,
            condition=settings.embedding.condition(self.network, width, height),
            scale=settings.conditioning_scale,
            past=past,
            share=part.share,
        )

    def _inputs(self, pictures: Sequence[Values]) -> Inputs:
        device = self.network.device
        scales = [one.scale for one in pictures]
        shares = [0.0 if one.past is None else one.share for one in pictures]
        noises = [one.noise for one in pictures]
        same = all(one is noises[0] for one in noises)
        steered = bool(self.network.controls) and any(scales)
        return Inputs(
            image=_stacked([one.image.to(device) for one in pictures]) if steered else None,
            noise=noises[0].expand(len(noises), -1, -1, -1) if same else torch.cat(noises),
            condition=join([one.condition for one in pictures]),
            scale=self._column(scales),
            past=torch.cat(
                [torch.zeros_like(one.noise) if one.past is None else one.past for one in pictures]
            )
            if any(shares)
            else None,
            share=self._column(shares),
        )

    def _column(self, numbers: Sequence[float]) -> Tensor:
        """Numbers as float32 N × 1 × 1 × 1; the device fills them in, and nobody waits for it."""
        device = self.network.device
        return torch.cat([torch.full((1, 1, 1, 1), one, device=device) for one in numbers])

    @torch.inference_mode()
    def _capture(self, key: Signature, like: Condition) -> Captured:
        """Records a pass; in a thread of its own."""
        count, height, width = key
        network = self.network
        self._note(f"{'compiling' if self._compile else 'capturing'} pictures of {width}x{height}")
        try:
            inputs = StaticInputs(network, count=count, height=height, width=width, like=like)
            if self._compile:
                network = self._fast = self._fast or self.compiler(network)
            recorder: Recorder = self._recorder or Direct
            recording = recorder(
                lambda: paint(network, inputs.inputs, extract=self._extract), network.device
            )
        finally:
            self._note("")
        return Captured(inputs, recording, network.device)


def _silent(text: str, *, done: int = 0, of: int = 0) -> None:
    """Nobody is told."""


def _named(key: Signature, *, compile: bool) -> str:
    # Not a method: a painter that its own recordings hold would wait for the garbage collector.
    count, height, width = key
    what = "compiled" if compile else "captured"
    several = f"{count} pictures" if count > 1 else "a picture"
    return f"{several} of {width}x{height} cannot be {what}"


def _stacked(images: list[Tensor]) -> Tensor:
    return images[0][None] if len(images) == 1 else torch.stack(images)
