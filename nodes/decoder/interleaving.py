"""Packets of a file in the order of their times, wherever its maker has put them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from nodes.decoder.feed import Item

WINDOW: Final = Fraction(2)
"""seconds of one stream that are read ahead at most to find what belongs beside it"""
_MOST: Final = 2000
"""packets of one stream that are read ahead at most, whatever their times say"""


def in_time_order(packets: Iterator[Item], video: Any) -> Iterator[Item]:
    """Brings pictures and sound together whose places in a file are up to `WINDOW` apart.

    Many muxers put sound a second behind its picture. Played at its own speed such a file would
    give sound too late, and recordings would hold pictures back for it. Each stream keeps its own
    order.

    Args:
        packets: with the times of their arrival, as they stand in the file.
        video: the stream of pictures; all that is not of it is sound.
    """
    queues: tuple[deque[tuple[Item, Fraction]], ...] = (deque(), deque())
    latest = [Fraction(0), Fraction(0)]
    for item in packets:
        packet = item[0]
        which = int(packet.stream is not video)
        own = packet.dts if packet.dts is not None else packet.pts
        if own is not None and packet.time_base:
            latest[which] = own * packet.time_base
        queues[which].append((item, latest[which]))
        while all(queues) or any(map(_long, queues)):
            yield _first(queues)
    while any(queues):
        yield _first(queues)


def _first(queues: tuple[deque[tuple[Item, Fraction]], ...]) -> Item:
    # Of equal times the sound goes first, which waits for its picture further on.
    earliest = min((queue for queue in reversed(queues) if queue), key=lambda queue: queue[0][1])
    return earliest.popleft()[0]


def _long(queue: deque[tuple[Item, Fraction]]) -> bool:
    return len(queue) > 1 and (len(queue) > _MOST or queue[-1][1] - queue[0][1] > WINDOW)
