"""Files: every picture is there, at its own time, in a file that plays."""

from __future__ import annotations

import re
from fractions import Fraction
from itertools import accumulate, pairwise

import av
import numpy as np
import pytest
from encoder_media import MILLI, NINETY, decoded, encode, feed, frames, look, picture

from nodes.encoder import Encoder
from streamer import Frame, LeaseError
from streamer.testing import SoloContext, solo

# Steps of a source of variable frame rate, in milliseconds.
STEPS = [40, 40, 15, 120, 33, 33, 34, 250, 40, 40, 7, 40, 90, 40, 40, 40, 500, 40, 40, 61]
VARIABLE = [0, *accumulate(STEPS)]
LAST = 80


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".ts", ".webm", ".flv"])
@pytest.mark.parametrize("time_base", [MILLI, NINETY])
def test_times_and_duration_pass_through(tmp_path, suffix, time_base):
    unit = int(MILLI / time_base)
    times = [t * unit for t in VARIABLE]
    durations = [t * unit for t in (*STEPS, LAST)]
    path = tmp_path / f"out{suffix}"
    context = encode(path, frames(times, time_base=time_base, durations=durations))
    found = look(path)
    wanted = [t * time_base for t in times]
    # MPEG-TS and FLV start later where B-frames come first; distances are what counts.
    shift = found.pts[0] if suffix in (".ts", ".flv") else Fraction(0)
    rounding = Fraction(1, 1000)
    assert len(found.pts) == len(wanted)
    assert all(
        abs(got - shift - want) <= rounding for got, want in zip(found.pts, wanted, strict=True)
    )
    # FFmpeg's reader of MPEG-TS does not count the last picture's own duration.
    whole = float(wanted[-1]) + LAST / 1000
    assert found.duration == pytest.approx(whole, abs=0.09 if suffix in (".ts", ".flv") else 0.002)
    assert [h.pts for h in sorted(context.sent, key=lambda h: h.seq)] == times
    assert not context.dropped


def test_exact_times_at_29_97(tmp_path):
    time_base = Fraction(1001, 30000)
    path = tmp_path / "ntsc.mp4"
    encode(path, frames(range(40), time_base=time_base, durations=[1] * 40))
    found = look(path)
    assert found.pts == [n * time_base for n in range(40)]
    assert found.duration == pytest.approx(float(40 * time_base), abs=1e-5)


def test_last_duration_is_the_usual_one_where_none_is_known(tmp_path):
    path = tmp_path / "out.mp4"
    encode(path, frames(range(0, 400, 40), time_base=MILLI))
    assert look(path).duration == pytest.approx(0.4, abs=0.001)


@pytest.mark.parametrize("start", [-5_000, 7_777, 3_600_000_000])
def test_output_starts_at_zero_wherever_the_source_does(tmp_path, start):
    path = tmp_path / "out.mp4"
    encode(path, frames(range(start, start + 400, 40), time_base=MILLI))
    assert look(path).pts == [n * 40 * MILLI for n in range(10)]


def test_times_that_do_not_grow_are_mended(tmp_path, caplog):
    path = tmp_path / "out.mp4"
    encode(path, frames([0, 40, 40, 30, 80, 120], time_base=MILLI))
    found = look(path)
    assert len(found.pts) == 6
    assert all(a < b for a, b in zip(found.pts, found.pts[1:], strict=False))
    assert found.pts[-1] == 120 * MILLI
    assert "2 picture times did not grow" in caplog.text


def test_a_clock_that_starts_again_is_continued(tmp_path):
    path = tmp_path / "out.mp4"
    times = [*range(0, 2000, 40), *range(0, 400, 40)]
    encode(path, frames(times, time_base=MILLI))
    assert look(path).pts == [n * 40 * MILLI for n in range(60)]


def test_pictures_closer_than_the_container_can_tell_are_kept_apart(tmp_path):
    times = [0, 300, 600, 90_000, 90_020, 180_000]  # 1/1000000 s; Matroska counts milliseconds
    path = tmp_path / "out.mkv"
    encode(path, frames(times, time_base=Fraction(1, 1_000_000)))
    found = look(path)
    assert len(set(found.pts)) == 6


def test_files_have_keyframes_by_time_not_by_count(tmp_path):
    path = tmp_path / "slow.mp4"
    encode(path, frames(range(0, 12_000, 250), time_base=MILLI), keyframe_interval=1.5)
    keys = look(path).keys
    assert keys[0] == 0
    assert all(b - a <= Fraction(3, 2) for a, b in pairwise(keys))
    assert len(keys) >= 8


@pytest.mark.parametrize("format", ["yuv420p", "nv12", "rgb24", "bgr24", "gray", "rgba"])
@pytest.mark.parametrize(
    "codec", ["libx264", "libx265", "libvpx-vp9", "libsvtav1", "mpeg4", "ffv1"]
)
def test_no_encoder_keeps_a_view_of_the_frame(tmp_path, format, codec):
    encoder = solo(Encoder, url=str(tmp_path / "out.mkv"), codec=codec)
    for frame in frames(range(0, 800, 40), time_base=MILLI, format=format):
        encoder.process(frame)
        frame.release()  # raises LeaseError if a view is kept
        with pytest.raises(LeaseError):
            frame.numpy()
    encoder.finish()
    encoder.close()
    assert len(look(tmp_path / "out.mkv").pts) == 20


def test_frames_may_be_read_only_and_their_memory_may_change_afterwards(tmp_path):
    memory = bytearray(160 * 144)
    encoder = solo(Encoder, url=str(tmp_path / "out.mkv"), codec="ffv1")
    for level in range(16, 216, 20):
        memory[: 160 * 96] = bytes([level]) * (160 * 96)
        memory[160 * 96 :] = bytes([128]) * (160 * 48)
        array = np.frombuffer(bytes(memory) and memoryview(memory).toreadonly(), np.uint8)
        frame = Frame.of(array.reshape(144, 160), format="yuv420p", pts=level)
        frame.header.colorspace, frame.header.full_range = "bt601", False
        del array
        with frame:
            encoder.process(frame)
        memory[:] = bytes(len(memory))
    encoder.finish()
    encoder.close()
    levels = [int(shown[5, 5]) for shown in decoded(tmp_path / "out.mkv", "yuv420p")]
    assert levels == list(range(16, 216, 20))


@pytest.mark.parametrize(("size", "even"), [((161, 97), (162, 98)), ((1, 1), (2, 2))])
def test_odd_sides_get_a_copy_of_the_last_line(tmp_path, size, even):
    path = tmp_path / "odd.mkv"
    width, height = size
    pixels = np.full((height, width, 3), 40, np.uint8)
    pixels[-1], pixels[:, -1] = 200, 200
    feed_one = [Frame.of(pixels.copy(), pts=n * 40) for n in range(3)]
    encode(path, feed_one, codec="ffv1")
    shown = decoded(path)[0]
    assert shown.shape == (even[1], even[0], 3)
    assert shown[-1].min() > 180
    assert shown[:, -1].min() > 180


def test_a_new_size_goes_on_in_a_new_file(tmp_path, caplog):
    path = tmp_path / "out.mp4"
    context = SoloContext()
    encoder = solo(Encoder, context=context, url=str(path))
    feed(encoder, frames(range(0, 400, 40), time_base=MILLI))
    feed(encoder, frames(range(400, 800, 40), time_base=MILLI, size=(96, 160)))
    encoder.finish()
    encoder.close()
    first, second = look(path), look(tmp_path / "out-2.mp4")
    assert (first.stream["width"], len(first.pts)) == (160, 10)
    assert (second.stream["width"], len(second.pts)) == (96, 10)
    assert second.pts[0] == 0
    assert len(context.sent) == 20
    assert "out-2.mp4" in caplog.text


def test_a_restarted_process_keeps_what_was_recorded(tmp_path):
    path = tmp_path / "out.mp4"
    encode(path, frames(range(0, 400, 40), time_base=MILLI))
    before = path.read_bytes()
    for incarnation in (2, 3):
        encode(
            path,
            frames(range(0, 200, 40), time_base=MILLI),
            context=SoloContext(incarnation=incarnation),
        )
    assert path.read_bytes() == before
    assert len(look(tmp_path / "out-2.mp4").pts) == 5
    assert len(look(tmp_path / "out-3.mp4").pts) == 5


def test_a_file_is_replaced(tmp_path):
    path = tmp_path / "out.mp4"
    path.write_bytes(b"old" * 100_000)
    encode(path, frames(range(0, 200, 40), time_base=MILLI))
    assert len(look(path).pts) == 5


def test_null_counts_and_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    context = encode("null:", frames(range(7)))
    assert len(context.sent) == 7
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_image_sequence(tmp_path, suffix):
    pictures = list(frames(range(4), format="rgb24"))
    wanted = [frame.numpy().copy() for frame in pictures]
    context = encode(tmp_path / f"p%03d{suffix}", pictures)
    names = sorted(item.name for item in tmp_path.iterdir())
    assert names == [f"p00{n}{suffix}" for n in range(1, 5)]
    for name, want in zip(names, wanted, strict=True):
        shown = decoded(tmp_path / name)[0].astype(int)
        assert np.abs(shown - want).mean() < (0.01 if suffix == ".png" else 8)
    assert len(context.sent) == 4
    # A restarted process goes on counting.
    encode(
        tmp_path / f"p%03d{suffix}",
        frames(range(2), format="rgb24"),
        context=SoloContext(incarnation=2),
    )
    assert len(list(tmp_path.iterdir())) == 6


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize("count", [60, 61, 62, 63])  # each ends with another kind of picture
def test_the_rate_of_a_film_with_b_frames_is_that_of_its_pictures(tmp_path, count, live):
    path = tmp_path / "out.mp4"
    encode(path, frames(range(0, count * 3000, 3000)), context=SoloContext(live=live))
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.average_rate == 30
        assert stream.duration * stream.time_base == pytest.approx(count / 30, abs=0.001)
        packets = [packet for packet in container.demux(stream) if packet.size]
    assert any(packet.pts != packet.dts + 6000 for packet in packets)  # there are B-frames
    assert {packet.duration for packet in packets} == {3000}


@pytest.mark.parametrize("count", [43, 44, 45, 46])
def test_a_film_ends_with_its_last_picture_wherever_its_fragments_are_divided(tmp_path, count):
    # Among these, the picture shown last lies in another fragment than the one decoded last.
    path = tmp_path / "out.mp4"
    encode(path, frames(range(0, count * 3000, 3000), size=(64, 48)))
    assert look(path).duration == pytest.approx(count / 30, abs=0.002)


def quantisers(jpeg: bytes) -> list[int]:
    """The 64 divisors of luminance that a JPEG picture says it was made with."""
    at = jpeg.index(b"\xff\xdb")  # segment DQT: length, then precision and number of the table
    assert jpeg[at + 4] == 0
    return list(jpeg[at + 5 : at + 69])


def test_quality_of_pictures_is_their_quantiser(tmp_path):
    for quality in (8, 16):
        encode(tmp_path / f"{quality}-%d.jpg", frames(range(1), format="rgb24"), quality=quality)
    fine, coarse = ((tmp_path / f"{quality}-1.jpg").read_bytes() for quality in (8, 16))
    assert len(coarse) < len(fine)
    # The first one is for the mean of a block, and always 8.
    assert quantisers(coarse)[1:] == [2 * divisor for divisor in quantisers(fine)[1:]]


@pytest.mark.parametrize(
    ("name", "codec"),
    [("o.mp4", "mpeg4"), ("o.ts", "mpeg2video"), ("o.mkv", "mjpeg"), ("o.flv", "flv")],
)
def test_quality_counts_where_the_quantiser_is_the_quality(tmp_path, name, codec):
    sizes = []
    for quality in (2, 6, 20):
        pictures = frames(range(30), time_base=Fraction(1, 30))
        encode(tmp_path / name, pictures, codec=codec, quality=quality)
        sizes.append((tmp_path / name).stat().st_size)
    assert sizes[0] > 1.2 * sizes[1] > 1.44 * sizes[2]


def test_images_may_change_size(tmp_path):
    encoder = solo(Encoder, url=str(tmp_path / "%d.png"))
    feed(encoder, frames(range(2), format="rgb24", size=(33, 21)))
    feed(encoder, frames(range(2), format="gray", size=(20, 40)))
    encoder.finish()
    encoder.close()
    shapes = [decoded(tmp_path / f"{n}.png")[0].shape for n in range(1, 5)]
    assert shapes == [(21, 33, 3), (21, 33, 3), (40, 20, 3), (40, 20, 3)]


def test_one_image_shows_the_newest_picture(tmp_path):
    encode(tmp_path / "now.png", frames(range(3), format="rgb24"))
    assert [item.name for item in tmp_path.iterdir()] == ["now.png"]
    shown = decoded(tmp_path / "now.png")[0]
    assert np.array_equal(shown, picture(2, format="rgb24"))


def test_a_name_with_a_colon_is_a_file_of_this_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    encode("at %H:%M:%S.mp4", frames(range(0, 40_000, 3600)))
    (made,) = tmp_path.iterdir()
    assert re.fullmatch(r"at \d\d:\d\d:\d\d\.mp4", made.name)
    assert len(look(made).pts) == 12


@pytest.mark.parametrize("codec", ["mpeg1video", "mpeg2video", "mpeg4"])
@pytest.mark.parametrize("time_base", [MILLI, NINETY, Fraction(1, 1_000_000)])
def test_codecs_that_know_few_rates_take_the_times_of_any_source(tmp_path, codec, time_base):
    path = tmp_path / "out.mkv"
    times = [round(Fraction(number, 30) / time_base) for number in range(40)]
    durations = [round(Fraction(1, 30) / time_base)] * 40
    encode(path, frames(times, time_base=time_base, durations=durations), codec=codec)
    found = look(path)
    assert len(found.pts) == 40
    assert [float(at) for at in found.pts] == pytest.approx([n / 30 for n in range(40)], abs=2e-3)
