"""Viewers that stall, dawdle, flood or lie: the stream and the others go on."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time

import pytest
from web_stage import staged, ts_numbers, wait_for

from nodes.web import app, connections
from streamer import Count


def stream(stage, path="/stream.ts", *, buffer=None):
    """A viewer that asks for a stream and reads nothing yet."""
    viewer = socket.socket()
    if buffer is not None:
        viewer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    viewer.settimeout(30)
    viewer.connect(("127.0.0.1", stage.port))
    viewer.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    return viewer


def closed(connection):
    """Whether the other side has ended a connection, within the socket's own time."""
    try:
        while connection.recv(65536):
            pass
    except ConnectionResetError:
        pass
    return True


@pytest.mark.parametrize("path", ["/stream.ts", "/stream.mjpeg"])
def test_a_viewer_that_reads_nothing_is_closed_and_nobody_notices(path):
    with staged(stall=1.5, bitrate="20M", jpeg_quality=100, fps=60) as stage:
        with contextlib.closing(stream(stage, path, buffer=4096)) as stalled:
            kind = path.rpartition(".")[2]
            wait_for(lambda: stage.viewers(kind) == 1)
            numbers = ts_numbers(f"http://127.0.0.1:{stage.port}/stream.ts", 100)
            assert numbers == list(range(numbers[0], numbers[0] + 100))
            wait_for(lambda: stage.viewers(kind) == 0)
            assert closed(stalled)
        assert stage.context.counts[Count.SKIPPED] > 0
        assert len(stage.context.sent) >= stage.number - 1
        assert not stage.context.dropped


def test_a_viewer_that_takes_pictures_slowly_is_not_closed():
    # One picture takes it longer than a viewer may take nothing for.
    with staged(stall=2, jpeg_quality=100, fps=5) as stage:
        stage.size = (2560, 1440)
        wait_for(lambda: stage.number > 0)
        with contextlib.closing(stream(stage, "/stream.mjpeg", buffer=4096)) as slow:
            taken = 0
            while taken < 1_200_000:
                part = slow.recv(16384)
                assert part, f"closed after {taken} bytes"
                taken += len(part)
                time.sleep(0.02)
            assert stage.viewers("mjpeg") == 1


def test_a_viewer_that_was_slow_goes_on_with_what_is_new():
    with staged(bitrate="20M", fps=60, keyframe_interval=60) as stage:
        with contextlib.closing(stream(stage, buffer=4096)) as slow:
            wait_for(lambda: stage.context.counts[Count.SKIPPED] > 20)
            before = stage.number
            data = b""
            while before + 60 > stage.number or len(data) < 100_000:
                data += slow.recv(1 << 20)
        # Whole packets to the end, and tables again where it went on.
        start = data.index(b"\r\n\r\n")
        assert data[start:].count(b"\x47\x40\x00") > 10


def test_a_viewer_that_is_killed_is_forgotten():
    with staged() as stage:
        code = f"""
import av
for frame in av.open("http://127.0.0.1:{stage.port}/stream.ts").decode(video=0): pass
"""
        player = subprocess.Popen([sys.executable, "-c", code])
        try:
            wait_for(lambda: stage.viewers("ts") == 1)
            os.kill(player.pid, signal.SIGKILL)
        finally:
            player.kill()
            player.wait()
        wait_for(lambda: stage.viewers("ts") == 0)
        numbers = ts_numbers(f"http://127.0.0.1:{stage.port}/stream.ts", 5)
        assert numbers == list(range(numbers[0], numbers[0] + 5))


def test_there_are_no_more_viewers_than_allowed():
    with staged(max_viewers=2) as stage:
        with contextlib.closing(stream(stage)), contextlib.closing(stream(stage, "/stream.mjpeg")):
            wait_for(lambda: sum(stage.health()["viewers"].values()) == 2)
            for path in ("/stream.ts", "/stream.mjpeg"):
                status, headers, body = stage.get(path)
                assert status == 503
                assert body == b"there are 2 viewers, as many as max_viewers allows\n"
                assert headers["retry-after"] == "5"
            assert stage.get("/snapshot.jpg")[0] == 200
        wait_for(lambda: sum(stage.health()["viewers"].values()) == 0)
        assert len(ts_numbers(f"http://127.0.0.1:{stage.port}/stream.ts", 2)) == 2
    assert max(stage.context.watching) == 2


def test_a_head_that_comes_drop_by_drop_is_cut(monkeypatch):
    monkeypatch.setattr(connections, "REQUEST", 0.5)
    monkeypatch.setattr(connections, "KEEP_ALIVE", 0.5)
    with staged() as stage:
        with socket.create_connection(("127.0.0.1", stage.port), timeout=30) as slow:
            slow.sendall(b"GET / HTTP/1.1\r\nHost: local")
            assert closed(slow)
        with socket.create_connection(("127.0.0.1", stage.port), timeout=30) as mute:
            assert closed(mute)
        with socket.create_connection(("127.0.0.1", stage.port), timeout=30) as second:
            # Nor may the second request of a connection dawdle.
            second.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\nGET /he")
            assert closed(second)


def test_a_stream_is_no_slow_request(monkeypatch):
    monkeypatch.setattr(connections, "REQUEST", 0.3)
    with staged() as stage:
        numbers = ts_numbers(f"http://127.0.0.1:{stage.port}/stream.ts", 45)
    assert numbers == list(range(numbers[0], numbers[0] + 45))


def test_connections_are_bounded(monkeypatch):
    monkeypatch.setattr("nodes.web.node._CONNECTIONS", 4)
    with staged(max_viewers=1) as stage, contextlib.ExitStack() as opened:
        address = ("127.0.0.1", stage.port)
        held = [
            opened.enter_context(socket.create_connection(address, timeout=30)) for _ in range(6)
        ]
        with socket.create_connection(address, timeout=30) as one_too_many:
            assert closed(one_too_many)
        for connection in held[:3]:
            connection.close()

        def served():
            with contextlib.suppress(OSError):
                return stage.get("/health")[0] == 200

        wait_for(served)


def test_heads_and_bodies_are_bounded(monkeypatch):
    with staged() as stage:
        with socket.create_connection(("127.0.0.1", stage.port), timeout=30) as large:
            with contextlib.suppress(ConnectionError):
                large.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 400_000)
            with contextlib.suppress(ConnectionResetError):
                answer = large.recv(100)
                assert answer.startswith(b"HTTP/1.1 400")
        status, _, body = stage.get(
            "/whep", {"content-type": "application/sdp"}, "POST", b"v=0\r\n" * 20_000
        )
        assert status == 413
        assert b"65536 bytes at most" in body
        monkeypatch.setattr(app, "REQUEST", 0.5)
        with socket.create_connection(("127.0.0.1", stage.port), timeout=30) as slow:
            slow.sendall(
                b"POST /whep HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/sdp\r\n"
                b"Content-Length: 500\r\n\r\nv=0"
            )
            assert slow.recv(100).startswith(b"HTTP/1.1 408")
        assert stage.get("/health")[0] == 200


def test_what_is_not_offered_is_refused():
    with staged() as stage:
        for method, path, status in (
            ("POST", "/stream.ts", 405),
            ("POST", "/", 405),
            ("GET", "/whep", 405),
            ("GET", "/../../etc/passwd", 404),
            ("GET", "/nothing", 404),
            ("DELETE", "/whep/nobody", 404),
            ("POST", "/whep", 415),
        ):
            assert stage.get(path, {}, method)[0] == status, (method, path)


def test_garbage_is_answered_and_survived():
    with staged() as stage:
        for garbage in (
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc" * 40,
            b"\r\n\r\n\0\0\0",
            b"GET\r\n\r\n",
        ):
            with socket.create_connection(("127.0.0.1", stage.port), timeout=30) as viewer:
                viewer.sendall(garbage)
                viewer.shutdown(socket.SHUT_WR)
                closed(viewer)
        assert stage.get("/health")[0] == 200
