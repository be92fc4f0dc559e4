from __future__ import annotations

import io
from fractions import Fraction
from itertools import pairwise

import av
import numpy as np
import pytest

from nodes.decoder.sound import asc_of_adts


def heard(packets):
    """Decodes packets with nothing but what their format says: float32 of shape (2, samples)."""
    announced = packets[0].audio
    context = av.CodecContext.create(announced.codec, "r")
    context.extradata = announced.extradata or None
    blocks = []
    for packet in packets[1:]:
        compressed = av.Packet(packet.data)
        blocks += [block.to_ndarray() for block in context.decode(compressed)]
    blocks += [block.to_ndarray() for block in context.decode(None)]
    return np.concatenate(blocks, axis=1)


@pytest.mark.parametrize(
    ("name", "codec", "expected"),
    [("a.mp4", "aac", "aac"), ("a.ts", "aac", "aac"), ("a.mkv", "libopus", "opus")],
)
def test_sound_comes_as_it_was_with_its_times(clip, play, name, codec, expected):
    played = play(clip(name, audio=codec, count=50), wants_audio=True)
    announced, *packets = played.packets
    assert played.order.startswith("a")
    assert announced.data == b""
    assert announced.audio.codec == expected
    assert (announced.audio.sample_rate, announced.audio.layout) == (48000, "stereo")
    assert announced.audio.extradata
    assert all(packet.data and packet.stream == "source" for packet in packets)
    assert all(b.pts > a.pts for a, b in pairwise(packets))
    last = packets[-1]
    assert float((last.pts + last.duration) * last.time_base) == pytest.approx(2, abs=0.06)
    sound = heard(played.packets)[0]
    assert sound.size / 48000 == pytest.approx(2, abs=0.06)
    middle = sound[24000:72000]
    loudest = np.abs(np.fft.rfft(middle)).argmax() * 48000 / middle.size
    assert loudest == pytest.approx(440, abs=2)


def test_damaged_sound_of_a_broadcast_is_left_out(clip, play, caplog):
    path = clip("a.ts", audio="aac", count=100)
    whole = play(path, wants_audio=True)
    data = bytearray(path.read_bytes())
    starts = range(0, len(data), 188)
    # What FFmpeg calls the second stream; packets that begin no piece of it.
    sound = [at for at in starts if data[at + 1] == 0x01 and data[at + 2] == 0x01]
    for at in reversed(sound[10::10]):
        del data[at : at + 188]
    path.write_bytes(data)
    played = play(path, wants_audio=True)
    assert len(played.headers) == 100
    assert len(whole.packets) / 2 < len(played.packets) < len(whole.packets)
    assert "audio packets were left out" in caplog.text


def test_aac_of_a_broadcast_is_brought_to_the_common_form(clip, play):
    played = play(clip("a.ts", audio="aac"), wants_audio=True)
    announced, *packets = played.packets
    # LC, 48 kHz, two channels; and no packet begins with the sync word of ADTS.
    assert announced.audio.extradata == b"\x11\x90"
    assert not any(packet.data[0] == 0xFF and packet.data[1] >> 4 == 0xF for packet in packets)
    copy = io.BytesIO()
    with av.open(copy, "w", format="mp4") as out:
        stream = out.add_stream("aac", rate=48000, layout="stereo")
        stream.codec_context.extradata = announced.audio.extradata
        for packet in packets:
            compressed = av.Packet(packet.data)
            compressed.stream, compressed.time_base = stream, packet.time_base
            compressed.pts = compressed.dts = packet.pts
            out.mux(compressed)
    copy.seek(0)
    with av.open(copy) as container:
        assert sum(block.samples for block in container.decode(audio=0)) > 20000


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (bytes([0xFF, 0xF1, 0x4C, 0x80, 0, 0, 0]), b"\x11\x90"),  # LC, 48000 Hz, stereo
        (bytes([0xFF, 0xF9, 0x50, 0x40, 0, 0, 0]), b"\x12\x08"),  # LC, 44100 Hz, mono
        (bytes([0xFF, 0xF1, 0x4C, 0x00, 0, 0, 0]), b""),  # channels laid out in the frame
        (b"ID3\x04\x00\x00\x00", b""),
        (b"\xff\xf1", b""),
    ],
)
def test_the_format_that_an_adts_header_stands_for(header, expected):
    assert asc_of_adts(header) == expected


def test_no_sound_where_none_is_wanted(clip, play):
    path = clip("a.mp4", audio="aac")
    assert play(path).packets == []
    assert play(path, wants_audio=True, audio=False).packets == []
    assert play(clip("mute.mp4"), wants_audio=True).packets == []


def test_sound_and_picture_stay_together_over_loops(clip, play):
    path = clip("a.mp4", audio="aac", count=25)
    played = play(path, wants_audio=True, loop=True, most=60)
    announced, *packets = played.packets
    assert not announced.data
    assert all(packet.data for packet in packets)
    assert all(b.pts > a.pts for a, b in pairwise(packets))
    # A pass lasts as long as the longer of the two, and picture and sound begin it together.
    starts = [played.times[number] for number in (25, 50)]
    assert starts[0] == pytest.approx(starts[1] / 2, abs=0.05)
    for start in starts:
        nearest = min(abs(float(p.pts * p.time_base) - start) for p in packets)
        assert nearest < 0.03


def test_sound_passes_while_the_frame_rate_is_changed(clip, play):
    played = play(clip("a.mp4", audio="aac", count=25), wants_audio=True, fps=10)
    assert len(played.headers) == 10
    assert {header.time_base for header in played.headers} == {Fraction(1, 10)}
    assert len(played.packets) > 40


@pytest.mark.parametrize("shift", [1.5, -1.5])
def test_sound_that_lies_elsewhere_in_the_file_comes_beside_its_picture(
    clip, play, tmp_path, shift
):
    packets = []
    with av.open(str(clip("even.mp4", audio="aac", count=100))) as source:
        apart = tmp_path / "apart.mkv"
        # Without the muxer's own order: what is written first stands first.
        with av.open(str(apart), "w", options={"max_interleave_delta": "1"}) as out:
            copies = {stream: out.add_stream_from_template(stream) for stream in source.streams}
            for packet in source.demux():
                if packet.dts is not None:
                    late = shift if packet.stream.type == "audio" else 0.0
                    packets.append((float(packet.dts * packet.time_base) + late, packet))
            for _, packet in sorted(packets, key=lambda entry: entry[0]):
                packet.stream = copies[packet.stream]
                out.mux_one(packet)
    places = [packet.stream.type for _, packet in sorted(packets, key=lambda entry: entry[0])]
    assert len(set(places[:20])) == 1, "the file is as even as any"

    played = play(apart, wants_audio=True)
    assert len(played.headers) == 100
    heard, apart_by = -1.0, []
    pictures, sounds = iter(played.headers), iter(played.packets)
    for kind in played.order:
        if kind == "a":
            packet = next(sounds)
            heard = float(packet.pts * packet.time_base)
        else:
            apart_by.append(heard - next(pictures).time)
    # The decoder keeps a few pictures back, and so they come a little after their sound.
    assert min(apart_by) > -0.1
    assert max(apart_by) < 0.5
