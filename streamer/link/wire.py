"""The link protocol: eight messages in msgpack, every field bounded and checked on receipt.

A message is one ZeroMQ part: a msgpack array of the kind and a map. Unknown map keys are ignored,
so that later versions can add fields; nothing is ever unpickled.

=========  ====================  ===============================================================
kind       direction             meaning
=========  ====================  ===============================================================
HELLO      consumer → producer   who I am, how many frames I may hold, which memories I reach
SLAB       producer → consumer   where the pixels of the next frames lie
ATTACHED   consumer → producer   memory on a GPU is open, or why not; no FRAME before that
FRAME      producer → consumer   a header and a slot; the slot is the consumer's until CREDIT
PACKET     producer → consumer   audio, bytes within the message
WATERMARK  producer → consumer   pictures up to this one will not come: do not wait for them
END        producer → consumer   the stream has ended, nothing follows
CREDIT     consumer → producer   a slot (or packet, WATERMARK, END, slab) is given back
=========  ====================  ===============================================================
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from fractions import Fraction
from typing import Any, Final

import msgpack

from streamer.audio import Packet
from streamer.errors import ProtocolError
from streamer.header import Header
from streamer.link.fields import MAX_CONTROL as MAX_CONTROL
from streamer.link.fields import MAX_NAME as MAX_NAME
from streamer.link.fields import MAX_PACKET as MAX_PACKET
from streamer.link.fields import MAX_TRACE as MAX_TRACE
from streamer.link.fields import (
    Fields,
    header_from_wire,
    header_to_wire,
    packet_in,
    packet_out,
)

PROTOCOL: Final = 1
MAX_SLOTS: Final = 1024
MAX_REACH: Final = 16
"""memories that a consumer can name"""
MAX_REASON: Final = 500
"""bytes of the reason why memory could not be attached"""


class Kind(IntEnum):
    """First element of every message."""

    HELLO = 1
    SLAB = 2
    FRAME = 3
    PACKET = 4
    END = 5
    CREDIT = 6
    WATERMARK = 7
    ATTACHED = 8


@dataclass(frozen=True, slots=True)
class Hello:
    """A consumer introduces itself.

    `window` is how many frames it may hold at once; `reach` names memory that it can use besides
    that of its host: `cuda:<uuid>` is that of a GPU.
    """

    consumer: str
    incarnation: int
    window: int
    host: str
    pid: int
    reach: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SlabTicket:
    """What a consumer needs to reach a slab; `ticket` belongs to the memory kind."""

    incarnation: int
    generation: int
    kind: str
    ticket: dict[str, int | str | bytes]


@dataclass(frozen=True, slots=True)
class Attached:
    """The memory of a generation is open; or it is not, for the reason that `error` gives."""

    generation: int
    error: str = ""


@dataclass(frozen=True, slots=True)
class FrameReady:
    """A picture is in a slot."""

    incarnation: int
    generation: int
    slot: int
    published_ns: int
    header: Header


@dataclass(frozen=True, slots=True)
class PacketReady:
    """An audio packet."""

    incarnation: int
    packet: Packet


@dataclass(frozen=True, slots=True)
class Watermark:
    """Of this stream, nothing up to this number and time is under way any more."""

    incarnation: int
    stream: str
    seq: int
    pts: int
    time_base: Fraction

    def covers(self, header: Header) -> bool:
        """Whether a picture as late as this one can no longer come."""
        if self.stream == header.stream:
            return self.seq >= header.seq
        return self.pts * self.time_base >= header.pts * header.time_base


@dataclass(frozen=True, slots=True)
class End:
    """The producer's stream has ended."""

    incarnation: int


@dataclass(frozen=True, slots=True)
class Credit:
    """A slot goes back; `slot` is -1 for a packet, -2 for END and -3 for a watermark.

    -4 says that the memory of the generation is closed: it may be freed as far as I care. With
    `kept` the consumer keeps the slot for now, and has room for another picture.
    """

    generation: int
    slot: int
    kept: bool = False


PACKET_SLOT: Final = -1
END_SLOT: Final = -2
MARK_SLOT: Final = -3
SLAB_SLOT: Final = -4

Message = Hello | SlabTicket | Attached | FrameReady | PacketReady | Watermark | End | Credit


def pack(message: Message) -> bytes:
    """The bytes of a message."""
    match message:
        case FrameReady():
            body = {
                "i": message.incarnation,
                "g": message.generation,
                "s": message.slot,
                "p": message.published_ns,
                "h": header_to_wire(message.header),
            }
            return _dump(Kind.FRAME, body)
        case Credit():
            body = {"g": message.generation, "s": message.slot, "k": message.kept}
            return _dump(Kind.CREDIT, body)
        case PacketReady():
            return _dump(Kind.PACKET, {"i": message.incarnation, **packet_out(message.packet)})
        case Hello():
            body = {
                "v": PROTOCOL,
                "c": message.consumer,
                "i": message.incarnation,
                "w": message.window,
                "h": message.host,
                "p": message.pid,
                "m": message.reach,
            }
            return _dump(Kind.HELLO, body)
        case SlabTicket():
            body = {
                "i": message.incarnation,
                "g": message.generation,
                "k": message.kind,
                "t": message.ticket,
            }
            return _dump(Kind.SLAB, body)
        case Attached():
            return _dump(Kind.ATTACHED, {"g": message.generation, "e": message.error})
        case Watermark():
            body = {
                "i": message.incarnation,
                "st": message.stream,
                "n": message.seq,
                "t": message.pts,
                "b": (message.time_base.numerator, message.time_base.denominator),
            }
            return _dump(Kind.WATERMARK, body)
        case End():
            return _dump(Kind.END, {"i": message.incarnation})


def unpack(data: bytes) -> Message:
    """The message in bytes from a peer.

    Raises:
        ProtocolError: it is too large, malformed, of another version, or a field is missing, of
            another type or out of its bounds.
    """
    if len(data) > MAX_PACKET + MAX_CONTROL:
        raise ProtocolError(f"a message of {len(data)} bytes is larger than the protocol allows")
    try:
        parts = msgpack.unpackb(
            data,
            raw=False,
            strict_map_key=True,
            max_str_len=MAX_CONTROL,
            max_bin_len=MAX_PACKET,
            max_array_len=64,
            max_map_len=64,
            max_ext_len=0,
        )
    except (ValueError, RecursionError, msgpack.exceptions.UnpackException) as error:
        raise ProtocolError(f"not a msgpack message: {error or type(error).__name__}") from None
    if not (isinstance(parts, list) and len(parts) == 2 and isinstance(parts[1], dict)):
        raise ProtocolError("a message is an array of a kind and a map")
    kind, fields = parts[0], Fields(parts[1])
    if type(kind) is not int or kind not in Kind.__members__.values():
        raise ProtocolError(f"unknown kind of message {kind!r:.32}")
    if kind != Kind.PACKET and len(data) > MAX_CONTROL:
        raise ProtocolError(f"a {Kind(kind).name} message of {len(data)} bytes is too large")
    match Kind(kind):
        case Kind.FRAME:
            return FrameReady(
                incarnation=fields.integer("i", 1),
                generation=fields.integer("g", 1),
                slot=fields.integer("s", 0, MAX_SLOTS - 1),
                published_ns=fields.integer("p", 0),
                header=header_from_wire(Fields(fields.mapping("h"))),
            )
        case Kind.CREDIT:
            return Credit(
                generation=fields.integer("g", 0),
                slot=fields.integer("s", SLAB_SLOT, MAX_SLOTS - 1),
                kept=fields.flag("k"),
            )
        case Kind.PACKET:
            return PacketReady(fields.integer("i", 1), packet_in(fields))
        case Kind.HELLO:
            if (version := fields.integer("v", 0)) != PROTOCOL:
                raise ProtocolError(
                    f"the peer speaks link protocol {version}, this is {PROTOCOL}: "
                    "run the same version of streamer on both ends"
                )
            return Hello(
                consumer=fields.text("c", MAX_NAME),
                incarnation=fields.integer("i", 1),
                window=fields.integer("w", 1, MAX_SLOTS),
                host=fields.text("h", 256),
                pid=fields.integer("p", 1),
                reach=fields.texts("m", MAX_REACH),
            )
        case Kind.SLAB:
            return SlabTicket(
                incarnation=fields.integer("i", 1),
                generation=fields.integer("g", 1),
                kind=fields.text("k"),
                ticket=_ticket(fields.mapping("t")),
            )
        case Kind.ATTACHED:
            return Attached(fields.integer("g", 1), fields.text("e", MAX_REASON))
        case Kind.WATERMARK:
            return Watermark(
                incarnation=fields.integer("i", 1),
                stream=fields.text("st", MAX_NAME),
                seq=fields.integer("n", 0),
                pts=fields.integer("t"),
                time_base=fields.rational("b"),
            )
        case Kind.END:
            return End(fields.integer("i", 1))


def _dump(kind: Kind, body: dict[str, Any]) -> bytes:
    packed: bytes = msgpack.packb((int(kind), body))
    return packed


def _ticket(fields: dict[Any, Any]) -> dict[str, int | str | bytes]:
    if len(fields) > 16 or not all(
        type(key) is str and type(value) in (int, str, bytes) for key, value in fields.items()
    ):
        raise ProtocolError("a slab's ticket is a map of up to 16 names to numbers and texts")
    return fields
