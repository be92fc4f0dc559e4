"""Times of a source counted from zero, never going back, across loops, breaks and broken clocks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from nodes.decoder.envelope import Envelope

_BACK: Final = Fraction(1, 2)
"""Seconds by which a clock may go back and count as jitter; beyond that it was set anew."""
_AHEAD: Final = 10
"""Seconds by which the clock of a broadcast may jump ahead, as in FFmpeg's own tools."""
_PAUSE: Final = 1
"""Seconds without anything that count as a pause of the source, not as unsteady arrival."""
_WRAP: Final = 1 << 33
_WRAP_BASE: Final = Fraction(1, 90000)
"""Clocks of MPEG transport streams have 33 bits (ISO/IEC 13818-1, 2.4.3.7): 26.5 hours."""
_NS: Final = 1_000_000_000


@dataclass(slots=True)
class Seen:
    """A packet of a new connection, before anything of it is shown.

    Attributes:
        picture: whether it is of the picture, not of the sound.
        time: the stream's own time in seconds.
        arrival_ns: CLOCK_MONOTONIC.
    """

    picture: bool
    time: Fraction
    arrival_ns: int


@dataclass(slots=True)
class _Track:
    """What was last of the picture or of the sound."""

    last: Fraction | None = None
    step: Fraction = Fraction(0)
    arrival_ns: int = 0
    own: int | None = None
    turns: int = 0
    fresh: bool = True


class Timeline:
    """Turns a stream's own times into presentation times.

    Times pass through unchanged but for one shift, common to picture and sound, that lets the
    source begin at zero. Where a picture has no time, it gets one from the frame rate or, of a
    live source, from its arrival. Two pictures never have the same time. A clock that is set anew
    changes the shift, so that time goes on where it stood; one that only wraps loses nothing.

    Args:
        start: seconds of the source's own time at which it begins; the first time seen if None.
        live: whether arrival tells the time where the source does not.
        broadcast: whether the format's times may jump ahead without a pause being meant.
        mended: called for each time that was put right.
    """

    def __init__(
        self,
        *,
        start: Fraction | None,
        live: bool,
        broadcast: bool,
        mended: Callable[[], None] = lambda: None,
    ) -> None:
        self._start = start
        self._shift: Fraction | None = None if start is None else -start
        self._former: Fraction | None = None
        self._live = live
        self._broadcast = broadcast
        self._mended = mended
        self._picture, self._sound = _Track(), _Track()
        self._soonest = Envelope(-1)
        self._ahead = 0.0
        self.end = Fraction(0)
        """seconds at which the last thing that was shown or heard ends"""

    def picture(self, pts: int | None, time_base: Fraction, step: Fraction, arrival_ns: int) -> int:
        """Presentation time of the next picture, in units of `time_base`.

        Args:
            pts: the stream's own time, in units of `time_base`; None if it has none.
            time_base: seconds.
            step: how long the picture is shown, in seconds.
            arrival_ns: when it was read, CLOCK_MONOTONIC.
        """
        track = self._picture
        if pts is None:
            time = self._guess(track, arrival_ns, time_base)
        else:
            pts, turned = self._unwrapped(track, pts, time_base)
            if turned:
                self._mended()
            shift = self._shift_for(track, pts * time_base, step, arrival_ns)
            time = pts + round(shift / time_base)
        if track.last is not None and time * time_base <= track.last:
            time = int(track.last / time_base) + 1
            if pts is not None:
                self._mended()
        moment = time * time_base
        track.last, track.step, track.arrival_ns = moment, step, arrival_ns
        self.end = max(self.end, moment + step)
        if self._live:
            arrival = arrival_ns / _NS
            self._soonest.add(arrival - float(moment), arrival)
        return time

    def sound(
        self, pts: int | None, time_base: Fraction, duration: int, arrival_ns: int = 0
    ) -> int | None:
        """Presentation time of the next audio packet; None if it would go back and must be left.

        Args:
            pts: the stream's own time, in units of `time_base`.
            time_base: seconds.
            duration: in units of `time_base`.
            arrival_ns: when it was read, CLOCK_MONOTONIC.
        """
        track = self._sound
        last = None if track.last is None else round(track.last / time_base)
        if pts is None:
            if last is None:
                return None
            time = last + max(1, duration)
        else:
            pts, _ = self._unwrapped(track, pts, time_base)
            shift = self._shift_for(track, pts * time_base, track.step, arrival_ns)
            time = pts + round(shift / time_base)
        if last is not None and time <= last:
            if last - time > max(1, duration):
                return None
            time = last + 1
            self._mended()
        track.last, track.arrival_ns = time * time_base, arrival_ns
        track.step = duration * time_base
        self.end = max(self.end, track.last + track.step)
        return time

    def again(self, start: Fraction | None) -> None:
        """The source begins anew (a loop): its time `start` is now the end of what was played."""
        if start is None:
            raise ValueError("a source without times cannot be looped")
        self._begin(start, self.end - start)

    def resume(self, start: Fraction | None, seen: Sequence[Seen]) -> None:
        """The source was connected anew: time has gone on while it was away.

        How far arrivals lag behind presentation times stays what it was, as near as the first
        packets tell; but nothing is shown twice at one time, so after a short break with old
        packets in it time runs ahead a little, until the next break makes up for that.

        Args:
            start: seconds of the source's own time at which it begins; None if it does not say.
            seen: the first packets, from the first one on that will be shown.
        """
        lag = self._soonest.value
        if not seen or lag is None:
            first = min((one.time for one in seen), default=start)
            self._begin(start, None if first is None else self.end - first)
            return
        soonest = min(one.arrival_ns / _NS - float(one.time) for one in seen)
        wanted = Fraction(round((soonest - lag - self._ahead) * 10**6), 10**6)
        shift = wanted
        for track, is_picture in ((self._picture, True), (self._sound, False)):
            first = min((one.time for one in seen if one.picture is is_picture), default=None)
            if first is not None and track.last is not None:
                shift = max(shift, track.last + max(track.step, Fraction(1, 1000)) - first)
        self._ahead = float(shift - wanted)
        self._begin(start, shift)

    def _begin(self, start: Fraction | None, shift: Fraction | None) -> None:
        self._start, self._shift, self._former = start, shift, None
        for track in (self._picture, self._sound):
            track.own, track.turns, track.fresh = None, 0, True

    def _guess(self, track: _Track, arrival_ns: int, time_base: Fraction) -> int:
        fresh, track.fresh = track.fresh, False
        if fresh and self._start is not None and self._shift is not None:
            # Only the first picture of an RTSP session comes without a time.
            return max(round((self._start + self._shift) / time_base), 0)
        if track.last is None:
            return round(self.end / time_base)
        passed = track.step
        if self._live and not fresh:
            passed = Fraction(arrival_ns - track.arrival_ns, _NS)
        return round((track.last + passed) / time_base)

    def _unwrapped(self, track: _Track, pts: int, time_base: Fraction) -> tuple[int, bool]:
        """A time of more than 33 bits, and whether the clock has just wrapped."""
        turned = False
        if self._broadcast and time_base == _WRAP_BASE:
            if track.own is not None:
                turns = round(Fraction(track.own - pts, _WRAP))
                if abs(pts + turns * _WRAP - track.own) * time_base <= _AHEAD:
                    turned, track.turns = turns != track.turns, turns
            pts += track.turns * _WRAP
            track.own = pts
        return pts, turned

    def _shift_for(self, track: _Track, own: Fraction, step: Fraction, arrival_ns: int) -> Fraction:
        """The shift that fits a time: the present one, the one before it, or a new one."""
        if self._shift is None:
            self._shift = self.end - own if track.last is not None else -own
        last, fresh = track.last, track.fresh
        track.fresh = False
        if last is None or (track is self._sound and not self._broadcast):
            return self._shift
        waited = Fraction(0)
        if self._live and arrival_ns:
            waited = max(waited, Fraction(arrival_ns - track.arrival_ns, _NS))
        ahead = own + self._shift - last
        # After a break there is no telling how far ahead is too far.
        if ahead >= -_BACK if fresh else self._fits(ahead, waited):
            return self._shift
        if self._former is not None and self._fits(own + self._former - last, waited):
            # Where a clock is set anew, packets of the other kind still come with the old one.
            self._shift, self._former = self._former, self._shift
            return self._shift
        # The clock was set anew: time goes on where it stood.
        self._former = self._shift
        self._shift = last + (waited if waited > _PAUSE else step) - own
        self._mended()
        return self._shift

    def _fits(self, ahead: Fraction, waited: Fraction) -> bool:
        return ahead >= -_BACK and (not self._broadcast or ahead <= _AHEAD + waited)
