"""Fields of messages from a peer: typed and bounded; and those of pictures and packets."""

from __future__ import annotations

from fractions import Fraction
from typing import Any, Final

from streamer.audio import AudioFormat, Packet
from streamer.errors import ProtocolError
from streamer.formats import FORMATS, MAX_SIDE
from streamer.header import Header, Hop

MAX_CONTROL: Final = 64 * 1024
"""largest message in bytes that is not a PACKET"""
MAX_PACKET: Final = 1 << 20
"""largest payload of a PACKET in bytes"""
MAX_TRACE: Final = 12
"""hops kept in a header: the first and the latest"""
MAX_NAME: Final = 32
"""bytes of a node's name; so the header of a picture stays below 1 KiB"""
MAX_TEXT: Final = 64
"""bytes of other names: of formats, codecs, kinds of memory"""
MAX_LAYOUT: Final = 256
"""bytes of an audio channel layout's name"""

_I64: Final = (1 << 63) - 1
_COLORS: Final = ("rgb", "bt601", "bt709", "bt2020")


class Fields:
    """Typed, bounded access to a map from a peer."""

    __slots__ = ("_map",)

    def __init__(self, fields: dict[Any, Any]) -> None:
        self._map = fields

    def integer(self, key: str, low: int = -_I64, high: int = _I64) -> int:
        """An integer within bounds."""
        value = self._map.get(key)
        if type(value) is not int or not low <= value <= high:
            raise ProtocolError(f"field {key!r} is {value!r:.40}, not an integer {low} to {high}")
        return value

    def text(self, key: str, longest: int = MAX_TEXT) -> str:
        """Text of so many bytes at most."""
        value = self._map.get(key)
        if type(value) is not str or len(value.encode()) > longest:
            raise ProtocolError(
                f"field {key!r} is {value!r:.40}, not text of up to {longest} bytes"
            )
        return value

    def blob(self, key: str, longest: int) -> bytes:
        """Bytes, so many at most."""
        value = self._map.get(key)
        if type(value) is not bytes or len(value) > longest:
            raise ProtocolError(f"field {key!r} is not a byte string of up to {longest}")
        return value

    def flag(self, key: str, *, absent: bool | None = None) -> bool:
        """True or false; `absent`, if given, where a peer of a former version says nothing."""
        value = self._map.get(key, absent)
        if type(value) is not bool:
            raise ProtocolError(f"field {key!r} is {value!r:.40}, not true or false")
        return value

    def mapping(self, key: str) -> dict[Any, Any]:
        """A map."""
        value = self._map.get(key)
        if type(value) is not dict:
            raise ProtocolError(f"field {key!r} is {type(value).__name__}, not a map")
        return value

    def texts(self, key: str, most: int) -> tuple[str, ...]:
        """Texts, so many at most; none where a peer of a former version says nothing."""
        value = self._map.get(key, [])
        if type(value) is not list or len(value) > most:
            raise ProtocolError(f"field {key!r} is not a list of up to {most} texts")
        if not all(type(text) is str and len(text.encode()) <= MAX_TEXT for text in value):
            raise ProtocolError(f"field {key!r} holds more than texts of up to {MAX_TEXT} bytes")
        return tuple(value)

    def rational(self, key: str) -> Fraction:
        """A positive fraction."""
        value = self._map.get(key)
        if type(value) is list and len(value) == 2 and type(value[0]) is type(value[1]) is int:
            above, below = value
            if 0 < above <= 2**31 and 0 < below <= 2**31:
                return Fraction(above, below)
        raise ProtocolError(f"field {key!r} is {value!r:.40}, not a positive fraction")

    def hops(self, key: str, base_ns: int) -> list[Hop]:
        """A list of hops, whose times are microseconds after `base_ns`."""
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


def header_to_wire(header: Header) -> dict[str, Any]:
    """A header as a map."""
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
        "p": header.passed,
        "tr": [(hop.node, *(max(0, (at - base) // 1000) for at in hop[1:])) for hop in trace],
    }


def header_from_wire(fields: Fields) -> Header:
    """The header in a map from a peer; raises ProtocolError."""
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
        passed=fields.flag("p", absent=False),
        trace=fields.hops("tr", capture_ns),
    )


def packet_out(packet: Packet) -> dict[str, Any]:
    """An audio packet as a map; raises ProtocolError if it is too large."""
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


def packet_in(fields: Fields) -> Packet:
    """The audio packet in a map from a peer; raises ProtocolError."""
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
