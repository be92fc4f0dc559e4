"""Brings pictures and sound into the order of their times, each waiting for the other in bounds."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, Final, NamedTuple

VIDEO: Final = 0
SOUND: Final = 1
_LONGEST_SOUND: Final = 60
"""seconds of sound that are kept for pictures that do not come"""


class Due(NamedTuple):
    """A packet that is to be written.

    Attributes:
        stream: `VIDEO` or `SOUND`.
        packet: of FFmpeg.
        at: its decoding time in seconds.
        until: of the last picture: seconds at which the film ends.
    """

    stream: int
    packet: Any
    at: Fraction
    until: Fraction | None = None


class Interleaver:
    """For files: everything in order, as long as neither stream is far behind.

    An encoder that looks ahead gives pictures late, so sound waits for them; sound that stops must
    not hold up pictures for long, since what waits here is lost by a sudden death.

    Args:
        sound: whether there is a stream of sound.
        patience: seconds of pictures that wait for sound.
    """

    def __init__(self, *, sound: bool, patience: Fraction) -> None:
        self._patience = patience if sound else Fraction(0)
        self._queues: tuple[deque[Due], deque[Due]] = (deque(), deque())

    def put(self, due: Due) -> Iterator[Due]:
        """Takes a packet, and yields those that are due."""
        self._queues[due.stream].append(due)
        return self._due()

    def flush(self) -> Iterator[Due]:
        """Yields the rest, in order."""
        video, sound = self._queues
        while video or sound:
            yield self._first().popleft()

    def _due(self) -> Iterator[Due]:
        video, sound = self._queues
        while video or sound:
            if (video and sound) or _spans(video, self._patience, inclusive=not self._patience):
                yield self._first().popleft()
            elif _spans(sound, Fraction(_LONGEST_SOUND)):
                yield sound.popleft()
            else:
                return

    def _first(self) -> deque[Due]:
        video, sound = self._queues
        if not video or (sound and sound[0].at <= video[0].at):
            return sound
        return video


def _spans(queue: deque[Due], seconds: Fraction, *, inclusive: bool = False) -> bool:
    if not queue:
        return False
    return inclusive or queue[-1].at - queue[0].at > seconds


class SoundGate:
    """For live outputs: pictures pass at once, sound when its picture is there.

    Sound takes no detour through a model and comes before its picture. It is let out a little
    early, so that no muxer and no player holds a picture back for want of sound; but no more than
    that, since players would have to store it.

    Args:
        lead: seconds that sound may be ahead of the newest picture.
        patience: seconds of waiting time after which it goes without its picture; None: never.
    """

    def __init__(self, *, lead: Fraction, patience: float | None) -> None:
        self._lead, self._patience = lead, patience
        self._waiting: deque[tuple[Due, float]] = deque()

    def put(self, packet: Any, at: Fraction, now: float) -> None:
        """Takes a packet of sound that is heard from `at` seconds on."""
        self._waiting.append((Due(SOUND, packet, at), now))

    def due(self, shown: Fraction, now: float) -> Iterator[Due]:
        """Yields what may be sent.

        Args:
            shown: seconds of the newest picture that was sent.
            now: seconds on the clock of `put`.
        """
        while self._waiting:
            first, since = self._waiting[0]
            late = self._patience is not None and now - since > self._patience
            if first.at > shown + self._lead and not late:
                return
            yield self._waiting.popleft()[0]

    def flush(self) -> Iterator[Due]:
        """Yields the rest."""
        while self._waiting:
            yield self._waiting.popleft()[0]
