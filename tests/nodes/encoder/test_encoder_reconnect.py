"""Outputs whose server is not there yet, goes away, hangs or refuses; all of them real."""

from __future__ import annotations

import http.server
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from encoder_media import MILLI, encode, feed, frames
from encoder_sound import compressed, flashes, record
from encoder_stage import Stage, closing
from test_encoder_live import Player, free_port, wait_for_listener

from nodes.encoder import Encoder, connection
from streamer import Drop, SinkError
from streamer.testing import SoloContext, solo

HERE = Path(__file__).parent
SYSTEM_PYTHON = "/usr/bin/python3"
HAS_GSTREAMER = not subprocess.run(
    [SYSTEM_PYTHON, "-c", "import gi; gi.require_version('GstRtspServer', '1.0')"],
    capture_output=True,
    check=False,
).returncode


class Server:
    """A server in a process of its own that prints a line for each thing that it receives."""

    def __init__(self, python: str, script: str, *arguments: object) -> None:
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            [python, str(HERE / script), *map(str, arguments)], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.strip())

    def kill(self) -> None:
        self.process.kill()  # a stopped process dies, too
        self.process.wait()
        self._reader.join()
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def on_stage() -> Iterator[Callable[..., Stage]]:
    with closing() as make:
        yield make


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    running: list[Server] = []

    def start(*arguments: object) -> Server:
        running.append(Server(*arguments))
        return running[-1]

    yield start
    for server in running:
        server.kill()


def sender_of_this_process() -> int:
    """Process id of the process that holds the connection."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if parent == os.getpid() and b"nodes.encoder.sender" in words:
                return int(entry.name)
    raise AssertionError("no such process")


@pytest.mark.parametrize(
    ("address", "options"),
    [
        ("rtmp://127.0.0.1:{}/live/hidden", {"listen": "1"}),
        ("http://127.0.0.1:{}/a.ts?token=hidden", {"listen": "1"}),
        ("tcp://127.0.0.1:{}", {}),
    ],
)
def test_a_server_that_comes_late_goes_and_comes_back(address, options, caplog, on_stage):
    url = address.format(free_port())
    listening = url + ("?listen" if "tcp:" in url else "")
    caplog.set_level(logging.INFO)
    stage = on_stage(url, step=0.02)
    stage.play(lambda: stage.lost >= 5)
    assert stage.statuses == ["connecting"]
    ends = []
    for turn in ("live", "reconnecting", "live"):
        if turn == "live":
            player = Player(listening, wanted=20, probesize="5000", **options)
            wait_for_listener(url)
            stage.play(lambda: not player.playing)  # noqa: B023
            seen = player.result()
            assert seen.failure is None
            assert len(seen.levels) >= 20
            # It begins with a keyframe, or a player would wait for one.
            assert seen.pts[0] == seen.keys[0] == seen.order[0]
            ends.append((seen.pts[0], seen.pts[-1]))
        else:
            before = stage.lost
            stage.play(lambda: stage.statuses[-1] == turn and stage.lost >= before + 5)  # noqa: B023
    assert stage.course[:4] == ["connecting", "live", "reconnecting", "live"]
    assert ends[1][0] > ends[0][1], "times go on"
    stage.end()
    assert set(stage.context.dropped) <= {Drop.DISCONNECTED}
    assert "is lost: the other side closed the connection" in caplog.text
    assert "is connected again after" in caplog.text
    assert "hidden" not in caplog.text + str(stage.context.statuses)


@pytest.mark.parametrize("live", [True, False])
def test_a_process_that_is_slow_to_start_is_no_silence_of_the_server(
    live, tmp_path, monkeypatch, on_stage
):
    url = f"tcp://127.0.0.1:{free_port()}"
    player = Player(url + "?listen", wanted=20, probesize="5000")
    wait_for_listener(url)
    slow = tmp_path / "python"
    slow.write_text(f'#!/bin/sh\nsleep 3\nexec "{sys.executable}" "$@"\n')
    slow.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(slow))
    stage = on_stage(url, live=live, alone=False, step=0.02, timeout=1)
    stage.play(lambda: stage.sent >= 10)
    assert stage.course == ["connecting", "live"]
    assert live or not stage.lost  # pictures of a file have waited
    stage.play(lambda: not player.playing)
    assert len(player.result().levels) >= 20


def test_a_process_that_never_starts_is_replaced(tmp_path, monkeypatch, on_stage):
    url = f"tcp://127.0.0.1:{free_port()}"
    player = Player(url + "?listen", wanted=20, probesize="5000")
    wait_for_listener(url)
    hanging = tmp_path / "python"
    pid = tmp_path / "pid"
    hanging.write_text(f"#!/bin/sh\necho $$ > '{pid}'\nexec sleep 600\n")
    hanging.chmod(0o755)
    said = "the process that connects is not up after 1 s"
    with monkeypatch.context() as limit:
        limit.setattr(connection, "_STARTING", 1.0)
        with monkeypatch.context() as python:
            python.setattr(sys, "executable", str(hanging))
            stage = on_stage(url, alone=False, step=0.02, timeout=1)
            stage.play(lambda: pid.exists() and pid.read_text().endswith("\n"))
        stage.play(lambda: said in str(stage.context.statuses))
    hung = int(pid.read_text())
    assert not Path(f"/proc/{hung}").exists()
    stage.play(lambda: not player.playing)
    assert stage.course[:2] == ["connecting", "live"]
    assert len(player.result().levels) >= 20


@pytest.mark.skipif(not HAS_GSTREAMER, reason="needs GStreamer's RTSP server (gi)")
def test_an_rtsp_server_is_killed_and_comes_back(serve, on_stage):
    port = free_port()
    server = serve(SYSTEM_PYTHON, "rtsp_recorder.py", port)
    stage = on_stage(f"rtsp://127.0.0.1:{port}/live", step=0.02)
    stage.play(lambda: len(server.lines) >= 30)
    server.kill()
    before = stage.lost
    stage.play(lambda: stage.lost > before + 20)
    second = serve(SYSTEM_PYTHON, "rtsp_recorder.py", port)
    stage.play(lambda: len(second.lines) >= 30)
    stage.end()
    for each in (server, second):
        assert each.lines[0].startswith("key")
    assert stage.course == ["connecting", "live", "reconnecting", "live"]


@pytest.mark.skipif(not HAS_GSTREAMER, reason="needs GStreamer's RTSP server (gi)")
def test_a_server_that_hangs_is_found_and_the_pictures_before_it_are_not_held_up(serve, on_stage):
    port = free_port()
    server = serve(SYSTEM_PYTHON, "rtsp_recorder.py", port)
    url = f"rtsp://127.0.0.1:{port}/live"
    stage = on_stage(url, noise=(640, 480), timeout=1.5, quality=10, step=0.005)
    stage.play(lambda: len(server.lines) >= 10)
    server.process.send_signal(signal.SIGSTOP)
    # Its connection stays open: first the buffers fill, then nothing is taken any more.
    stage.play(lambda: "reconnecting" in stage.statuses)
    assert stage.context.dropped[Drop.CONGESTED]
    assert "stalled" in stage.statuses
    # It does not answer while it is tried again, and the connection is given up within the limit.
    stage.play(lambda: "no answer came within 1.5 s" in str(stage.context.statuses))
    server.process.send_signal(signal.SIGCONT)
    stage.play(lambda: stage.statuses[-1] == "live")
    stage.end()


def test_the_process_that_holds_the_connection_is_replaced_when_it_dies(caplog, on_stage):
    port = free_port()
    stage = on_stage(f"udp://127.0.0.1:{port}", step=0.01)
    stage.play(lambda: stage.sent >= 5)
    first = sender_of_this_process()
    os.kill(first, signal.SIGKILL)
    stage.play(lambda: stage.statuses[-1] == "reconnecting")
    before = stage.sent
    stage.play(lambda: stage.sent > before)
    assert sender_of_this_process() != first
    stage.end()
    assert "the process that holds the connection has died" in caplog.text
    with pytest.raises(AssertionError, match="no such process"):
        sender_of_this_process()


@pytest.mark.skipif(not HAS_GSTREAMER, reason="needs GStreamer's RTSP server (gi)")
def test_a_wrong_password_is_final(serve, on_stage):
    port = free_port()
    serve(SYSTEM_PYTHON, "rtsp_recorder.py", port, "/live", "me", "secret")
    stage = on_stage(f"rtsp://me:hidden@127.0.0.1:{port}/live")
    with pytest.raises(SinkError, match=r"refused the user name or password \(401\)") as caught:
        stage.play(lambda: False)
    assert stage.statuses == ["connecting", "failed"]
    assert "hidden" not in str(caught.value) + str(stage.context.statuses)


@pytest.mark.skipif(not HAS_GSTREAMER, reason="needs GStreamer's RTSP server (gi)")
def test_the_right_password_is_taken(serve, on_stage):
    port = free_port()
    server = serve(SYSTEM_PYTHON, "rtsp_recorder.py", port, "/live", "me", "secret")
    stage = on_stage(f"rtsp://me:secret@127.0.0.1:{port}/live")
    stage.play(lambda: len(server.lines) > 5)
    stage.end()


@pytest.mark.skipif(not HAS_GSTREAMER, reason="needs GStreamer's RTSP server (gi)")
def test_a_path_that_is_not_there_yet_is_asked_for_again(serve, on_stage, caplog):
    port = free_port()
    other = serve(SYSTEM_PYTHON, "rtsp_recorder.py", port, "/other")
    stage = on_stage(f"rtsp://127.0.0.1:{port}/live")
    stage.play(lambda: "(404) (attempt 2)" in str(stage.context.statuses))
    assert stage.statuses == ["connecting"]
    assert "does not take it yet: the server knows no such path (404); trying again" in caplog.text
    other.kill()
    server = serve(SYSTEM_PYTHON, "rtsp_recorder.py", port)
    stage.play(lambda: len(server.lines) > 5)
    stage.end()
    assert stage.course == ["connecting", "live"]


@pytest.mark.parametrize("code", [400, 409, 453, 503])
def test_other_refusals_may_pass(code, on_stage):
    class Refusing(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(code, "Busy")
            self.send_header("Content-Length", "0")
            self.end_headers()
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        stage = on_stage(f"whip://user:hidden@127.0.0.1:{server.server_port}/whip")
        stage.play(lambda: "(attempt 2)" in str(stage.context.statuses))
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert stage.statuses == ["connecting"]
    with pytest.raises(SinkError, match="cannot reach http"):
        stage.encoder.finish()


def test_a_run_that_never_reached_its_server_has_failed(on_stage):
    stage = on_stage(f"tcp://127.0.0.1:{free_port()}")
    stage.play(lambda: stage.lost > 3)
    with pytest.raises(SinkError, match=r"cannot reach tcp:.*the connection was refused"):
        stage.encoder.finish()
    stage.encoder.close()


def test_pictures_of_a_file_wait_for_the_server_and_none_is_lost():
    url = f"tcp://127.0.0.1:{free_port()}"
    context = SoloContext()
    pushing = threading.Thread(
        target=lambda: record(url, flashes(), compressed("aac", "mp4"), context=context)
    )
    pushing.start()
    for _ in range(2000):
        if "attempt" in str(context.statuses):
            break
        pushing.join(0.01)
    player = Player(url + "?listen", wanted=10_000, probesize="50000")
    seen = player.result()
    pushing.join()
    assert len(seen.levels) == len(context.sent) == 100
    assert not context.dropped


def test_other_outputs_of_a_file_do_not_wait_for_ever_for_a_server(on_stage, caplog):
    url = f"tcp://127.0.0.1:{free_port()}"
    stage = on_stage(url, live=False, alone=False, timeout=1)
    stage.play(lambda: stage.lost >= 10)
    assert f"{url} is not there: pictures of the file go to the other outputs" in caplog.text
    player = Player(url + "?listen", wanted=20, probesize="5000")
    wait_for_listener(url)
    stage.play(lambda: not player.playing)
    assert len(player.result().levels) >= 20
    stage.end()
    assert stage.sent >= 20


def test_that_pictures_of_a_file_wait_for_a_server_is_said(caplog):
    url = f"tcp://127.0.0.1:{free_port()}"
    context = SoloContext()
    pushing = threading.Thread(target=lambda: encode(url, flashes(), context=context, timeout=2))
    pushing.start()
    for _ in range(4000):
        if "pictures of the file wait for it" in caplog.text:
            break
        pushing.join(0.01)
    player = Player(url + "?listen", wanted=10_000, probesize="50000")
    assert len(player.result().levels) == 100
    pushing.join()
    assert not context.dropped
    assert "pictures of the file wait for it" in caplog.text


def test_pictures_of_a_file_do_not_wait_for_the_server_of_a_run_that_is_stopped(on_stage):
    stage = on_stage(f"tcp://127.0.0.1:{free_port()}", live=False, step=0)
    stopping = threading.Timer(0.5, stage.context.stopping.set)
    stopping.start()
    began = time.monotonic()
    stage.play(lambda: stage.lost >= 30)
    assert 0.5 < time.monotonic() - began < 10
    with pytest.raises(SinkError, match=r"cannot reach tcp:.*the connection was refused"):
        stage.end()
    assert stage.lost == stage.shown == 30
    stopping.join()


def test_closing_without_an_end_leaves_no_process():
    encoder = solo(Encoder, context=SoloContext(live=True), url=f"udp://127.0.0.1:{free_port()}")
    feed(encoder, frames(range(0, 200, 40), time_base=MILLI))
    sender_of_this_process()
    encoder.close()
    with pytest.raises(AssertionError, match="no such process"):
        sender_of_this_process()


@pytest.mark.parametrize("sound", [False, True])
def test_a_whip_server_receives_pictures_and_sound(serve, sound, on_stage):
    pytest.importorskip("aiortc")
    port = free_port()
    server = serve(sys.executable, "whip_server.py", port, "letmein")
    url, options = f"http://127.0.0.1:{port}/whip", {"authorization": "letmein"}
    stage = on_stage(url, step=0.02, sound=sound, muxer_options=options)
    stage.play(
        lambda: (
            sum(line.startswith("video 160x96") for line in server.lines) >= 20
            and sum(line.startswith("audio") for line in server.lines) >= 20 * sound
        )
    )
    stage.end()
