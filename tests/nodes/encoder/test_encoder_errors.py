"""Mistakes and failures: one clear sentence each, and outputs closed properly."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from encoder_media import MILLI, encode, feed, frames, look
from pydantic import ValidationError

from nodes.encoder import Encoder
from nodes.encoder.outputs import OutputError, parse
from streamer import Frame, ParameterError, SinkError
from streamer.testing import SoloContext, solo


def opened(url: str | Path, **params) -> Encoder:
    return solo(Encoder, url=str(url), **params)


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"url": "out.xyz"}, r"extension '.xyz'.*known: .mp4"),
        ({"url": "out"}, "no extension"),
        ({"url": " "}, "empty"),
        ({"url": "ftp://u:secret@h/x"}, r"ftp://\*\*\*@h.*unknown scheme 'ftp'"),
        ({"url": "udp://127.0.0.1"}, "names no port"),
        ({"url": "udp://:5004"}, "names no host"),
        ({"url": "rtmp://h:99999/a/b"}, "port outside"),
        ({"url": "rec-%Q.mp4"}, "'rec-%Q.mp4' has a wrong name: %Q is no directive of strftime"),
        ({"url": "%Y/%m/%i.mkv", "segment_seconds": 9}, "%i is no directive.*usual ones are %Y %m"),
        ({"url": "50%off.mp4"}, "%o is no directive.*a percent sign is written %%"),
        ({"url": "rec-%D.mp4"}, "%D would put slashes into it"),
        ({"url": "rec-%03d.mp4"}, "%03d is for pictures.*segment_seconds"),
        ({"url": "out/%Y-%04d.png"}, "%Y is no number of a picture.*only the name of a recording"),
        ({"url": "out/%d/%04d.png"}, "it has 2 numbers, %d and %04d"),
        ({"url": "a.mp4", "bitrate": "fast"}, "4M, 800k"),
        ({"url": "a.mp4", "bitrate": "0"}, "1k to 1000M"),
        ({"url": "a.mp4", "bitrate": "4M", "quality": 20}, "exclude each other"),
        ({"url": "a.mp4", "quality": -1}, "greater than or equal to 0"),
        ({"url": "a.mp4", "fps": 0}, "greater than 0"),
        ({"url": "a.mp4", "keyframe_interval": -2}, "greater than 0"),
        ({"url": "a.mp4", "audio": "loud"}, "'auto' or 'none'"),
        ({"url": "a.mp4", "nonsense": 1}, "nonsense"),
        ({"url": "a.mp4", "codec": "libx26"}, "no encoder 'libx26'.*did you mean.*libx264"),
        ({"url": "a.mp4", "codec": "zzzz"}, "no encoder 'zzzz' here; usual ones: libx264, "),
        ({"url": "a.mp4", "codec": "aac"}, "'aac' is not a video codec"),
        ({"url": "a.mp4", "codec": "rawvideo"}, "cannot hold the codec rawvideo; it takes libx264"),
        ({"url": "a.webm", "codec": "libx264"}, "cannot hold the codec libx264; it takes libvpx-v"),
        ({"url": "a.ts", "codec": "libvpx-vp9"}, "cannot hold the codec libvpx-vp9"),
        ({"url": "%d.png", "codec": "libx264"}, "cannot hold the codec libx264; it takes png"),
        ({"url": "a.mp4", "codec": "png", "quality": 3}, "the codec png has no quality"),
        ({"url": "%d.png", "quality": 3}, "the codec png has no quality"),
        ({"url": "/dev/video9", "bitrate": "4M"}, "the codec rawvideo has no bit rate"),
        ({"url": "%d.jpg", "preset": "fast"}, "no presets of the codec mjpeg are known"),
        ({"url": "a.mp4", "codec": "mpeg4", "quality": 0}, r"from 1 \(best\) to 31, not 0"),
        ({"url": "a.mp4", "codec": "mpeg4", "quality": 2.5}, r"to 31, not 2\.5"),
        ({"url": "a.mp4", "options": {"tunee": "film"}}, "no option 'tunee'; did you mean tune"),
        ({"url": "a.mp4", "codec": "h264_nvenc", "options": {"crf": 9}}, "nvenc has no option"),
    ],
)
def test_parameters_are_refused_before_anything_opens(params, words):
    with pytest.raises(ValidationError, match=words) as caught:
        Encoder.Params(**params)
    assert "secret" not in "".join(error["msg"] for error in caught.value.errors())


@pytest.mark.parametrize(
    "url",
    ["rec-%Y%m%d-%-H.mp4", "%A %B %e.mkv", "100%.mp4", "100%%.mp4", "100% %%%04d.png", "5%.png"],
)
def test_names_with_percent_signs_that_mean_something_are_taken(url):
    assert parse(url).path == Path(url)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("udp://127.0.0.1:5004", "udp://localhost:5004?ttl=2", True),
        ("udp://127.0.0.1:5004", "udp://127.0.0.1:5006", False),
        ("udp://127.0.0.1:5004", "tcp://127.0.0.1:5004", False),
        ("rtsp://me:secret@Cam/live", "rtsp://cam/live", True),
        ("rtmp://h/app/one", "rtmp://h/app/two", False),
        ("whip://h/w?stream=a", "http://h/w?stream=b", False),
        ("/dev/video9", "/dev/video9", True),
        ("null:", "null:", False),
    ],
)
def test_an_address_is_claimed_for_one_output(one, other, same):
    first, second = (Encoder.claims(Encoder.Params(url=url)) for url in (one, other))
    assert (first == second and first != {}) == same
    assert "secret" not in str(first)


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"preset": "warp"}, "does not open with .*preset=warp"),
        ({"options": {"crf": "low"}}, "does not open with .*crf=low"),
    ],
)
def test_codec_and_its_options_are_tried_on_opening(tmp_path, params, words):
    with pytest.raises(ParameterError, match=words):
        opened(tmp_path / "out.mp4", **params)
    assert list(tmp_path.iterdir()) == []


def test_an_option_that_only_another_encoder_has_is_told_on_opening(tmp_path):
    Encoder.Params(url="a.mp4", options={"spatial-aq": 1})  # NVENC has it, and may be there
    if not os.path.exists("/dev/nvidia0"):
        with pytest.raises(ParameterError, match="libx264 has no option 'spatial-aq'"):
            opened(tmp_path / "out.mp4", options={"spatial-aq": 1})


def test_mistakes_of_several_parameters_are_told_together():
    with pytest.raises(ValidationError) as caught:
        Encoder.Params(url="a.png", codec="libx26", keyframe_interval=-1)
    assert [error["loc"] for error in caught.value.errors()] == [("codec",), ("keyframe_interval",)]


@pytest.mark.skipif(os.path.exists("/dev/nvidia0"), reason="this machine may have NVENC")
def test_a_missing_gpu_is_told_or_gone_round(tmp_path):
    with pytest.raises(ParameterError, match=r"h264_nvenc does not open.*NVIDIA GPU"):
        opened(tmp_path / "out.mp4", codec="h264_nvenc")
    encode(tmp_path / "out.mp4", frames(range(0, 200, 40), time_base=MILLI))
    assert look(tmp_path / "out.mp4").codec == "h264"


def test_folder_that_is_missing_or_none(tmp_path):
    with pytest.raises(SinkError, match=r"folder .*missing does not exist; create it \(mkdir -p"):
        opened(tmp_path / "missing" / "out.mp4")
    (tmp_path / "file").write_text("x")
    with pytest.raises(SinkError, match="file is not a folder"):
        opened(tmp_path / "file" / "out.mp4")
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(SinkError, match="it is a folder; add a file name"):
        opened(tmp_path / "folder.mp4")
    with pytest.raises(SinkError, match="does not exist"):
        opened(tmp_path / "missing" / "%d.png")


def test_places_that_nobody_may_write_to():
    # /proc refuses root too.
    with pytest.raises(SinkError, match=r"cannot write /proc/out\.mp4: "):
        opened("/proc/out.mp4")


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user, which only root may")
def test_no_permission(tmp_path):
    code = (
        "import os, sys\n"
        "from nodes.encoder import Encoder\n"
        "from streamer.testing import solo\n"
        "from streamer import SinkError\n"
        "os.setuid(65534)\n"
        "try: solo(Encoder, url=sys.argv[1])\n"
        "except SinkError as error: print(error)\n"
    )
    os.chmod(tmp_path, 0o755)
    for folder in tmp_path.parents:
        if folder.stat().st_uid == os.geteuid() and not folder.stat().st_mode & 1:
            folder.chmod(folder.stat().st_mode | 0o711)
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "out.mp4")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "permission denied; choose a place that you may write to" in done.stdout, done.stderr


def test_file_that_must_not_be_overwritten(tmp_path):
    path = tmp_path / "out.mp4"
    path.write_bytes(b"precious")
    with pytest.raises(ParameterError, match="exists already and overwrite is false"):
        opened(path, overwrite=False)
    assert path.read_bytes() == b"precious"


def test_opening_leaves_an_existing_file_alone_until_a_picture_comes(tmp_path, caplog):
    path = tmp_path / "out.mp4"
    path.write_bytes(b"precious")
    encoder = opened(path)
    encoder.finish()
    encoder.close()
    assert path.read_bytes() == b"precious"
    assert "no picture came" in caplog.text


def test_pictures_of_a_sequence_are_not_replaced_against_the_users_word(tmp_path):
    (tmp_path / "0003.png").write_bytes(b"precious")
    with pytest.raises(ParameterError, match=r"already, up to number 3, and overwrite is false"):
        opened(tmp_path / "%04d.png", overwrite=False)
    assert (tmp_path / "0003.png").read_bytes() == b"precious"
    opened(tmp_path / "%04d.jpg", overwrite=False).close()


def test_a_port_with_nothing_behind_it_is_given_up():
    # As of a container whose service is down: it is connected to, and closed at once.
    with socket.create_server(("127.0.0.1", 0)) as server:
        over = threading.Event()

        def accept():
            server.settimeout(0.1)
            while not over.is_set():
                with contextlib.suppress(TimeoutError):
                    server.accept()[0].close()

        thread = threading.Thread(target=accept)
        thread.start()
        encoder = solo(Encoder, url=f"tcp://127.0.0.1:{server.getsockname()[1]}", give_up=2)

        def play():
            for number in range(3000):
                feed(encoder, frames([number * 1800]))
                time.sleep(0.02)

        try:
            with pytest.raises(SinkError, match=r"gave up after 2 s"):
                play()
        finally:
            over.set()
            thread.join()
            encoder.close()


def test_no_such_device():
    with pytest.raises(SinkError, match=r"/dev/video99: there is no such device.*v4l2loopback"):
        opened("/dev/video99")


def test_unknown_host_is_told_on_opening():
    with pytest.raises(SinkError, match=r"rtmp://\*\*\*@no-such-host.invalid.*not known"):
        opened("rtmp://user:pass@no-such-host.invalid/live/key")


@pytest.mark.parametrize("scheme", ["rtmp", "rtsp", "http", "tcp", "whip"])
def test_refused_connection_until_the_user_says_that_it_is_enough(scheme):
    url = f"{scheme}://user:hidden@127.0.0.1:1/live/a"
    encoder = solo(Encoder, url=url, give_up=2)
    with pytest.raises(SinkError, match=r"the connection was refused.*gave up after 2 s") as caught:
        feed(encoder, frames([0]))
    assert "hidden" not in str(caught.value)
    assert not caught.value.retry
    encoder.close()
    told = encoder.context.statuses
    assert told[0][0] == "connecting"
    assert told[-1][0] == "failed"
    assert "hidden" not in str(told)


def test_picture_that_the_codec_cannot_take(tmp_path):
    encoder = opened(tmp_path / "out.mkv", codec="libvpx")
    with pytest.raises(SinkError, match=r"libvpx does not take pictures of 16384x4.*make them sm"):
        encoder.process(Frame.of(np.zeros((4, 16384, 3), np.uint8)))
    encoder.close()


def limited(limit: int, path: Path, *, step: int = 40) -> subprocess.CompletedProcess[str]:
    """Records noise, a picture each `step` ms, where files may not grow beyond a size."""
    code = (
        "import sys, numpy as np\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from encoder_media import frames, feed, MILLI\n"
        "from nodes.encoder import Encoder\n"
        "from streamer.testing import solo\n"
        "from streamer import SinkError\n"
        "encoder = solo(Encoder, url=sys.argv[1], keep_free='0')\n"
        "noise = np.random.default_rng(1)\n"
        "try:\n"
        f"    for f in frames(range(0, {step} * 300, {step}), time_base=MILLI):\n"
        "        f.numpy()[:] = noise.integers(0, 255, f.numpy().shape, dtype=np.uint8)\n"
        "        feed(encoder, [f])\n"
        "    encoder.finish()\n"
        "except SinkError as error: print(error)\n"
        "encoder.close()\n"
        "encoder.close()\n"
        "print(len(encoder.context.sent))\n"
    )

    def limit_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    return subprocess.run(
        [sys.executable, "-c", code, str(path)],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=limit_files if limit else None,
    )


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm"])
def test_a_file_that_may_not_grow_is_told_and_still_plays(tmp_path, suffix):
    path = tmp_path / f"out{suffix}"
    done = limited(600_000, path)
    assert "the largest size that is allowed" in done.stdout, done.stderr
    assert "Traceback" not in done.stderr
    sent = int(done.stdout.split()[-1])
    assert 10 < sent < 2000
    assert 10 < len(look(path).pts) <= sent + 60


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm"])
def test_what_does_not_fit_into_one_file_goes_on_in_the_next(tmp_path, suffix):
    done = limited(400_000, tmp_path / f"out{suffix}", step=1000)  # over 10 s in each
    assert "the largest size that is allowed" in done.stdout, done.stderr
    assert "Traceback" not in done.stderr
    parts = sorted(tmp_path.iterdir())
    assert len(parts) >= 2, done.stderr
    shown = [len(look(part).pts) for part in parts]
    assert all(shown)
    assert 200 < sum(shown) < 300


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_recording_ends_where_hardly_anything_fits_into_the_next_file_either(tmp_path, suffix):
    done = limited(600_000, tmp_path / f"out{suffix}")
    assert "pictures were not recorded" in done.stdout, done.stderr
    assert {part.name for part in tmp_path.iterdir()} == {f"out{suffix}", f"out-2{suffix}"}
    assert all(look(part).pts for part in tmp_path.iterdir())


@pytest.mark.parametrize("name", ["out.mp4", "out.mkv", "%d.png"])
def test_a_full_disk_is_told(small_disk, name):
    done = limited(0, small_disk("512k") / name)
    assert "no space is left on the disk" in done.stdout, done.stderr
    assert "Traceback" not in done.stderr


def test_closing_without_finish_and_twice(tmp_path):
    path = tmp_path / "out.mp4"
    context = SoloContext()
    encoder = solo(Encoder, context=context, url=str(path))
    feed(encoder, frames(range(0, 4000, 40), time_base=MILLI))
    encoder.close()
    encoder.close()
    assert len(look(path).pts) == len(context.sent) > 50


def test_what_addresses_mean():
    assert parse("udp://h:5").url == "udp://h:5?pkt_size=1316"
    assert parse("udp://h:5?ttl=3").url == "udp://h:5?ttl=3&pkt_size=1316"
    assert parse("http://h/a.webm").container.muxer == "webm"
    assert parse("http://h/push").container.muxer == "mpegts"
    assert parse("file:out.mp4").path == Path("out.mp4")
    assert parse("OUT.MP4").container.muxer == "mp4"
    assert [parse(u).live for u in ("a.mp4", "udp://h:5", "/dev/video3")] == [False, True, True]
    with pytest.raises(OutputError):
        parse("a\0b.mp4")
