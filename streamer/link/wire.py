"""The link protocol: seven messages in msgpack, every field bounded and checked on receipt.

A message is one ZeroMQ part: a msgpack array of the kind and a map. Unknown map keys are ignored,
so that later versions can add fields; nothing is ever unpickled.

=========  ====================  ===============================================================
kind       direction             meaning
=========  ====================  ===============================================================
HELLO      consumer → producer   who I am and how many frames I may hold
SLAB       producer → consumer   where the pixels of the next frames lie
FRAME      producer → consumer   a header and a slot; the slot is the consumer's until CREDIT
PACKET     producer → consumer   audio, bytes within the message
WATERMARK  producer → consumer   pictures up to this one will not come: do not wait for them
END        producer → consumer   the stream has ended, nothing follows
CREDIT     consumer → producer   a slot (or packet, WATERMARK, END) is given back
=========  ====================  ===============================================================
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from fractions import Fraction
from typing import Any, Final

import msgpack

from streamer.audio import AudioFormat, Packet
from streamer.errors import ProtocolError
from streamer.formats import FORMATS, MAX_SIDE
from streamer.header import Header, Hop

PROTOCOL: Final = 1
MAX_CONTROL: Final = 64 * 1024
"""largest message in bytes that is not a PACKET"""
MAX_PACKET: Final = 1 << 20
"""largest payload of a PACKET in bytes"""
MAX_TRACE: Final = 12
"""hops kept in a header: the first and the latest"""
MAX_SLOTS: Final = 1024
MAX_NAME: Final = 32
"""bytes of a node's name; so the header of a picture stays below 1 KiB"""
MAX_TEXT: Final = 64
"""bytes of other names: of formats, codecs, kinds of memory"""
MAX_LAYOUT: Final = 256
"""bytes of an audio channel layout's name"""

_I64: Final = (1 << 63) - 1
_COLORS: Final = ("rgb", "bt601", "bt709", "bt2020")


class Kind(IntEnum):
    """First element of every message."""

    HELLO = 1
    SLAB = 2
    FRAME = 3
    PACKET = 4
    END = 5
    CREDIT = 6
    WATERMARK = 7


@dataclass(frozen=True, slots=True)
class Hello:
    """A consumer introduces itself; `window` is how many frames it may hold at once."""

    consumer: str
    incarnation: int
    window: int
    host: str
    pid: int


@dataclass(frozen=True, slots=True)
class SlabTicket:
    """What a consumer needs to reach a slab; `ticket` belongs to the memory kind."""

    incarnation: int
    generation: int
    kind: str
    ticket: dict[str, int | str | bytes]


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

    With `kept` the consumer keeps the slot for now, and has room for another picture.
    """

    generation: int
    slot: int
    kept: bool = False


PACKET_SLOT: Final = -1
END_SLOT: Final = -2
MARK_SLOT: Final = -3

Message = Hello | SlabTicket | FrameReady | PacketReady | Watermark | End | Credit


def pack(message: Message) -> bytes:
    """The bytes of a message."""
    match message:
        case FrameReady():
            body = {
                "i": message.incarnation,
                "g": message.generation,
                "s": message.slot,
                "p": message.published_ns,
                "h": _header_to_wire(message.header),
            }
            return _dump(Kind.FRAME, body)
        case Credit():
            body = {"g": message.generation, "s": message.slot, "k": message.kept}
            return _dump(Kind.CREDIT, body)
        case PacketReady():
            return _dump(Kind.PACKET, {"i": message.incarnation, **_packet_out(message.packet)})
        case Hello():
            body = {
                "v": PROTOCOL,
                "c": message.consumer,
                "i": message.incarnation,
                "w": message.window,
                "h": message.host,
                "p": message.pid,
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
    kind, fields = parts[0], _Fields(parts[1])
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
                header=_header_from_wire(_Fields(fields.mapping("h"))),
            )
        case Kind.CREDIT:
            return Credit(
                generation=fields.integer("g", 0),
                slot=fields.integer("s", MARK_SLOT, MAX_SLOTS - 1),
                kept=fields.flag("k"),
            )
        case Kind.PACKET:
            return PacketReady(fields.integer("i", 1), _packet_in(fields))
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
            )
        case Kind.SLAB:
            return SlabTicket(
                incarnation=fields.integer("i", 1),
                generation=fields.integer("g", 1),
                kind=fields.text("k"),
                ticket=_ticket(fields.mapping("t")),
            )
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


class _Fields:
    """Typed, bounded access to a map from a peer."""

    __slots__ = ("_map",)

    def __init__(self, fields: dict[Any, Any]) -> None:
        self._map = fields

    def integer(self, key: str, low: int = -_I64, high: int = _I64) -> int:
        value = self._map.get(key)
        if type(value) is not int or not low <= value <= high:
            raise ProtocolError(f"field {key!r} is {value!r:.40}, not an integer {low} to {high}")
        return value

    def text(self, key: str, longest: int = MAX_TEXT) -> str:
        value = self._map.get(key)
        if type(value) is not str or len(value.encode()) > longest:
            raise ProtocolError(
                f"field {key!r} is {value!r:.40}, not text of up to {longest} bytes"
            )
        return value

    def blob(self, key: str, longest: int) -> bytes:
        value = self._map.get(key)
        if type(value) is not bytes or len(value) > longest:
            raise ProtocolError(f"field {key!r} is not a byte string of up to {longest}")
        return value

    def flag(self, key: str) -> bool:
        value = self._map.get(key)
        if type(value) is not bool:
            raise ProtocolError(f"field {key!r} is {value!r:.40}, not true or false")
        return value

    def mapping(self, key: str) -> dict[Any, Any]:
        value = self._map.get(key)
        if type(value) is not dict:
            raise ProtocolError(f"field {key!r} is {type(value).__name__}, not a map")
        return value

    def rational(self, key: str) -> Fraction:
        value = self._map.get(key)
        if type(value) is list and len(value) == 2 and type(value[0]) is type(value[1]) is int:
            above, below = value
            if 0 < above <= 2**31 and 0 < below <= 2**31:
                return Fraction(above, below)
        raise ProtocolError(f"field {key!r} is {value!r:.40}, not a positive fraction")

    def hops(self, key: str, base_ns: int) -> list[Hop]:
        value = self._map.get(key)
        if type(value) is not list or len(value) > MAX_TRACE:
            raise ProtocolError(f"field {key!r} is not a list of up to {MAX_TRACE} hops")
        return [_hop(entry, base_ns) for entry in value]


def _hop(entry: Any, base_ns: int) -> Hop:
    if not (
        type(entry) is list
        and len(entry) == 4
        and type(entry[0]) is str
        and len(entry[0].encode()) <= MAX_NAME
        and all(type(us) is int and 0 <= us < 2**48 for us in entry[1:])
    ):
        raise ProtocolError(f"{entry!r:.80} is not a hop")
    name, *offsets = entry
    return Hop(name, *(base_ns + us * 1000 for us in offsets))


def _header_to_wire(header: Header) -> dict[str, Any]:
    trace = header.trace
    if len(trace) > MAX_TRACE:
        trace = [trace[0], *trace[1 - MAX_TRACE :]]
    base = header.capture_ns
    return {
        "st": header.stream,
        "n": header.seq,
        "t": header.pts,
        "b": (header.time_base.numerator, header.time_base.denominator),
        "d": header.duration,
        "w": header.width,
        "h": header.height,
        "f": header.format,
        "c": base,
        "u": header.wall_ns,
        "cs": header.colorspace,
        "fr": header.full_range,
        "g": header.generation,
        "tr": [(hop.node, *(max(0, (at - base) // 1000) for at in hop[1:])) for hop in trace],
    }


def _header_from_wire(fields: _Fields) -> Header:
    capture_ns = fields.integer("c", 0)
    pixel_format = fields.text("f")
    if pixel_format not in FORMATS:
        raise ProtocolError(f"unknown pixel format {pixel_format!r}")
    colorspace = fields.text("cs")
    if colorspace not in _COLORS:
        raise ProtocolError(f"unknown colour space {colorspace!r}")
    return Header(
        stream=fields.text("st", MAX_NAME),
        seq=fields.integer("n", 0),
        pts=fields.integer("t"),
        time_base=fields.rational("b"),
        duration=fields.integer("d", 0),
        width=fields.integer("w", 1, MAX_SIDE),
        height=fields.integer("h", 1, MAX_SIDE),
        format=pixel_format,
        capture_ns=capture_ns,
        wall_ns=fields.integer("u", 0),
        colorspace=colorspace,
        full_range=fields.flag("fr"),
        generation=fields.integer("g", 0),
        trace=fields.hops("tr", capture_ns),
    )


def _packet_out(packet: Packet) -> dict[str, Any]:
    if len(packet.data) > MAX_PACKET:
        raise ProtocolError(f"an audio packet of {len(packet.data)} bytes is over {MAX_PACKET}")
    audio = packet.audio
    return {
        "st": packet.stream,
        "t": packet.pts,
        "b": (packet.time_base.numerator, packet.time_base.denominator),
        "d": packet.duration,
        "x": packet.data,
        "ac": audio.codec,
        "ar": audio.sample_rate,
        "al": audio.layout,
        "ae": audio.extradata,
        "af": audio.frame_size,
    }


def _packet_in(fields: _Fields) -> Packet:
    return Packet(
        stream=fields.text("st", MAX_NAME),
        pts=fields.integer("t"),
        time_base=fields.rational("b"),
        duration=fields.integer("d", 0),
        data=fields.blob("x", MAX_PACKET),
        audio=AudioFormat(
            codec=fields.text("ac"),
            sample_rate=fields.integer("ar", 1, 1 << 22),
            layout=fields.text("al", MAX_LAYOUT),
            extradata=fields.blob("ae", MAX_CONTROL),
            frame_size=fields.integer("af", 0, 1 << 20),
        ),
    )


def _ticket(fields: dict[Any, Any]) -> dict[str, int | str | bytes]:
    if len(fields) > 16 or not all(
        type(key) is str and type(value) in (int, str, bytes) for key, value in fields.items()
    ):
        raise ProtocolError("a slab's ticket is a map of up to 16 names to numbers and texts")
    return fields
