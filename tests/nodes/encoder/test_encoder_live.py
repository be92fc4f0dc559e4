"""Live outputs, received by real players on loopback."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
from encoder_media import MILLI, encode, feed, frames, look
from encoder_sound import FPS, MARKS, compressed, flashes, record

from nodes.encoder import Encoder
from streamer import Drop
from streamer.testing import SoloContext, solo

COUNT = 75


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    with closing(socket.socket(socket.AF_INET, kind)) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Player:
    """A player in a process of its own."""

    def __init__(self, url: str, *, wanted: int, **options: str) -> None:
        script = Path(__file__).with_name("encoder_player.py")
        self._process = subprocess.Popen(
            [sys.executable, str(script), url, str(wanted), json.dumps(options)],
            stdout=subprocess.PIPE,
            text=True,
        )

    @property
    def playing(self) -> bool:
        return self._process.poll() is None

    def result(self) -> SimpleNamespace:
        try:
            text, _ = self._process.communicate(timeout=30)
        finally:
            self._process.kill()
        return SimpleNamespace(**json.loads(text))


def assert_lively(seen: SimpleNamespace) -> None:
    """No picture is held back by B-frames, and a keyframe comes each second."""
    assert seen.order == sorted(seen.order)
    assert len(seen.keys) >= 2
    assert {round(b - a, 3) for a, b in pairwise(seen.keys)} == {1.0}
    assert {round(b - a, 3) for a, b in pairwise(seen.pts)} == {0.04}


def test_udp_mpegts_is_received(tmp_path):
    port = free_port(socket.SOCK_DGRAM)
    player = Player(f"udp://127.0.0.1:{port}?timeout=15000000", wanted=COUNT, probesize="50000")
    encoder = solo(Encoder, url=f"udp://127.0.0.1:{port}")
    assert encoder.takes_audio()
    endless = range(0, 40 * 10_000, 40)
    for frame in frames(endless, time_base=MILLI):
        feed(encoder, [frame])
        if not player.playing:
            break
        time.sleep(0.005)  # a datagram that comes faster than it is read is lost
    encoder.finish()
    encoder.close()
    seen = player.result()
    assert seen.failure is None
    assert len(seen.pts) >= COUNT
    assert_lively(seen)


def test_live_pictures_leave_the_encoder_at_once(tmp_path):
    context = SoloContext(live=True)
    encoder = solo(Encoder, context=context, url=f"udp://127.0.0.1:{free_port()}")
    for number, frame in enumerate(frames(range(0, 40_000, 40), time_base=MILLI)):
        feed(encoder, [frame])
        for _ in range(5000):
            if len(context.sent) + sum(context.dropped.values()) == number + 1:
                break
            time.sleep(encoder.idle() or 0.002)
        # None waits for the next one; the first ones may come before there is a connection.
        assert len(context.sent) + context.dropped[Drop.DISCONNECTED] == number + 1
        if len(context.sent) == 20:
            break
    assert len(context.sent) == 20
    encoder.finish()
    encoder.close()


def wait_for_listener(url: str) -> None:
    """Waits until the port is bound, without connecting: the server takes one client only."""
    port = int(url.rpartition("127.0.0.1:")[2].partition("/")[0])
    listening = f":{port:04X} 00000000:0000 0A"  # as in /proc/net/tcp; state 0A is LISTEN
    for _ in range(2000):
        if listening in Path("/proc/net/tcp").read_text():
            return
        time.sleep(0.01)
    raise AssertionError(f"nobody listens on {port}")


@pytest.mark.parametrize(
    ("address", "options"),
    [
        ("rtmp://127.0.0.1:{}/live/key", {"listen": "1"}),
        ("http://127.0.0.1:{}/a.ts", {"listen": "1"}),
        ("http://127.0.0.1:{}/a.mkv", {"listen": "1"}),
        ("http://127.0.0.1:{}/a.mp4", {"listen": "1"}),
        ("tcp://127.0.0.1:{}", {"listen": "1"}),
        ("rtsp://127.0.0.1:{}/live", {"rtsp_flags": "listen", "listen_timeout": "20"}),
    ],
)
def test_push_to_a_listening_server(address, options):
    url = address.format(free_port())
    player = Player(
        url + ("?listen" if "tcp:" in url else ""), wanted=10_000, probesize="50000", **options
    )
    wait_for_listener(url)
    record(url, flashes(), compressed("aac", "mp4"))
    seen = player.result()
    assert len(seen.levels) == 100
    bright = [number for number, level in enumerate(seen.levels) if level > 120]
    assert [number / FPS for number in bright] == list(MARKS)
    if len(seen.pts) == 100:
        assert [round(seen.pts[n] - seen.pts[0], 2) for n in bright] == list(MARKS)
    else:
        assert address.startswith("rtsp:")
    assert seen.sound > 150
    assert seen.order == sorted(seen.order)


def test_a_new_size_on_a_live_output_opens_it_anew():
    port = free_port(socket.SOCK_DGRAM)
    context = SoloContext(live=True)
    encoder = solo(Encoder, context=context, url=f"udp://127.0.0.1:{port}")
    fed = 0
    for size in ((160, 96), (96, 64)):
        for frame in frames(range(fed * 40, 40_000, 40), time_base=MILLI, size=size):
            feed(encoder, [frame])
            fed += 1
            time.sleep(encoder.idle() or 0.002)
            if sum((one.width, one.height) == size for one in context.sent) >= 5:
                break
    encoder.finish()
    encoder.close()
    assert {(one.width, one.height) for one in context.sent} == {(160, 96), (96, 64)}
    assert len(context.sent) + sum(context.dropped.values()) == fed


def test_live_settings_have_no_bframes_but_files_may(tmp_path):
    context = encode(tmp_path / "out.mp4", frames(range(0, 4000, 40), time_base=MILLI))
    assert look(tmp_path / "out.mp4").bframes
    assert len(context.sent) == 100


def test_pictures_that_an_encoder_keeps_for_itself_are_counted():
    context = SoloContext(live=True)
    url = f"udp://127.0.0.1:{free_port()}"
    options = {"tune": "film", "bf": 3}  # against all that suits a live output
    encoder = solo(Encoder, context=context, url=url, options=options)
    feed(encoder, frames(range(0, 400, 40), time_base=MILLI))
    encoder.close()  # without an end
    assert len(context.sent) + sum(context.dropped.values()) == 10
    assert sum(context.dropped.values()) > 0
