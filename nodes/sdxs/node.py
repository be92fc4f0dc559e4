"""The `sdxs` node: every picture through one step of an image-conditioned diffusion model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import streamer
from nodes.sdxs import device, loading
from nodes.sdxs.arriving import Arriving
from nodes.sdxs.params import LoraParams, SdxsParams
from nodes.sdxs.stages import Stages

if TYPE_CHECKING:
    from nodes.sdxs.engine import OneStep

__all__ = ["LoraParams", "Sdxs", "SdxsParams"]


class Sdxs(streamer.Transform[SdxsParams]):
    """Restyles pictures with SDXS, a one-step image-conditioned diffusion model."""

    Params = SdxsParams
    memory = ("cuda", "host")

    _coming: Arriving | None = None
    """the first model, until it is taken"""

    def open(self) -> None:
        """Loads the model, or begins to, where pictures pass meanwhile."""
        self._size = self._seen = (0, 0)
        self._spoiled = self._late = self._halvings = 0
        self._ahead_params = self.params
        if not self._passes():
            stages = Stages(self.context.note)
            # What its first picture waits for, nobody would have any sooner by doing it here.
            self._ahead = self._loaded(self.params, stages)
            stages.end()
            self._begin(self._ahead)
            return
        loading.check(self.params)
        self.context.warming(True)
        self._coming = Arriving(
            self._load_beside,
            name=f"{self.context.name}-loads",
            told=lambda: self.context.call(self._arrive),
        )

    def prepare(self, params: SdxsParams) -> OneStep:
        """Loads another model beside the present one, or embeds another prompt.

        A model with another ControlNet, adapter or decoder is another model. It has painted a
        picture of the size that comes before it is taken. While the first model loads, this waits
        for it.

        Returns:
            The engine that paints with these parameters.

        Raises:
            ParameterError: They cannot be taken; what was loaded for them is given back.
            NodeError: The first model has not come.
        """
        coming = self._coming
        if coming is not None and not coming.wait():
            raise streamer.NodeError(f"the model {self._ahead_params.model} could not be loaded")
        # Not `self.params`: changes before this one may have been prepared and not yet taken.
        if loading.differ(params, self._ahead_params):
            self._ahead = self._switched(params)
        else:
            loading.embed(self._ahead, params)
        self._ahead_params = params
        return self._ahead

    def update(self, params: SdxsParams, prepared: OneStep) -> None:
        """Takes another prompt, scale, seed or model."""
        self._arrive()
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
        stages = Stages(self.context.note)
        try:
            engine = self._loaded(params, stages)
            if self._seen != (0, 0):
                stages.first_picture(*self._seen)
                loading.try_out(engine, params, *self._seen)
            return engine
        finally:
            stages.end()

    def _loaded(self, params: SdxsParams, stages: Stages) -> OneStep:
        stages(f"loading the model {params.model}", of=1)
        context = self.context
        engine = loading.load(
            params, gpu=context.gpu, log=context.log, alive=context.alive, note=stages
        )
        loading.adjust(engine, params)
        return engine

    def _passes(self) -> bool:
        """Whether pictures pass while the model loads."""
        context, choice = self.context, self.params.loading
        if choice == "auto":
            # After a crash styled pictures have been seen: the raw one is not to be seen then.
            return context.live and context.newest and context.incarnation == 1
        return choice == "pass"

    def _load_beside(self, coming: Arriving) -> OneStep:
        """In a thread of its own."""
        params = self._ahead_params
        stages = Stages(self.context.note, abandoned=coming.abandoned)
        engine = self._loaded(params, stages)
        self._warm_up(engine, stages)
        stages.end()
        self._ahead = engine  # for `prepare`, before which this ends
        return engine

    def _warm_up(self, engine: OneStep, stages: Stages) -> None:
        """Has the first model do what its first picture would wait for, while others pass."""
        size = self._seen
        known = size != (0, 0)
        if not known:
            if not engine.device.startswith("cuda"):
                return  # a CPU loads no kernels, and what it prepares is good for one size alone
            size = engine.native_size
        stages.first_picture(*size)
        try:
            loading.rehearse(engine, self._ahead_params, *size)
        except ArithmeticError:
            pass  # the pictures themselves will tell
        except streamer.NodeError:
            if known:
                raise

    def _arrive(self) -> None:
        """Takes the first model if it has come; in the node's thread."""
        coming = self._coming
        if coming is not None and coming.over:
            engine = coming.take()
            self._coming = None
            self._begin(engine)

    def _begin(self, engine: OneStep) -> None:
        from nodes.sdxs.steady import Steady

        self._steady = Steady(engine)
        self._set(self.params)
        self.context.warming(False)

    def _set(self, p: SdxsParams) -> None:
        steady = self._steady
        steady.feedback, steady.similar, steady.drift = p.feedback, p.similar, p.drift
        steady.smaller = p.smaller
        loading.adjust(steady.engine, p)

    def close(self) -> None:
        """Lets go of the model, which other nodes of this worker may go on with."""
        coming, self._coming = self._coming, None
        if coming is not None and (thread := coming.abandon()) is not None:
            self.context.leave(thread)
        if "_steady" in self.__dict__:  # else it was never there
            loading.tell(self._steady.engine, self.context.log)
            del self._steady
        self.__dict__.pop("_ahead", None)

    def process(self, frame: streamer.Frame) -> streamer.Frame:
        """One picture in, one of the same size out, straight into the output slot."""
        size = self._seen = (frame.width, frame.height)
        self._arrive()
        if self._coming is not None:
            return self.context.pass_on(frame)
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
