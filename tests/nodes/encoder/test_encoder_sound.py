"""Sound: copied where the container allows, encoded where not, and in step with the pictures."""

from __future__ import annotations

from dataclasses import replace

import av
import numpy as np
import pytest
from encoder_media import MILLI, announced, feed, frames, look
from encoder_sound import (
    MARKS,
    RATE,
    beeps,
    compressed,
    flashes,
    heard,
    record,
    seen,
    sound_of,
)

from nodes.encoder import Encoder
from nodes.encoder.adts import strip_adts
from streamer import AudioFormat, Frame, Packet
from streamer.testing import SoloContext, solo

IN_SYNC = 0.040


def assert_in_sync(path, *, marks=MARKS):
    flash, beep = seen(path), heard(path)
    assert len(flash) == len(beep) == len(marks), (flash, beep)
    for f, b in zip(flash, beep, strict=True):
        assert abs(f - b) < IN_SYNC, (flash, beep)


@pytest.mark.parametrize("layouts", [("stereo", "5.1"), ("5.1", "stereo"), ("stereo", "mono")])
def test_channels_that_change_in_mid_stream(tmp_path, layouts):
    # As where a broadcaster goes from one programme to the next.
    first, second = (compressed("ac3", "matroska", layout=layout) for layout in layouts)
    half = MARKS[1] + 0.5
    packets = [one for one in first if one.pts * one.time_base < half]
    packets += [one for one in second if one.pts * one.time_base >= half]
    path = tmp_path / "out.flv"
    record(path, flashes(), [replace(one, audio=first[0].audio) for one in packets])
    assert_in_sync(path)


CASES = [
    # source codec, its container, output, codec there, copied
    ("aac", "mp4", ".mp4", "aac", True),
    ("aac", "mp4", ".mov", "aac", True),
    ("aac", "mp4", ".mkv", "aac", True),
    ("aac", "mp4", ".flv", "aac", True),
    ("aac", "mp4", ".ts", "aac", False),  # the same AAC in ADTS frames
    ("aac", "mp4", ".webm", "opus", False),
    ("aac", "mpegts", ".mp4", "aac", False),  # out of its ADTS frames
    ("libopus", "webm", ".webm", "opus", True),
    ("libopus", "webm", ".mkv", "opus", True),
    ("libopus", "webm", ".ts", "aac", False),
    ("libmp3lame", "matroska", ".mp4", "mp3", True),
    ("pcm_s16le", "matroska", ".mp4", "aac", False),
    ("pcm_s16le", "matroska", ".mkv", "pcm_s16le", True),
    ("pcm_s16le", "matroska", ".webm", "opus", False),
    ("flac", "matroska", ".mkv", "flac", True),
    ("pcm_mulaw", "wav", ".mp4", "aac", False),
]


@pytest.mark.parametrize(("codec", "container", "suffix", "becomes", "copied"), CASES)
def test_sound_is_carried_in_sync(tmp_path, codec, container, suffix, becomes, copied):
    packets = compressed(codec, container)
    path = tmp_path / f"out{suffix}"
    record(path, flashes(), packets)
    name, rate, channels, found = sound_of(path)
    assert (name, rate, channels) == (becomes, RATE, 2)
    if copied:
        source = [p.data for p in packets]
        # Containers that cannot say "starts later" are spared what is heard before the start.
        assert len(source) - len(found) <= 1
        assert found == source[len(source) - len(found) :]
    assert_in_sync(path)


@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
def test_in_sync_with_dropped_pictures(tmp_path, suffix):
    path = tmp_path / f"out{suffix}"
    record(path, flashes(keep=5), compressed("aac", "mp4"))
    assert_in_sync(path)


@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".ts"])
def test_in_sync_with_a_clock_that_starts_elsewhere(tmp_path, suffix):
    packets = compressed("pcm_s16le", "matroska")
    offset = 7_654_321
    for packet in packets:
        packet.pts += int(offset * MILLI / packet.time_base)
    path = tmp_path / f"out{suffix}"
    record(path, flashes(offset=offset), packets)
    assert_in_sync(path)
    assert seen(path)[0] == pytest.approx(MARKS[0], abs=0.1)


@pytest.mark.parametrize("codec", ["aac", "pcm_s16le"])
def test_in_sync_where_pictures_begin_later_than_sound(tmp_path, codec):
    packets = compressed(codec, "mp4" if codec == "aac" else "matroska")
    pictures = [frame for frame in flashes() if frame.header.time >= 0.6]
    path = tmp_path / "out.mp4"
    record(path, pictures, packets)
    assert_in_sync(path)
    assert look(path).pts[0] == pytest.approx(0.6, abs=0.03)


@pytest.mark.parametrize("suffix", [".mkv", ".webm"])
def test_live_sound_before_the_first_picture_is_left_out(tmp_path, suffix):
    pictures = [frame for frame in flashes() if frame.header.time >= 0.6]
    path = tmp_path / f"out{suffix}"
    record(path, pictures, compressed("aac", "mp4"), context=SoloContext(live=True))
    assert look(path).pts[0] == pytest.approx(0, abs=0.03)
    assert_in_sync(path)


@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
def test_in_sync_after_lost_packets_of_sound(tmp_path, suffix):
    packets = compressed("aac", "mp4")
    kept = [p for p in packets if not 1.3 < p.pts * p.time_base < 1.8]
    path = tmp_path / f"out{suffix}"
    record(path, flashes(), kept)
    assert_in_sync(path)


def test_in_sync_after_a_corrupt_packet_of_sound(tmp_path, caplog):
    packets = compressed("aac", "mp4")
    packets[60].data = b"\xff" * len(packets[60].data)
    path = tmp_path / "out.webm"
    record(path, flashes(), packets)
    assert_in_sync(path)


LATER = 44
"""seconds after which the clip is played once more, 40 of them without sound"""
TWICE = (*MARKS, *(mark + LATER for mark in MARKS))


def pictures_played_twice() -> list[Frame]:
    between = []
    for at in range(4000, LATER * 1000, 200):
        frame = Frame.of(np.full((64, 96, 3), 16, np.uint8), pts=at)
        frame.header.duration = 200
        between.append(frame)
    return [*flashes(), *between, *flashes(offset=LATER * 1000)]


def sound_played_twice(codec: str, container: str) -> list[Packet]:
    packets = compressed(codec, container)
    return packets + [replace(p, pts=p.pts + round(LATER / p.time_base)) for p in packets]


@pytest.mark.parametrize(
    ("codec", "container", "suffix"),
    [
        ("pcm_s16le", "matroska", ".mp4"),
        ("pcm_mulaw", "wav", ".mkv"),
        ("pcm_s16le", "matroska", ".flv"),
        ("aac", "mp4", ".ts"),
        ("aac", "mp4", ".webm"),
    ],
)
def test_encoded_sound_is_in_sync_after_a_long_gap(tmp_path, codec, container, suffix):
    path = tmp_path / f"out{suffix}"
    record(path, pictures_played_twice(), sound_played_twice(codec, container))
    assert_in_sync(path, marks=TWICE)
    beep = heard(path)
    since_the_first = [at - beep[0] for at in beep]
    assert since_the_first == pytest.approx([mark - MARKS[0] for mark in TWICE], abs=IN_SYNC)


def test_encoded_sound_goes_on_in_its_segment_after_a_long_gap(tmp_path):
    sound = sound_played_twice("aac", "mp4")
    record(tmp_path / "rec.webm", pictures_played_twice(), sound, segment_seconds=10)
    parts = sorted(tmp_path.iterdir())
    assert len(parts) == 5
    assert_in_sync(parts[0])
    assert [heard(part) for part in parts[1:4]] == [[], [], []]
    assert_in_sync(parts[4])
    assert heard(parts[4]) == pytest.approx([5, 6, 7], abs=IN_SYNC)


def test_encoded_sound_at_other_rates_and_layouts(tmp_path):
    path = tmp_path / "out.webm"
    record(path, flashes(), compressed("aac", "mp4", rate=44100, layout="mono"))
    assert sound_of(path)[:3] == ("opus", 48000, 1)
    assert_in_sync(path)
    path = tmp_path / "out.mp4"
    record(path, flashes(), compressed("pcm_s16le", "matroska", rate=8000, layout="mono"))
    assert sound_of(path)[:3] == ("aac", 8000, 1)
    assert_in_sync(path)


def test_encoded_sound_is_as_long_as_the_source(tmp_path):
    path = tmp_path / "out.mp4"
    record(path, flashes(), compressed("pcm_s16le", "matroska"))
    with av.open(str(path)) as container:
        samples = sum(frame.samples for frame in container.decode(audio=0))
    assert abs(samples - len(beeps())) <= 1024


def test_no_sound_where_none_is_wanted_or_possible(tmp_path):
    path = tmp_path / "out.mp4"
    record(path, flashes(), compressed("aac", "mp4"), audio="none")
    with av.open(str(path)) as container:
        assert not container.streams.audio
    for url in ("null:", str(tmp_path / "%d.png"), "/dev/video9"):
        assert not Encoder(Encoder.Params(url=url)).takes_audio()
    for url in ("udp://127.0.0.1:9", "rtmp://h/a/b", "rtsp://h/a", "http://h/a.webm"):
        assert Encoder(Encoder.Params(url=url)).takes_audio()


def test_announced_sound_that_never_comes_holds_nothing_up(tmp_path):
    path = tmp_path / "out.mp4"
    context = SoloContext()
    encoder = solo(Encoder, context=context, url=str(path))
    audio = AudioFormat(codec="aac", sample_rate=48000, layout="stereo", extradata=b"\x11\x90")
    encoder.audio(announced(audio))
    feed(encoder, frames(range(0, 4000, 40), time_base=MILLI))
    assert len(context.sent) > 50
    assert path.stat().st_size > 10_000  # fragments are there before the end
    encoder.finish()
    encoder.close()
    assert len(look(path).pts) == 100


def test_unknown_sound_is_left_out_and_said(tmp_path, caplog):
    path = tmp_path / "out.mp4"
    audio = AudioFormat(codec="no_such_codec", sample_rate=48000, layout="stereo")
    packet = Packet(stream="s", pts=0, time_base=MILLI, duration=20, data=b"\0" * 100, audio=audio)
    record(path, flashes(), [packet])
    assert "no_such_codec" in caplog.text
    with av.open(str(path)) as container:
        assert not container.streams.audio
    assert len(look(path).pts) == 100


def test_adts_headers_are_understood():
    packets = compressed("aac", "adts")
    described = strip_adts(packets[0].data)
    assert described is not None
    assert described.config == bytes([0x11, 0x90])  # AAC-LC, 48 kHz, two channels
    assert packets[0].data.endswith(described.frame)
    assert strip_adts(described.frame) is None
    assert strip_adts(b"") is None
