"""What an outlet knows of one consumer: its mailbox, and what is under way to it."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Final, Literal, Self

from streamer.audio import Packet
from streamer.header import Header
from streamer.link import wire
from streamer.link.pool import Generation
from streamer.telemetry.board import LinkBoard

MOST_KEPT: Final = 2
"""pictures that a consumer may keep beyond its call while it still gets new ones"""
LATEST_WINDOW: Final = 2
"""pictures that may at least be under way to a `latest` consumer: one, and one that a join keeps"""


@dataclass(slots=True)
class Picture:
    """A picture that waits for a consumer."""

    header: Header
    generation: Generation
    slot: int
    published_ns: int


@dataclass(frozen=True, slots=True)
class Mark:
    """Pictures of a stream up to this one will not come any more; see `wire.Watermark`."""

    stream: str
    seq: int
    pts: int
    time_base: Fraction

    @classmethod
    def of(cls, header: Header) -> Self:
        """The mark of a picture that goes no further, or that is on its way."""
        return cls(header.stream, header.seq, header.pts, header.time_base)


Entry = Picture | Packet | Mark | None
"""what waits in a mailbox; None is the end of the stream"""


@dataclass(slots=True, kw_only=True)
class Consumer:
    """One consumer of an outlet, as planned, and what is known of it now.

    Attributes:
        name: node name of the consumer.
        queue: policy of the link.
        depth: pictures in the mailbox (`latest`), or under way and waiting (`wait`).
        board: counters of the link.
        identity: ZeroMQ's name of its connection; None while it is away.
        incarnation: of its process, 0 before it has said hello.
        window: pictures and packets that may be under way to it.
        gone: it will not come back.
        ended: it has taken the end of the stream.
        knows_slab: generation whose ticket it was sent last.
        hello: what it said last.
        memory: kind of memory in which it gets pictures of a GPU: `cuda`, or `memfd` for copies.
        attaching: generation whose memory it has not confirmed yet; 0 if there is none.
        last: the latest picture that was sent to it.
        mailbox: what waits for it, oldest first.
        outstanding: generation and slot of what it has not given back.
        kept: the same of pictures that it keeps beyond its call.
    """

    name: str
    queue: Literal["latest", "wait"]
    depth: int
    board: LinkBoard
    identity: bytes | None = None
    incarnation: int = 0
    window: int = 0
    gone: bool = False
    ended: bool = False
    knows_slab: int = 0
    hello: wire.Hello | None = None
    memory: str = "memfd"
    attaching: int = 0
    last: Mark | None = None
    mailbox: deque[Entry] = field(default_factory=deque)
    outstanding: list[tuple[int, int]] = field(default_factory=list)
    kept: list[tuple[int, int]] = field(default_factory=list)

    @property
    def widest(self) -> int:
        """The largest window that it is granted, whatever it asks for."""
        return self.depth if self.queue == "wait" else max(self.depth, LATEST_WINDOW)

    @property
    def slots(self) -> int:
        """How many slots it can have in use at once."""
        waiting = self.depth if self.queue == "wait" else self.depth + self.widest
        return waiting + MOST_KEPT

    @property
    def ready(self) -> bool:
        """Whether something can be sent to it now."""
        there = self.identity is not None and not self.attaching
        return there and len(self.outstanding) < self.window

    @property
    def full(self) -> bool:
        """Whether a `wait` consumer has no room for another picture."""
        if self.queue == "latest" or self.gone:
            return False
        waiting = sum(not isinstance(entry, Mark) for entry in self.mailbox)
        under_way = sum(slot != wire.MARK_SLOT for _, slot in self.outstanding)
        return waiting + under_way >= self.depth

    @property
    def drained(self) -> bool:
        """Whether it has taken the end and given back everything before it."""
        return self.gone or (self.ended and not (self.mailbox or self.outstanding or self.kept))

    def mark(self, mark: Mark) -> None:
        """Puts a mark behind what waits; of two marks in a row the later one says it all."""
        if self.mailbox and isinstance(self.mailbox[-1], Mark):
            self.mailbox[-1] = mark
        else:
            self.mailbox.append(mark)


def message_of(entry: Entry, incarnation: int) -> tuple[wire.Message, tuple[int, int]]:
    """The message of a mailbox's entry, and the generation and slot that its credit will name."""
    match entry:
        case None:
            return wire.End(incarnation), (0, wire.END_SLOT)
        case Packet():
            return wire.PacketReady(incarnation, entry), (0, wire.PACKET_SLOT)
        case Mark(stream, seq, pts, time_base):
            return wire.Watermark(incarnation, stream, seq, pts, time_base), (0, wire.MARK_SLOT)
        case Picture(header, generation, slot, published_ns):
            number = generation.number
            frame = wire.FrameReady(incarnation, number, slot, published_ns, header)
            return frame, (number, slot)
