"""The protocol: every message survives the journey, and nothing else gets through."""

from __future__ import annotations

import dataclasses
from fractions import Fraction
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamer.audio import AudioFormat, Packet
from streamer.errors import ProtocolError
from streamer.formats import FORMATS, MAX_SIDE
from streamer.header import Header, Hop
from streamer.link import wire

I64 = (1 << 63) - 1
NS = st.integers(0, I64)
NAMES = st.text("abcdefghijklmnopqrstuvwxyzABCXYZ0189_-", min_size=1, max_size=32)
FRACTIONS = st.builds(Fraction, st.integers(1, 2**31), st.integers(1, 2**31))


@st.composite
def hops(draw: st.DrawFn, capture_ns: int) -> Hop:
    received, started, finished = (
        capture_ns + 1000 * draw(st.integers(0, 2**48 - 1)) for _ in range(3)
    )
    return Hop(draw(NAMES), received, started, finished)


@st.composite
def headers(draw: st.DrawFn) -> Header:
    capture_ns = draw(NS)
    return Header(
        stream=draw(NAMES),
        seq=draw(NS),
        pts=draw(st.integers(-I64, I64)),
        time_base=draw(FRACTIONS),
        width=draw(st.integers(1, MAX_SIDE)),
        height=draw(st.integers(1, MAX_SIDE)),
        format=draw(st.sampled_from(FORMATS)),
        capture_ns=capture_ns,
        wall_ns=draw(NS),
        duration=draw(NS),
        colorspace=draw(st.sampled_from(["rgb", "bt601", "bt709", "bt2020"])),
        full_range=draw(st.booleans()),
        generation=draw(NS),
        passed=draw(st.booleans()),
        trace=draw(st.lists(hops(capture_ns), max_size=wire.MAX_TRACE)),
    )


PACKETS = st.builds(
    Packet,
    stream=NAMES,
    pts=st.integers(-I64, I64),
    time_base=FRACTIONS,
    duration=NS,
    data=st.binary(max_size=2000),
    audio=st.builds(
        AudioFormat,
        codec=NAMES,
        sample_rate=st.integers(1, 1 << 22),
        layout=st.text(max_size=60),
        extradata=st.binary(max_size=200),
        frame_size=st.integers(0, 1 << 20),
    ),
)
COUNTS = st.integers(1, I64)
SLOTS = st.integers(0, wire.MAX_SLOTS - 1)
MESSAGES: st.SearchStrategy[wire.Message] = st.one_of(
    st.builds(
        wire.Hello,
        NAMES,
        COUNTS,
        st.integers(1, wire.MAX_SLOTS),
        st.text(max_size=60),
        COUNTS,
        st.lists(NAMES, max_size=wire.MAX_REACH).map(tuple),
    ),
    st.builds(wire.Attached, COUNTS, st.text(max_size=100)),
    st.builds(
        wire.SlabTicket,
        COUNTS,
        COUNTS,
        NAMES,
        st.dictionaries(
            NAMES,
            st.one_of(st.integers(-I64, I64), st.text(max_size=30), st.binary(max_size=80)),
            max_size=16,
        ),
    ),
    st.builds(wire.FrameReady, COUNTS, COUNTS, SLOTS, NS, headers()),
    st.builds(wire.PacketReady, COUNTS, PACKETS),
    st.builds(wire.Watermark, COUNTS, NAMES, NS, st.integers(-I64, I64), FRACTIONS),
    st.builds(wire.End, COUNTS),
    st.builds(wire.Credit, NS, st.integers(wire.SLAB_SLOT, wire.MAX_SLOTS - 1), st.booleans()),
)


@given(MESSAGES)
def test_every_message_comes_out_as_it_went_in(message: wire.Message) -> None:
    assert wire.unpack(wire.pack(message)) == message


@given(st.binary(max_size=300))
@settings(max_examples=500)
def test_arbitrary_bytes_are_refused_or_understood(data: bytes) -> None:
    accepted_or_refused(data)


@given(MESSAGES, st.data())
@settings(max_examples=500)
def test_damaged_messages_are_refused_or_understood(
    message: wire.Message, data: st.DataObject
) -> None:
    packed = bytearray(wire.pack(message))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(packed) - 1))
        match data.draw(st.sampled_from(["flip", "cut", "put"])):
            case "flip":
                packed[at] = data.draw(st.integers(0, 255))
            case "cut" if len(packed) > 1:
                del packed[at]
            case _:
                packed.insert(at, data.draw(st.integers(0, 255)))
    accepted_or_refused(bytes(packed))


ANYTHING = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**63), 2**64 - 1),
        st.floats(),
        st.text(max_size=80),
        st.binary(max_size=80),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=5), st.dictionaries(st.text(max_size=3), inner, max_size=5)
    ),
    max_leaves=8,
)


@given(MESSAGES, st.data())
@settings(max_examples=500)
def test_a_field_of_any_other_kind_is_refused_or_understood(
    message: wire.Message, data: st.DataObject
) -> None:
    kind, fields = msgpack.unpackb(wire.pack(message))
    where = fields
    key = data.draw(st.sampled_from(sorted(where)))
    if isinstance(where[key], dict) and where[key] and data.draw(st.booleans()):
        where = where[key]
        key = data.draw(st.sampled_from(sorted(where)))
    where[key] = data.draw(ANYTHING)
    accepted_or_refused(msgpack.packb([kind, fields]))


def accepted_or_refused(data: bytes) -> None:
    """Whatever is understood is within bounds: it can be packed again, and nothing else escapes."""
    try:
        message = wire.unpack(data)
    except ProtocolError as error:
        said = str(error)
    else:
        said = ""
        assert wire.unpack(wire.pack(message)) == message
    assert len(said) < 400


def longest_frame() -> wire.FrameReady:
    name = "n" * wire.MAX_NAME
    late = 1000 * (2**48 - 1)
    return wire.FrameReady(
        I64,
        I64,
        wire.MAX_SLOTS - 1,
        I64,
        Header(
            stream=name,
            seq=I64,
            pts=-I64,
            time_base=Fraction(2**31, 2**31 - 1),
            width=MAX_SIDE,
            height=MAX_SIDE,
            format="yuv420p",
            capture_ns=I64,
            wall_ns=I64,
            duration=I64,
            colorspace="bt2020",
            full_range=False,
            generation=I64,
            trace=[Hop(name, I64 + late, I64 + late, I64 + late)] * 40,
        ),
    )


def test_the_longest_header_stays_below_one_kibibyte() -> None:
    packed = wire.pack(longest_frame())
    assert len(packed) < 1024
    message = wire.unpack(packed)
    assert isinstance(message, wire.FrameReady)
    assert len(message.header.trace) == wire.MAX_TRACE


def test_a_long_trace_keeps_the_first_hop_and_the_latest() -> None:
    frame = longest_frame()
    frame.header.trace = [Hop(f"node{n}", *[I64 + n * 1000] * 3) for n in range(30)]
    message = wire.unpack(wire.pack(frame))
    assert isinstance(message, wire.FrameReady)
    names = [hop.node for hop in message.header.trace]
    assert names == ["node0", *(f"node{n}" for n in range(30 - wire.MAX_TRACE + 1, 30))]


@given(MESSAGES)
def test_unknown_fields_are_ignored(message: wire.Message) -> None:
    kind, fields = msgpack.unpackb(wire.pack(message))
    fields["a field of a later version"] = [1, {"and": "more"}]
    assert wire.unpack(msgpack.packb([kind, fields])) == message


def hello(**changes: Any) -> bytes:
    kind, fields = msgpack.unpackb(wire.pack(wire.Hello("sink", 1, 1, "host", 7)))
    return msgpack.packb([kind, {**fields, **changes}])  # type: ignore[no-any-return]


def test_another_version_is_told_from_nonsense() -> None:
    with pytest.raises(ProtocolError, match="speaks link protocol 99, this is 1: run the same"):
        wire.unpack(hello(v=99))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "not a msgpack message"),
        (b"\x93\x01\x80\x01", "an array of a kind and a map"),
        (msgpack.packb([99, {}]), "unknown kind of message 99"),
        (msgpack.packb([True, {}]), "unknown kind of message True"),
        (msgpack.packb([wire.Kind.END, {}]), "field 'i' is None, not an integer 1 to"),
        (msgpack.packb([wire.Kind.END, {"i": 0}]), "field 'i' is 0, not an integer 1 to"),
        (msgpack.packb([wire.Kind.END, {"i": 1.0}]), "field 'i' is 1.0, not an integer"),
        (msgpack.packb([wire.Kind.END, {"i": True}]), "field 'i' is True, not an integer"),
        (hello(w=0), "field 'w' is 0, not an integer 1 to 1024"),
        (hello(w=1025), "field 'w' is 1025, not an integer 1 to 1024"),
        (hello(c="x" * 33), "field 'c' is 'xxx"),
        (hello(c="ü" * 17), "not text of up to 32 bytes"),
        (hello(more="x" * 70_000), "msgpack message|too large"),
        (b"\xdd\xff\xff\xff\xff", "not a msgpack message"),
        (b"\x91" * 3000 + b"\x01", "not a msgpack message"),
        (b"x" * (wire.MAX_PACKET + wire.MAX_CONTROL + 1), "larger than the protocol allows"),
        (
            msgpack.packb([wire.Kind.SLAB, {"i": 1, "g": 1, "k": "memfd", "t": {"a": [1]}}]),
            "ticket is a map of up to 16 names",
        ),
        (
            msgpack.packb(
                [wire.Kind.SLAB, {"i": 1, "g": 1, "k": "m", "t": {str(n): n for n in range(17)}}]
            ),
            "ticket is a map of up to 16 names",
        ),
    ],
)
def test_what_is_refused_is_said(data: bytes, said: str) -> None:
    with pytest.raises(ProtocolError, match=said):
        wire.unpack(data)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("w", 0), ("w", MAX_SIDE + 1), ("h", -1), ("f", "yuv444p16"), ("cs", "bt9000"),
        ("b", [0, 1]), ("b", [1, 0]), ("b", [1]), ("b", [1, 2**31 + 1]), ("n", -1), ("d", -1),
        ("c", -1), ("fr", 1), ("st", "x" * 33), ("tr", [["a", 1, 2]]), ("tr", [["a", 1, 2, -3]]),
        ("tr", [["a", 1, 2, 2**48]]), ("tr", [["x" * 33, 1, 2, 3]]), ("tr", [["a", 1, 2, 3]] * 13),
    ],
)  # fmt: skip
def test_every_field_of_a_header_is_bounded(field: str, value: Any) -> None:
    kind, fields = msgpack.unpackb(wire.pack(longest_frame()))
    fields["h"][field] = value
    with pytest.raises(ProtocolError):
        wire.unpack(msgpack.packb([kind, fields]))


def test_an_audio_packet_has_a_largest_size() -> None:
    audio = AudioFormat(codec="aac", sample_rate=48000, layout="stereo")
    packet = Packet(
        stream="cam", pts=0, time_base=Fraction(1, 48000), duration=0,
        data=bytes(wire.MAX_PACKET), audio=audio,
    )  # fmt: skip
    whole = wire.PacketReady(1, packet)
    assert wire.unpack(wire.pack(whole)) == whole
    large = dataclasses.replace(packet, data=bytes(wire.MAX_PACKET + 1))
    with pytest.raises(ProtocolError, match="audio packet of 1048577 bytes is over 1048576"):
        wire.pack(wire.PacketReady(1, large))
    # A message of another kind may not be as long.
    end = msgpack.packb([wire.Kind.END, {"i": 1, "x": bytes(wire.MAX_CONTROL)}])
    with pytest.raises(ProtocolError, match=r"a END message of .* bytes is too large"):
        wire.unpack(end)


def test_a_watermark_covers_what_is_not_later() -> None:
    header = longest_frame().header
    header.seq, header.pts, header.time_base = 10, 300, Fraction(1, 30)

    def mark(stream: str, seq: int, pts: int) -> wire.Watermark:
        return wire.Watermark(1, stream, seq, pts, Fraction(1, 60))

    # Of its own stream by number, of another one by time.
    assert mark(header.stream, 10, 0).covers(header)
    assert not mark(header.stream, 9, 10**6).covers(header)
    assert mark("another", 0, 600).covers(header)
    assert not mark("another", 10**6, 599).covers(header)


def test_a_consumer_of_a_former_version_reaches_the_host_only() -> None:
    kind, fields = msgpack.unpackb(wire.pack(wire.Hello("sink", 1, 1, "host", 7, ("cuda:GPU-1",))))
    del fields["m"]
    assert wire.unpack(msgpack.packb((kind, fields))) == wire.Hello("sink", 1, 1, "host", 7)


@pytest.mark.parametrize("reach", [3, ["x"] * 17, [5], ["y" * 65], {"a": 1}])
def test_memories_that_a_consumer_reaches_are_bounded(reach: object) -> None:
    kind, fields = msgpack.unpackb(wire.pack(wire.Hello("sink", 1, 1, "host", 7)))
    fields["m"] = reach
    with pytest.raises(ProtocolError, match="'m'"):
        wire.unpack(msgpack.packb((kind, fields)))
