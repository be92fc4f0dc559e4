"""The end of an MP4 film: that of the picture shown last, which may not be the last decoded."""

from __future__ import annotations

from fractions import Fraction

from nodes.encoder.mux import FRAGMENT
from nodes.encoder.order import VIDEO, Due


class Ending:
    """Has one file end where its last picture ends.

    FFmpeg's muxer lets a film end with the last one of its pictures in the last fragment. With
    B-frames the picture shown last may be decoded earlier, and lie in another fragment; only then
    is the packet decoded last said to last until the end. Nowhere else is it: readers take the mean
    rate of the film from what its packets last.
    """

    def __init__(self) -> None:
        self._begun: dict[int, Fraction] = {}
        self._ends = 0

    def fit(self, due: Due) -> None:
        """Takes every packet on its way to the muxer, in order; changes the duration of the last.

        Args:
            due: with times as the encoder gave them.
        """
        packet = due.packet
        if packet.dts is None:
            return
        at, begun = packet.dts * packet.time_base, self._begun.get(due.stream)
        key = due.stream == VIDEO and packet.is_keyframe
        if begun is not None and (key or at - begun >= FRAGMENT):
            self._begun.clear()  # the muxer begins another fragment, of all streams
            self._ends = 0
        self._begun.setdefault(due.stream, at)
        if due.stream != VIDEO:
            return
        self._ends = max(self._ends, packet.pts + (packet.duration or 0))
        if due.until is not None:
            until = round(due.until / packet.time_base)
            if self._ends < until:
                packet.duration = max(packet.duration or 0, until - packet.pts)
