from __future__ import annotations

from aiortc.codecs.h264 import h264_depayload
from aiortc.rtp import RtpPacket
from hypothesis import given, settings
from hypothesis import strategies as st

from nodes.web import rtp

UNITS = st.lists(
    st.builds(
        # A unit ends with a set bit, and start codes do not occur in it.
        lambda kind, body: bytes([0x60 | kind]) + body.replace(b"\0\0", b"\0\3") + b"\x80",
        st.integers(1, 23),
        st.binary(max_size=6000),
    ),
    min_size=1,
    max_size=6,
)
CODES = st.sampled_from([b"\0\0\1", b"\0\0\0\1"])


@settings(max_examples=60, deadline=None)
@given(UNITS, st.data())
def test_another_implementation_puts_the_picture_together_again(units, data):
    stream = b"".join(data.draw(CODES) + unit for unit in units)
    made = rtp.payloads_of_h264(stream, 4500, key=True)
    assert all(len(part) <= rtp.LONGEST for part in made.parts)
    assert b"".join(map(h264_depayload, made.parts)) == b"".join(b"\0\0\0\1" + u for u in units)
    assert (made.media, made.pts, made.entry) == ("video", 4500, True)
    assert len(made) == sum(map(len, made.parts))


def test_parts_of_a_unit_have_nearly_the_same_size():
    made = rtp.payloads_of_h264(b"\0\0\1" + b"\x65" + b"\x55" * 5000, 0, key=True)
    sizes = [len(part) for part in made.parts]
    assert len(sizes) == 5
    assert max(sizes) - min(sizes) <= len(sizes)


def test_what_has_no_start_code_has_no_units():
    assert rtp.units_of(b"") == []
    assert rtp.units_of(b"\x65\x55\0\0\2") == []


@given(
    st.booleans(),
    st.integers(0, 127),
    st.integers(0, 1 << 40),
    st.integers(0, 1 << 40),
    st.integers(0, (1 << 32) - 1),
)
def test_headers_are_read_by_another_implementation(marker, payload_type, number, ticks, ssrc):
    data = rtp.header(
        marker=marker, payload_type=payload_type, number=number, ticks=ticks, ssrc=ssrc
    )
    read = RtpPacket.parse(data + b"payload")
    assert (read.marker, read.payload_type, read.ssrc) == (int(marker), payload_type, ssrc)
    assert (read.sequence_number, read.timestamp) == (number % 65536, ticks % (1 << 32))
    assert read.payload == b"payload"
