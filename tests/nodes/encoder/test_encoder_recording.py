"""Recordings in segments, under names that tell the time, on disks that fill up."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from fractions import Fraction
from itertools import chain
from pathlib import Path

import av
import numpy as np
import pytest
from encoder_media import MILLI, encode, feed, frames, look, picture
from encoder_sound import MARKS, compressed, flashes, heard, record, seen

from nodes.encoder import Encoder
from nodes.encoder.directives import at_moment, is_pattern
from nodes.encoder.disk import Retry
from nodes.encoder.params import EncoderParams, byte_count
from nodes.encoder.parts import Names
from streamer import Drop, Frame, ParameterError, SinkError
from streamer.testing import SoloContext, solo


def files(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".ts", ".webm"])
def test_segments_follow_each_other_and_nothing_is_lost(tmp_path, suffix):
    context = encode(
        tmp_path / f"rec{suffix}",
        frames(range(0, 40 * 130, 40), time_base=MILLI, durations=[40] * 130),
        segment_seconds=2,
    )
    parts = files(tmp_path)
    assert [p.name for p in parts] == [f"rec-{n:04d}{suffix}" for n in (1, 2, 3)]
    found = [look(part) for part in parts]
    assert [len(each.pts) for each in found] == [50, 50, 30]
    assert len(context.sent) == 130
    for each in found:
        start = each.pts[0] if suffix == ".ts" else Fraction(0)
        wanted = [start + Fraction(n, 25) for n in range(len(each.pts))]
        assert all(abs(a - b) <= MILLI for a, b in zip(each.pts, wanted, strict=True))
        assert each.keys[0] == each.pts[0]
        assert each.dts == sorted(set(each.dts))
        if suffix != ".ts":
            assert each.duration == pytest.approx(len(each.pts) / 25, abs=0.003)
    number = 0
    for part in parts:  # each is decoded alone, and shows what was to be recorded
        with av.open(str(part)) as container:
            for frame in container.decode(video=0):
                shown = frame.to_ndarray(format="gray").astype(int)
                assert np.abs(shown - picture(number)[:96, :160]).mean() < 12
                number += 1
    assert number == 130


def test_segments_of_pictures_at_any_times_begin_with_the_first_at_or_after_the_cut(tmp_path):
    times = [0, 400, 990, 1010, 1500, 2000, 4990, 5600]
    encode(tmp_path / "rec.mp4", frames(times, time_base=MILLI), segment_seconds=1)
    starts = [0, 1010, 2000, 4990, 5600]
    assert len(files(tmp_path)) == len(starts)
    for part, start, end in zip(files(tmp_path), starts, [*starts[1:], 9999], strict=True):
        wanted = [Fraction(at - start, 1000) for at in times if start <= at < end]
        assert look(part).pts == wanted


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm"])
@pytest.mark.parametrize("codec", ["aac", "pcm_s16le"])
def test_sound_goes_on_across_segments_in_sync(tmp_path, suffix, codec):
    packets = compressed(codec, "mp4" if codec == "aac" else "mov")
    record(tmp_path / f"rec{suffix}", flashes(), packets, segment_seconds=1.4)
    parts = files(tmp_path)
    assert len(parts) == 3
    flashed, beeped = [], []
    for number, part in enumerate(parts):
        flashed += [at + 1.4 * number for at in seen(part)]
        beeped += [at + 1.4 * number for at in heard(part)]
    assert flashed == pytest.approx(list(MARKS), abs=0.002)
    assert beeped == pytest.approx(list(MARKS), abs=0.04)
    if codec == "aac" and suffix != ".webm":  # copied: every packet is in one of them
        held = 0
        for part in parts:
            with av.open(str(part)) as container:
                held += sum(p.size > 0 for p in container.demux(audio=0))
        assert len(packets) - 2 <= held <= len(packets)


def test_segments_by_size(tmp_path):
    noise = np.random.default_rng(5)

    def noisy():
        for frame in frames(range(0, 40 * 150, 40), time_base=MILLI, size=(320, 240)):
            shape = frame.numpy().shape
            frame.numpy()[:] = noise.integers(0, 255, shape, dtype=np.uint8)
            yield frame

    encode(tmp_path / "rec.mkv", noisy(), segment_megabytes=1, bitrate="8M", keyframe_interval=0.4)
    parts = files(tmp_path)
    assert len(parts) > 3
    assert sum(len(look(part).pts) for part in parts) == 150
    for part in parts:
        assert part.stat().st_size < 1.1e6
    for part in parts[:-1]:
        assert part.stat().st_size > 0.4e6


def test_segments_never_replace_what_was_recorded(tmp_path):
    def again():
        encode(
            tmp_path / "rec.mkv",
            frames(range(0, 2000, 40), time_base=MILLI),
            segment_seconds=1,
        )

    again()
    before = {path.name: path.read_bytes() for path in files(tmp_path)}
    assert list(before) == ["rec-0001.mkv", "rec-0002.mkv"]
    again()
    assert [p.name for p in files(tmp_path)] == [f"rec-{n:04d}.mkv" for n in (1, 2, 3, 4)]
    assert all((tmp_path / name).read_bytes() == data for name, data in before.items())


def test_names_that_tell_the_time(tmp_path):
    pattern = tmp_path / "%Y-%m-%d" / "rec-%H%M%S.mp4"
    began = int(time.time())
    encode(pattern, frames(range(0, 3000, 40), time_base=MILLI), segment_seconds=1)
    made = sorted(tmp_path.glob("*/*.mp4"))
    assert len(made) == 3
    possible = {at_moment(pattern, moment) for moment in range(began, int(time.time()) + 1)}
    for path in made:
        # Several within a second are told apart.
        whole = path.with_name(re.sub(r"-\d\.mp4$", ".mp4", path.name))
        assert whole in possible
    assert sum(len(look(path).pts) for path in made) == 75


@pytest.mark.parametrize(
    ("incarnation", "params", "said"),
    [
        (1, {"segment_seconds": 1}, ["begins in rec-0001.mp4", "goes on in rec-0002.mp4"]),
        (2, {"segment_seconds": 1}, ["goes on in rec-0002.mp4", "goes on in rec-0003.mp4"]),
        (1, {}, []),
        (2, {}, ["goes on in rec-2.mp4"]),
    ],
)
def test_the_log_tells_a_beginning_from_going_on(tmp_path, caplog, incarnation, params, said):
    if incarnation == 2:  # what the former process left
        (tmp_path / ("rec-0001.mp4" if params else "rec.mp4")).touch()
    caplog.set_level("INFO")
    context = SoloContext(incarnation=incarnation)
    encoder = solo(Encoder, context=context, url=str(tmp_path / "rec.mp4"), **params)
    feed(encoder, frames(range(0, 2000, 40), time_base=MILLI))
    encoder.finish()
    encoder.close()
    words = [message.partition("the recording ")[2] for message in caplog.messages]
    assert [word.replace(f"{tmp_path}/", "") for word in words if word] == said


def test_what_names_mean(tmp_path):
    assert is_pattern(Path("rec-%Y.mp4"))
    assert not is_pattern(Path("100%.mp4"))
    moment = time.mktime((2031, 5, 6, 7, 8, 9, 0, 0, -1))
    assert at_moment(Path("a/%Y%m%d-%H%M%S.mp4"), moment) == Path("a/20310506-070809.mp4")
    path = tmp_path / "out.mp4"
    path.touch()
    for overwrite in (True, False):
        folder = tmp_path / str(overwrite)
        folder.mkdir()
        plain = Names(folder / "out.mp4", segmented=False, anew=False, overwrite=overwrite)
        for name in ("out.mp4", "out-2.mp4", "out-3.mp4"):
            given = plain.next(0)
            assert given.name == name
            given.touch()
    anew = Names(path, segmented=False, anew=True, overwrite=True)
    assert anew.next(0).name == "out-2.mp4"
    careful = Names(path, segmented=False, anew=False, overwrite=False)
    with pytest.raises(ParameterError, match="exists already and overwrite is false"):
        careful.next(0)


@pytest.mark.parametrize("overwrite", [True, False])
def test_a_recording_that_goes_on_replaces_no_other_take(tmp_path, overwrite):
    take = tmp_path / "out-2.mp4"
    take.write_bytes(b"of yesterday")
    small = frames(range(0, 400, 40), time_base=MILLI)
    large = frames(range(400, 800, 40), time_base=MILLI, size=(320, 240))
    encode(tmp_path / "out.mp4", chain(small, large), overwrite=overwrite)
    assert take.read_bytes() == b"of yesterday"
    first, second = look(tmp_path / "out.mp4"), look(tmp_path / "out-3.mp4")
    assert (first.stream["width"], second.stream["width"]) == (160, 320)
    assert (len(first.pts), len(second.pts)) == (10, 10)


@pytest.mark.parametrize("name", ["segment_seconds", "segment_megabytes"])
def test_only_files_are_divided(name):
    with pytest.raises(ValueError, match=f"{name} divides a file; this output is none"):
        EncoderParams(url="udp://h:5", **{name: 5})


def test_sizes_are_read_as_people_write_them():
    assert [byte_count(t) for t in ("0", "200M", "1.5G", "3kB", "7")] == [
        0, 200_000_000, 1_500_000_000, 3000, 7,
    ]  # fmt: skip
    assert byte_count(EncoderParams(url="a.mp4", keep_free=0).keep_free) == 0
    for wrong in ("", "-1", "1T", "lots", "1e9", "9" * 400):
        with pytest.raises(ValueError, match="a size is written like 200M"):
            byte_count(wrong)


# ---- one file, one writer --------------------------------------------------------------------


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_file_that_is_being_written_is_refused_to_others(tmp_path, elsewhere):
    path = tmp_path / "out.mp4"
    first = solo(Encoder, url=str(path))
    feed(first, frames(range(0, 2000, 40), time_base=MILLI))
    if elsewhere:
        code = (
            "import sys; from nodes.encoder import Encoder; from streamer.testing import solo\n"
            "from streamer import SinkError\n"
            "try: solo(Encoder, url=sys.argv[1])\n"
            "except SinkError as error: print(error)\n"
        )
        said = subprocess.run(
            [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
        ).stdout
    else:
        with pytest.raises(SinkError) as caught:
            solo(Encoder, url=str(path))
        said = str(caught.value)
    assert re.search(r"cannot write .*out\.mp4: another output is writing to it", said)
    first.finish()
    first.close()
    assert len(look(path).pts) == 50
    encode(path, frames(range(0, 400, 40), time_base=MILLI))  # now it is free
    assert len(look(path).pts) == 10


def test_of_two_that_start_at_once_one_gets_the_file(tmp_path):
    path = tmp_path / "out.mkv"
    both = [solo(Encoder, url=str(path)) for _ in range(2)]
    feed(both[0], frames([0, 40], time_base=MILLI))
    with pytest.raises(SinkError, match="another output is writing to it"):
        feed(both[1], frames([0], time_base=MILLI))
    both[1].close()
    both[0].finish()
    assert len(look(path).pts) == 2


# ---- disks that fill up ----------------------------------------------------------------------


@pytest.fixture
def disk(small_disk):
    return small_disk("8m")


def free(folder: Path) -> int:
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def fill(encoder: Encoder, times: range) -> None:
    noise = np.random.default_rng(3)
    for at in times:
        pixels = noise.integers(0, 255, (96, 160, 3), dtype=np.uint8)
        with Frame.of(pixels, pts=at) as frame:
            encoder.process(frame)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
def test_the_file_is_closed_before_the_disk_is_full(disk, suffix, caplog):
    path = disk / f"out{suffix}"
    context = SoloContext(live=True)
    encoder = solo(Encoder, context=context, url=str(path), keep_free="3M", quality=5)
    fill(encoder, range(0, 40 * 500, 40))
    with pytest.raises(SinkError, match=r"not recorded: .*less than 3 MB \(keep_free\) is free"):
        encoder.finish()
    encoder.close()
    lost = context.dropped[Drop.NO_SPACE]
    assert lost > 30
    assert len(context.sent) + lost == 500
    # All that counts as delivered is there, and the room is kept but for the file's own end.
    assert len(look(path).pts) == len(context.sent) > 50
    assert free(disk) > 2_500_000
    assert context.statuses[-1][0] == "failed"
    assert "keep_free" in context.statuses[-1][1]
    assert caplog.text.count("the file is closed, and pictures are dropped") == 1


def test_the_recording_goes_on_when_there_is_room_again(disk):
    ballast = disk / "ballast"
    ballast.write_bytes(bytes(3_000_000))
    context = SoloContext(live=True)
    encoder = solo(Encoder, context=context, url=str(disk / "out.mp4"), keep_free="3M", quality=5)
    fill(encoder, range(0, 40 * 300, 40))
    lost = context.dropped[Drop.NO_SPACE]
    assert lost
    ballast.unlink()
    time.sleep(0.3)  # the disk is not looked at all the time
    fill(encoder, range(40 * 300, 40 * 400, 40))
    with pytest.raises(SinkError, match="not recorded"):
        encoder.finish()
    first, second = look(disk / "out.mp4"), look(disk / "out-2.mp4")
    assert len(first.pts) + len(second.pts) == len(context.sent)
    assert len(context.sent) + context.dropped[Drop.NO_SPACE] == 400
    assert second.keys[0] == second.pts[0] == 0
    assert [str(status) for status, _ in context.statuses][:2] == ["failed", "live"]


def test_a_disk_without_room_is_refused_before_anything_runs(disk):
    with pytest.raises(
        SinkError, match=r"8.\d+ MB are free on its disk, and keep_free wants 200 MB"
    ):
        solo(Encoder, url=str(disk / "out.mp4"))
    solo(Encoder, url=str(disk / "out.mp4"), keep_free="0").close()


def test_a_restarted_node_goes_on_without_room_and_says_so(disk):
    context = SoloContext(live=True, incarnation=2)
    encoder = solo(Encoder, context=context, url=str(disk / "out.mp4"), keep_free="100M")
    fill(encoder, range(0, 400, 40))
    with pytest.raises(SinkError, match="10 pictures were not recorded"):
        encoder.finish()
    assert context.dropped == {Drop.NO_SPACE: 10}
    assert not list(disk.iterdir())


# ---- disks that refuse to take more ----------------------------------------------------------


def test_tries_become_rarer_until_one_goes_well():
    now = 1000.0
    retry = Retry(lambda: now)
    assert retry.due
    waits = []
    for _ in range(7):
        waits.append(retry.failed())
        now += waits[-1] - 1
        assert not retry.due
        now += 1
        assert retry.due
    assert waits == [10, 20, 40, 80, 160, 300, 300]
    retry.failed()
    retry.went_well()
    assert retry.due
    assert retry.failed() == 10


def test_a_disk_that_refuses_though_it_has_room_is_not_tried_at_each_keyframe(disk):
    context = SoloContext(live=True)
    params = {"segment_seconds": 1, "keyframe_interval": 0.4, "keep_free": "1M"}
    encoder = solo(Encoder, context=context, url=str(disk / "rec.mp4"), **params)
    fill(encoder, range(0, 800, 40))
    # The folder and the first file are all that there may be.
    subprocess.run(["mount", "-o", "remount,nr_inodes=2", str(disk)], check=True)
    fill(encoder, range(800, 40 * 400, 40))  # over 30 keyframes
    with pytest.raises(SinkError, match=r"not recorded: .*no space is left"):
        encoder.finish()
    encoder.close()
    told = [str(status) for status, _ in context.statuses]
    assert 1 <= told.count("failed") <= 4
    assert "live" not in told
    assert [part.name for part in files(disk)] == ["rec-0001.mp4"]
    assert len(look(disk / "rec-0001.mp4").pts) == len(context.sent) == 25
    assert context.dropped == {Drop.NO_SPACE: 375}


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_file_in_which_nothing_plays_is_removed(disk, suffix):
    (disk / "ballast").write_bytes(bytes(free(disk) - 8192))  # less than one picture
    context = SoloContext(live=True)
    url = str(disk / f"out{suffix}")
    encoder = solo(Encoder, context=context, url=url, keep_free="1k", quality=5)
    fill(encoder, range(0, 40 * 100, 40))
    with pytest.raises(SinkError, match=r"not recorded: .*no space is left"):
        encoder.finish()
    encoder.close()
    assert [path.name for path in files(disk)] == ["ballast"]
