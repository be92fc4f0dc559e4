from __future__ import annotations

import http.server
import os
import threading
import time
from fractions import Fraction
from functools import partial
from itertools import pairwise

import av
import pytest

from nodes.decoder import Decoder
from nodes.decoder.address import parse_address
from nodes.decoder.connection import Connection
from nodes.decoder.faults import Fault, Reason
from nodes.decoder.input import open_input
from streamer import Packet, SourceError, Status
from streamer.testing import SoloContext, solo


@pytest.fixture
def broadcast(texture):
    """Sends MPEG-TS to a UDP port of this machine, like a camera, until told to stop."""
    ending, threads = threading.Event(), []

    def start(port, *, most=10_000):
        def send():
            url = f"udp://127.0.0.1:{port}?pkt_size=1316"
            options = {"tune": "zerolatency", "preset": "ultrafast", "g": "10"}
            with av.open(url, "w", format="mpegts") as out:
                video = out.add_stream("libx264", rate=50, options=options)
                video.width, video.height, video.pix_fmt = 160, 120, "yuv420p"
                for number in range(most):
                    if ending.wait(0.02):
                        return
                    frame = av.VideoFrame.from_ndarray(texture(160, 120, number), format="rgb24")
                    frame.pts, frame.time_base = number, Fraction(1, 50)
                    out.mux(video.encode(frame.reformat(format="yuv420p")))

        thread = threading.Thread(target=send)
        thread.start()
        threads.append(thread)

    yield start
    ending.set()
    for thread in threads:
        thread.join()


@pytest.fixture
def port():
    import socket

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_a_broadcast_is_joined_in_mid_stream(broadcast, port):
    broadcast(port)
    context = SoloContext(wanted=("yuv420p",), live=True)
    decoder = solo(Decoder, context=context, url=f"udp://127.0.0.1:{port}")
    frames, headers = decoder.frames(), []
    for frame in frames:
        with frame:
            headers.append(frame.header)
            assert frame.numpy().shape == (180, 160)
        if len(headers) == 20:
            break
    frames.close()
    decoder.close()
    assert all(later.pts > sooner.pts for sooner, later in pairwise(headers))
    assert all(0 < header.capture_ns <= time.monotonic_ns() for header in headers)
    url = f"udp://127.0.0.1:{port}"
    assert context.statuses[:2] == [
        (Status.CONNECTING, f"connecting to {url}"),
        (Status.LIVE, url),
    ]


def test_a_broadcast_that_falls_silent_is_told(broadcast, port):
    broadcast(port, most=60)
    context = SoloContext()
    url = f"udp://127.0.0.1:{port}"
    decoder = solo(Decoder, context=context, url=url, timeout=1.5, give_up=0)
    seen = []

    def watch():
        for frame in decoder.frames():
            with frame:
                seen.append(frame.pts)

    with pytest.raises(SourceError, match=r"has sent nothing for 1\.5 s") as caught:
        watch()
    decoder.close()
    assert len(seen) > 10
    assert caught.value.reason is Reason.TIMEOUT
    assert Status.STALLED in [status for status, _ in context.statuses]


def test_a_run_ends_although_the_source_is_silent(broadcast, port):
    broadcast(port, most=60)
    context = SoloContext()
    # Only `stopping` can end this before the test's own patience does.
    decoder = solo(Decoder, context=context, url=f"udp://127.0.0.1:{port}", timeout=300)
    seen = 0
    for frame in decoder.frames():
        with frame:
            seen += 1
        if seen == 10:
            threading.Timer(0.2, context.stopping.set).start()
    decoder.close()
    assert seen >= 10


@pytest.fixture
def web(tmp_path):
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    handler = partial(Quiet, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_file_over_http_loses_nothing(clip, play, web):
    path = clip("clip.mp4", count=30, audio="aac", container={"movflags": "faststart"})
    near, far = play(path, wants_audio=True), play(f"{web}/clip.mp4", wants_audio=True)
    assert [header.pts for header in far.headers] == [header.pts for header in near.headers]
    assert [packet.data for packet in far.packets] == [packet.data for packet in near.packets]
    assert far.context.expected["frames"] == 30


def test_a_file_over_http_is_brought_to_a_rate_and_looped(clip, play, web):
    clip("clip.mp4", count=25, container={"movflags": "faststart"})
    assert len(play(f"{web}/clip.mp4", fps=50).headers) == 50
    assert play(f"{web}/clip.mp4", loop=True, most=40).times[-1] == pytest.approx(39 / 25)


def test_live_times_stay_as_they_are_at_a_lower_rate(clip, play, web):
    clip("clip.ts", codec="mpeg2video", count=50)
    played = play(f"{web}/clip.ts", live=True, fps=10)
    assert len(played.headers) == 20
    assert played.dropped == {"rate": 30}
    assert {header.time_base for header in played.headers} == {Fraction(1, 90000)}
    assert not any(isinstance(item, Packet) for item in played.headers)


def test_a_named_pipe_is_read_to_its_end(clip, play, tmp_path):
    path = clip("clip.ts", codec="mpeg2video", count=20)
    pipe = tmp_path / "pipe.ts"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(path.read_bytes()))
    writer.start()
    assert len(play(pipe).headers) == 20
    writer.join()


def test_a_run_ends_although_nobody_writes_to_the_pipe(tmp_path):
    pipe = tmp_path / "pipe.ts"
    os.mkfifo(pipe)
    context = SoloContext()
    threading.Timer(0.2, context.stopping.set).start()
    decoder = solo(Decoder, context=context, url=str(pipe))
    assert list(decoder.frames()) == []
    decoder.close()
    # Lets the reader go that is still waiting for somebody to write.
    os.close(os.open(pipe, os.O_RDWR))


def connected(clip, give_up):
    """A connection to something that can be opened whenever it is asked for."""
    params = Decoder.Params(url="tcp://127.0.0.1:1", live=True, give_up=give_up)
    place = parse_address(str(clip("clip.mp4")))
    return Connection(
        parse_address(params.url),
        params,
        SoloContext(name="source"),
        lambda: open_input(place, params, live=False, audio=False),
    )


SILENT = Fault("it sends nothing", Reason.TIMEOUT, retry=True)


def test_a_source_that_opens_and_gives_nothing_is_given_up(clip):
    connection = connected(clip, give_up=1)
    connection.open()

    def again_and_again():
        while True:
            connection.lost(SILENT)
            connection.again()

    with pytest.raises(Fault, match=r"it sends nothing; given up after 1 s \(give_up\)"):
        again_and_again()
    connection.close()


def test_a_source_that_gives_pictures_in_between_is_not_given_up(clip):
    connection = connected(clip, give_up=0.5)
    connection.open()
    begun = time.monotonic()
    while time.monotonic() < begun + 1.5:
        connection.live()
        connection.lost(SILENT)
        connection.again()
    connection.close()
