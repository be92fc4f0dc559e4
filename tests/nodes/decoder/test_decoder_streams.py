"""Streams of real peers: the ffmpeg command, and a web server that is a process of its own."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import threading
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from streamer import Status

pytestmark = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs the ffmpeg command")

PICTURE = ["-re", "-f", "lavfi", "-i", "testsrc=size=160x120:rate=25"]
H264 = ["-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-g", "12"]
SOUND = ["-f", "lavfi", "-i", "sine", "-c:a", "aac"]


@pytest.fixture
def running():
    """Starts processes, and kills those that a test did not."""
    processes = []

    def start(*words, **options):
        process = subprocess.Popen(
            [str(word) for word in words], stdin=subprocess.DEVNULL, **options
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.wait()


@pytest.fixture
def ffmpeg(running):
    return lambda *words: running("ffmpeg", "-loglevel", "error", *words)


@pytest.fixture
def web(running, port):
    """Serves a folder at a port, as a process that can be killed."""

    def start(folder, at):
        process = running(
            *(sys.executable, "-m", "http.server", "-b", "127.0.0.1", "-d", folder, at),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while True:
            try:
                socket.create_connection(("127.0.0.1", at)).close()
                return process
            except ConnectionRefusedError:
                assert process.poll() is None
                time.sleep(0.02)

    return start


def kill(process):
    process.kill()
    process.wait()


def rises(watched):
    return all(later.time > sooner.time for sooner, later in pairwise(watched.headers))


def lost(watched):
    """How many times it was lost after it had been live."""
    return watched.statuses.count(Status.RECONNECTING)


def replaced(moments, service):
    """Share of pictures that a link of depth 1 replaces before a consumer that is busy."""
    free, waiting, gone = 0.0, False, 0
    for moment in moments:
        if free <= moment:
            free = moment + service
            waiting = False
        elif waiting:
            gone += 1
        else:
            waiting = True
            free += service
    return gone / len(moments)


def test_a_source_that_sends_in_bursts_is_let_go_evenly(ffmpeg, watch, port):
    at = port(socket.SOCK_DGRAM)
    # Pictures of bars that stand still are a few bytes: seven of them fill one datagram.
    bars = ["-re", "-f", "lavfi", "-i", "smptebars=size=160x120:rate=30"]
    url = f"udp://127.0.0.1:{at}?pkt_size=1316"
    ffmpeg(*bars, *H264, "-flush_packets", "0", "-f", "mpegts", url)
    watched = watch(f"udp://127.0.0.1:{at}")

    def evenly():
        """The last three seconds' pictures; a machine that stands still bunches them, too."""
        came = np.diff([header.capture_ns / 1e9 for header in watched.headers[-90:]])
        moments = watched.moments[-90:]
        return (
            (came < 0.005).mean() > 0.5  # it is bursty indeed
            and (np.diff(moments) < 0.005).mean() < 0.05
            and replaced(moments, 0.02) < 0.05
        )

    watched.until(lambda: len(watched.headers) >= 120 and evenly())
    watched.stop()
    assert "it sends in bursts: pictures wait up to 0.25 s" in watched.texts(Status.LIVE)
    assert rises(watched)


def test_a_source_that_sends_smoothly_does_not_wait(ffmpeg, watch, port):
    at = port(socket.SOCK_DGRAM)
    # With pictures that are not sent in the order in which they are shown.
    h264 = ["-c:v", "libx264", "-preset", "ultrafast", "-bf", "2", "-g", "12", "-b:v", "2M"]
    noise = ["-re", "-f", "lavfi", "-i", "testsrc2=size=320x240:rate=25"]
    ffmpeg(*noise, *h264, "-f", "mpegts", f"udp://127.0.0.1:{at}?pkt_size=1316")
    watched = watch(f"udp://127.0.0.1:{at}")
    watched.more(60)
    # A machine that stands still makes a bunch of any source, but not for long.
    watched.until(lambda: "bursts" not in watched.context.statuses[-1][1])
    watched.stop()
    assert rises(watched)


def segments(folder, *kinds):
    """One MPEG-TS, of pieces that were coded each in its own way, one after the other."""
    whole = b""
    for number, (size, *codec) in enumerate(kinds):
        piece = Path(folder) / f"{number}.ts"
        source = ["-f", "lavfi", "-i", f"testsrc2=size={size}:rate=25", "-t", "2"]
        subprocess.run(
            ["ffmpeg", "-loglevel", "error", *source, *codec, "-g", "12", "-y", piece], check=True
        )
        whole += piece.read_bytes()
    return whole


@pytest.fixture
def broadcast():
    """Sends bytes over UDP, datagram by datagram, at a rate."""
    threads, ending = [], threading.Event()

    def start(data, at, *, seconds):
        def send():
            chunks = [data[start : start + 1316] for start in range(0, len(data), 1316)]
            while f":{at:04X} 00000000:0000 07" not in Path("/proc/net/udp").read_text():
                if ending.wait(0.02):  # nobody receives yet
                    return
            begun = time.monotonic()
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
                for number, chunk in enumerate(chunks):
                    due = begun + number * seconds / len(chunks)
                    if ending.wait(max(0.0, due - time.monotonic())):
                        return
                    out.sendto(chunk, ("127.0.0.1", at))

        threads.append(threading.Thread(target=send))
        threads[-1].start()

    yield start
    ending.set()
    for thread in threads:
        thread.join()


def test_the_size_changes_in_mid_stream(watch, broadcast, port, tmp_path):
    x264 = ["-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency"]
    data = segments(tmp_path, ("160x120", *x264), ("96x160", *x264))
    at = port(socket.SOCK_DGRAM)
    broadcast(data, at, seconds=4)
    watched = watch(f"udp://127.0.0.1:{at}")
    watched.until(lambda: watched.headers and watched.headers[-1].width == 96)
    watched.more(10)
    sizes = [(header.width, header.height) for header in watched.headers]
    assert list(dict.fromkeys(sizes)) == [(160, 120), (96, 160)]
    assert watched.statuses == [Status.CONNECTING, Status.LIVE]
    assert rises(watched)


def test_the_codec_changes_in_mid_stream(watch, broadcast, port, tmp_path):
    x264 = ["-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency"]
    mpeg2 = ["-c:v", "mpeg2video", "-b:v", "1M"]
    data = segments(tmp_path, ("160x120", *x264), *[("320x180", *mpeg2)] * 5)
    at = port(socket.SOCK_DGRAM)
    broadcast(data, at, seconds=12)
    watched = watch(f"udp://127.0.0.1:{at}", timeout=1)
    watched.until(lambda: watched.headers and watched.headers[-1].width == 320)
    watched.more(10)
    assert watched.headers[0].width == 160
    assert rises(watched)


def test_a_broadcast_that_pauses_goes_on_on_one_clock(ffmpeg, watch, port):
    at = port(socket.SOCK_DGRAM)
    url = f"udp://127.0.0.1:{at}?pkt_size=1316"
    first = ffmpeg(*PICTURE, *H264, "-f", "mpegts", url)
    watched = watch(f"udp://127.0.0.1:{at}", timeout=5)
    watched.more(25)
    kill(first)
    watched.until(lambda: lost(watched) == 1)
    assert "has sent nothing for 5 s" in watched.texts(Status.RECONNECTING)
    before = len(watched.headers)
    ffmpeg(*PICTURE, *H264, "-f", "mpegts", url)
    watched.more(25)
    assert watched.headers[before].time - watched.headers[before - 1].time > 1
    assert rises(watched)


def test_a_server_of_rtmp_goes_away_and_comes_back(ffmpeg, watch, port):
    at = port(socket.SOCK_STREAM)
    url = f"rtmp://127.0.0.1:{at}/live/key"
    serve = [*PICTURE, *SOUND, *H264, "-f", "flv", "-listen", "1", url]
    first = ffmpeg(*serve)
    wait_for_listener(at)
    watched = watch(url, wants_audio=True, timeout=5)
    watched.more(25)
    kill(first)
    watched.until(lambda: "refused: " in watched.texts(Status.RECONNECTING))
    ffmpeg(*serve)
    watched.more(25)
    assert watched.now is Status.LIVE
    assert rises(watched)
    heard = [packet for packet in watched.packets if packet.data]
    assert all(later.pts > sooner.pts for sooner, later in pairwise(heard))
    assert "key" not in str(watched.context.statuses)


def test_senders_of_rtmp_are_waited_for(ffmpeg, watch, port):
    at = port(socket.SOCK_STREAM)
    url = f"rtmp://127.0.0.1:{at}/live/key"
    push = [*PICTURE, *SOUND, *H264, "-f", "flv", url]
    watched = watch(url, timeout=5, options={"listen": 1})
    wait_for_listener(at)
    assert "waiting for a sender" in watched.texts(Status.CONNECTING)
    sender = ffmpeg(*push)
    watched.more(25)
    kill(sender)
    watched.until(lambda: lost(watched) == 1)
    wait_for_listener(at)
    ffmpeg(*push)
    watched.more(25)
    assert rises(watched)


def test_a_stream_over_http_that_is_known_as_live_is_waited_for(ffmpeg, watch, port):
    url = f"http://127.0.0.1:{port(socket.SOCK_STREAM)}/live.ts"
    watched = watch(url, live=True, timeout=5)
    watched.until(lambda: "refused: " in watched.texts(Status.CONNECTING))
    ffmpeg(*PICTURE, *H264, "-f", "mpegts", "-listen", "1", url)
    watched.more(25)
    assert watched.statuses == [Status.CONNECTING, Status.LIVE]


def test_a_stream_over_http_is_found_to_have_no_end(ffmpeg, watch, port):
    at = port(socket.SOCK_STREAM)
    url = f"http://127.0.0.1:{at}/live.ts"
    serve = [*PICTURE, *H264, "-f", "mpegts", "-listen", "1", url]
    first = ffmpeg(*serve)
    wait_for_listener(at)
    watched = watch(url, timeout=5)
    watched.more(25)
    kill(first)
    watched.until(lambda: lost(watched) == 1)
    ffmpeg(*serve)
    watched.more(25)
    assert watched.now is Status.LIVE
    assert rises(watched)


def wait_for_listener(at):
    """Waits until a port is listened at, without connecting to it."""
    wanted = f"0100007F:{at:04X} 00000000:0000 0A"
    while wanted not in Path("/proc/net/tcp").read_text():
        time.sleep(0.02)


def test_a_live_playlist_whose_server_goes_away(ffmpeg, web, watch, port, tmp_path):
    live = ["-hls_time", "1", "-hls_list_size", "4", "-hls_flags", "delete_segments+omit_endlist"]
    at = port(socket.SOCK_STREAM)
    server = web(tmp_path, at)
    watched = watch(f"http://127.0.0.1:{at}/live.m3u8", live=True, timeout=5)
    watched.until(lambda: "not found: " in watched.texts(Status.CONNECTING))
    ffmpeg(*PICTURE, *H264, "-f", "hls", *live, tmp_path / "live.m3u8")
    watched.more(50)
    kill(server)
    watched.until(lambda: "refused: " in watched.texts(Status.RECONNECTING))
    web(tmp_path, at)
    watched.more(25)
    assert watched.now is Status.LIVE
    assert rises(watched)


def test_a_playlist_with_an_end_ends(web, watch, port, tmp_path):
    source = ["-f", "lavfi", "-i", "testsrc=size=160x120:rate=25", "-t", "3"]
    hls = ["-f", "hls", "-hls_time", "1", "-hls_list_size", "0", tmp_path / "film.m3u8"]
    subprocess.run(["ffmpeg", "-loglevel", "error", *source, *H264, *hls], check=True)
    at = port(socket.SOCK_STREAM)
    web(tmp_path, at)
    watched = watch(f"http://127.0.0.1:{at}/film.m3u8")
    assert watched.ended() is None
    assert len(watched.headers) == 75
    assert lost(watched) == 0
