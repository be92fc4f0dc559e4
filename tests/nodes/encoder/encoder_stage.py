"""Plays pictures to a live output as the runtime does: at their pace, with idle calls between."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
from encoder_media import MILLI, announced, frames
from encoder_sound import LENGTH, compressed

from nodes.encoder import Encoder
from streamer import Drop
from streamer.testing import SoloContext, solo

GUARD = 40.0
"""seconds after which a test that waits for something fails"""


class Stage:
    """An encoder, and a camera that shows it pictures at 25 a second."""

    def __init__(
        self,
        url: str,
        *,
        live: bool = True,
        alone: bool = True,
        step: float = 0.04,
        sound: bool = False,
        noise: tuple[int, int] | None = None,
        **params,
    ) -> None:
        self.context = SoloContext(live=live, alone=alone)
        self.encoder = solo(Encoder, context=self.context, url=url, **params)
        self.shown = 0
        self._step = step
        self.clock = frames(range(0, 40 * 100_000, 40), time_base=MILLI, size=noise or (160, 96))
        self._noise = np.random.default_rng(1) if noise else None
        self._packets = compressed("aac", "mp4") if sound else []
        if sound:
            self.encoder.audio(announced(self._packets[0].audio))

    @property
    def statuses(self) -> list[str]:
        """What was told, without repetitions."""
        return _each_once([str(status) for status, _ in self.context.statuses])

    @property
    def course(self) -> list[str]:
        """The same without stalls: any machine may stand still for a moment."""
        return _each_once([status for status in self.statuses if status != "stalled"])

    @property
    def sent(self) -> int:
        return len(self.context.sent)

    @property
    def lost(self) -> int:
        return self.context.dropped[Drop.DISCONNECTED]

    def play(self, condition: Callable[[], object]) -> None:
        """Shows pictures until a condition holds."""
        for _ in self._turns(condition):
            with next(self.clock) as frame:
                self._hear(frame.header.time)
                if self._noise is not None:
                    shape = frame.numpy().shape
                    frame.numpy()[:] = self._noise.integers(0, 255, shape, dtype=np.uint8)
                self.encoder.process(frame)
            self.shown += 1
            self._idle(time.monotonic() + self._step)

    def pause(self, condition: Callable[[], object]) -> None:
        """Shows nothing until a condition holds; the camera's clock goes on."""
        began = time.monotonic()
        for _ in self._turns(condition):
            self._idle(time.monotonic() + self._step)
        for _ in range(int((time.monotonic() - began) / 0.04)):
            next(self.clock)

    def end(self) -> None:
        """Ends the stream; all that was shown must have been counted."""
        self.encoder.finish()
        self.encoder.close()
        assert self.shown == self.sent + sum(self.context.dropped.values())

    def _hear(self, until: float) -> None:
        """Plays the sound up to a time, over and over."""
        while self._packets and self._packets[0].pts * self._packets[0].time_base <= until:
            packet = self._packets.pop(0)
            self.encoder.audio(packet)
            again = replace(packet, pts=packet.pts + int(LENGTH / packet.time_base))
            self._packets.append(again)

    def _turns(self, condition: Callable[[], object]) -> Iterator[None]:
        end = time.monotonic() + GUARD
        while not condition():
            if time.monotonic() > end:
                pytest.fail(f"still waiting, with {self.context.statuses[-5:]}")
            yield

    def _idle(self, until: float) -> None:
        while (left := until - time.monotonic()) > 0:
            again = self.encoder.idle()
            time.sleep(max(0.0, min(left, again if again is not None else left)))


def _each_once(told: list[str]) -> list[str]:
    return [one for number, one in enumerate(told) if not number or told[number - 1] != one]


@contextmanager
def closing() -> Iterator[Callable[..., Stage]]:
    """Makes stages that are closed in the end, also those of tests that failed."""
    made: list[Stage] = []

    def make(*arguments, **options) -> Stage:
        made.append(Stage(*arguments, **options))
        return made[-1]

    try:
        yield make
    finally:
        for stage in made:
            stage.encoder.close()
