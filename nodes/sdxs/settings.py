"""The settings of a one-step engine: what can change between any two pictures."""

from __future__ import annotations

import copy
import operator
from abc import ABC, abstractmethod
from typing import Any, Final, Self

from nodes.sdxs import blending, seeds
from nodes.sdxs.jobs import Settings
from nodes.sdxs.noise import Noises

STRONGEST_HOLD: Final = 2.0


class Adjustable(ABC):
    """Prompt, scale and noise, each checked when it is set; `snapshot` is what holds now."""

    def __init__(self) -> None:
        self._prompt = ""
        self._scale = 1.0
        self._seed = 0
        self._seeds: str | None = None
        self._blend = "linear"
        self._turn = 0.0
        self._noises = Noises()
        self._snapshot: Settings | None = None

    def snapshot(self) -> Settings:
        """The settings of this moment, which later changes leave as they are.

        The same object until a setting changes, so that what was made for it can be kept.
        """
        if self._snapshot is None:
            self._snapshot = Settings(self._embedded(), self._scale, self._noises.snapshot())
        return self._snapshot

    def sibling(self) -> Self:
        """The same loaded model with settings of its own, for another video; takes no memory.

        It begins with the settings of this moment. All siblings together serve one thread at a
        time; settings may be changed, and snapshots taken, while another one paints.
        """
        made = copy.copy(self)
        made._noises = self._noises.snapshot()
        return made

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
        self._snapshot = None

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
        self._snapshot = None

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

    def _take_noise(self) -> None:
        parts = ((self._seed, 1.0),) if self._seeds is None else seeds.parse(self._seeds)
        self._noises.take(parts, blend=self._blend, turn=self._turn)
        self._snapshot = None

    @abstractmethod
    def _take_prompt(self, prompt: str) -> None:
        """Gets ready for a prompt as `blend` says; raises ValueError, changing nothing, if not."""

    @abstractmethod
    def _embedded(self) -> Any:
        """What the prompt comes to, as `_take_prompt` has left it; nobody writes to it."""


def _number(name: str, value: float) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be a number, not {value!r}") from None
