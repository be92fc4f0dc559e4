"""The `sdxs` node: every picture through one step of an image-conditioned diffusion model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import streamer
from nodes.sdxs import device, loading
from nodes.sdxs.params import LoraParams, SdxsParams

if TYPE_CHECKING:
    from nodes.sdxs.engine import OneStep

__all__ = ["LoraParams", "Sdxs", "SdxsParams"]


class Sdxs(streamer.Transform[SdxsParams]):
    """Restyles pictures with SDXS, a one-step image-conditioned diffusion model."""

    Params = SdxsParams
    memory = ("cuda", "host")

    def open(self) -> None:
        """Loads the model."""
        from nodes.sdxs.steady import Steady

        self._ahead = self._loaded(self.params)
        self._ahead_params = self.params
        loading.adjust(self._ahead, self.params)
        self._steady = Steady(self._ahead)
        self._set(self.params)
        self._size = self._seen = (0, 0)
        self._spoiled = self._late = self._halvings = 0

    def prepare(self, params: SdxsParams) -> OneStep:
        """Loads another model beside the present one, or embeds another prompt.

        A model with another ControlNet, adapter or decoder is another model. It has painted a
        picture of the size that comes before it is taken.

        Returns:
            The engine that paints with these parameters.

        Raises:
            ParameterError: They cannot be taken; what was loaded for them is given back.
        """
        # Not `self.params`: changes before this one may have been prepared and not yet taken.
        if loading.differ(params, self._ahead_params):
            self._ahead = self._switched(params)
        else:
            loading.embed(self._ahead, params)
        self._ahead_params = params
        return self._ahead

    def update(self, params: SdxsParams, prepared: OneStep) -> None:
        """Takes another prompt, scale, seed or model."""
        super().update(params, prepared)
        if prepared is not self._steady.engine:
            loading.tell(self._steady.engine, self.context.log)
            # In a list, so that nothing here holds it any longer.
            former = [self._steady.engine]
            self._steady.take(prepared)
            self._size, self._halvings = (0, 0), 0
            loading.free(former)
        self._set(params)

    def _switched(self, params: SdxsParams) -> OneStep:
        refusal = ""
        try:
            return self._tried(params)
        except streamer.StreamerError as error:
            refusal = str(error)
        # Only now, with its traceback, has the error let go of what was loaded.
        loading.give_back()
        raise streamer.ParameterError(
            f"{refusal.removesuffix('.')}; the model {self._ahead_params.model} goes on"
        )

    def _tried(self, params: SdxsParams) -> OneStep:
        engine = self._loaded(params)
        loading.adjust(engine, params)
        if self._seen != (0, 0):
            loading.try_out(engine, params, *self._seen)
        return engine

    def _loaded(self, params: SdxsParams) -> OneStep:
        self.context.note(f"loading the model {params.model}")
        context = self.context
        return loading.load(
            params, gpu=context.gpu, log=context.log, alive=context.alive, note=context.note
        )

    def _set(self, p: SdxsParams) -> None:
        steady = self._steady
        steady.feedback, steady.similar, steady.drift = p.feedback, p.similar, p.drift
        steady.smaller = p.smaller
        loading.adjust(steady.engine, p)

    def close(self) -> None:
        """Lets go of the model, which other nodes of this worker may go on with."""
        if "_steady" in self.__dict__:  # else it was never there
            loading.tell(self._steady.engine, self.context.log)
            del self._steady
        self.__dict__.pop("_ahead", None)

    def process(self, frame: streamer.Frame) -> streamer.Frame:
        """One picture in, one of the same size out, straight into the output slot."""
        size = self._seen = (frame.width, frame.height)
        if size != self._size:
            loading.check_size(self._steady.engine, *size)
            self._size = size
        out = self.context.allocate(*size, like=frame.header)
        try:
            outcome = device.paint(self._steady, frame, out)
        except ArithmeticError as error:
            out.release()
            raise streamer.FrameError(f"{error}, and there is no good picture yet") from None
        except MemoryError as error:
            out.release()
            raise streamer.NodeError(f"{error}; give the node smaller pictures") from None
        if self._steady.halvings != self._halvings:
            self._halvings = self._steady.halvings
            self.context.log.warning(
                "memory has run out: pictures are painted at 1/%d of their sides from now on",
                2**self._halvings,
            )
        if outcome.name != "PAINTED":
            self.context.repeated(spoiled=outcome.name == "SPOILED")
        if outcome.name == "SPOILED":
            self._count_spoiled(1)
        late, self._late = self._steady.spoiled - self._late, self._steady.spoiled
        for _ in range(late):
            self.context.repeated(spoiled=True)
        self._count_spoiled(late)
        return out

    def _count_spoiled(self, count: int) -> None:
        before = self._spoiled
        self._spoiled += count
        if self._spoiled.bit_length() > before.bit_length():  # the 1st, 2nd, 4th, 8th ...
            self.context.log.warning(
                "%s; the last good picture is shown (%d times so far)",
                self._steady.trouble,
                self._spoiled,
            )
