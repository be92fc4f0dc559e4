"""Plays pictures to a live output as the runtime does: at their pace, with idle calls between."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
from encoder_media import MILLI, frames

from nodes.encoder import Encoder
from streamer import Drop
from streamer.testing import SoloContext, solo

GUARD = 40.0
"""seconds after which a test that waits for something fails"""


class Stage:
    """An encoder, and a camera that shows it pictures at 25 a second."""

    def __init__(self, url: str, *, live: bool = True, step: float = 0.04, **params) -> None:
        self.context = SoloContext(live=live)
        self.encoder = solo(Encoder, context=self.context, url=url, **params)
        self.shown = 0
        self._step = step
        self._clock = frames(range(0, 40 * 100_000, 40), time_base=MILLI)
        self._began = time.monotonic()

    @property
    def statuses(self) -> list[str]:
        """What was told, without repetitions."""
        told = [str(status) for status, _ in self.context.statuses]
        return [s for n, s in enumerate(told) if n == 0 or told[n - 1] != s]

    @property
    def sent(self) -> int:
        return len(self.context.sent)

    @property
    def lost(self) -> int:
        return self.context.dropped[Drop.DISCONNECTED]

    def play(self, condition: Callable[[], object]) -> None:
        """Shows pictures until a condition holds."""
        for _ in self._turns(condition):
            with next(self._clock) as frame:
                self.encoder.process(frame)
            self.shown += 1
            self._idle(time.monotonic() + self._step)

    def pause(self, condition: Callable[[], object]) -> None:
        """Shows nothing until a condition holds; the camera's clock goes on."""
        began = time.monotonic()
        for _ in self._turns(condition):
            self._idle(time.monotonic() + self._step)
        for _ in range(int((time.monotonic() - began) / 0.04)):
            next(self._clock)

    def end(self) -> None:
        """Ends the stream; all that was shown must have been counted."""
        self.encoder.finish()
        self.encoder.close()
        assert self.shown == self.sent + sum(self.context.dropped.values())

    def _turns(self, condition: Callable[[], object]) -> Iterator[None]:
        end = time.monotonic() + GUARD
        while not condition():
            if time.monotonic() > end:
                self.encoder.close()
                pytest.fail(f"still waiting, with {self.context.statuses[-5:]}")
            yield

    def _idle(self, until: float) -> None:
        while (left := until - time.monotonic()) > 0:
            again = self.encoder.idle()
            time.sleep(max(0.0, min(left, again if again is not None else left)))
