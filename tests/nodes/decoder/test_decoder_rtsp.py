"""A real RTSP server: GStreamer's, of the packages that `.ci/run` installs."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest

from nodes.decoder import Decoder
from streamer import Packet, SourceError
from streamer.testing import SoloContext, solo

PYTHON = "/usr/bin/python3"
PROBE = (
    "import gi; gi.require_version('GstRtspServer', '1.0'); gi.require_version('Gst', '1.0');"
    "from gi.repository import Gst, GstRtspServer; Gst.init(None);"
    "assert all(map(Gst.ElementFactory.find, ('x264enc', 'rtph264pay', 'alawenc')))"
)


def has_server():
    if shutil.which(PYTHON) is None:
        return False
    return not subprocess.run([PYTHON, "-c", PROBE], capture_output=True, check=False).returncode


pytestmark = pytest.mark.skipif(not has_server(), reason="needs GStreamer's RTSP server (gi)")


@pytest.fixture
def camera():
    """Starts a camera and returns its process and its address."""
    started = []

    def start(login=None):
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        script = str(Path(__file__).with_name("rtsp_camera.py"))
        process = subprocess.Popen(
            [PYTHON, script, str(port), *([login] if login else [])],
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process, f"127.0.0.1:{port}"

    yield start
    for process in started:
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.wait()
        process.stdout.close()


def test_picture_and_sound_of_a_camera(camera):
    _, host = camera()
    context = SoloContext(name="camera", wanted=("yuv420p",), wants_audio=True, live=True)
    decoder = solo(Decoder, context=context, url=f"rtsp://{host}/live")
    frames, headers, packets = decoder.frames(), [], []
    for item in frames:
        if isinstance(item, Packet):
            packets.append(item)
            continue
        with item:
            headers.append(item.header)
        if len(headers) == 45:
            break
    frames.close()
    decoder.close()
    steps = sorted(later.time - sooner.time for sooner, later in pairwise(headers))
    assert steps[0] > 0
    assert steps[len(steps) // 2] == pytest.approx(1 / 30, abs=0.002)
    assert all(later.capture_ns > sooner.capture_ns for sooner, later in pairwise(headers))
    assert packets[0].data == b""
    assert packets[0].audio.codec == "pcm_alaw"
    assert len(packets) > 5
    assert context.dropped == {}


@pytest.mark.parametrize("how", [signal.SIGSTOP, signal.SIGKILL])
def test_a_camera_that_hangs_or_dies_is_told_and_may_come_back(camera, how):
    process, host = camera()
    decoder = solo(Decoder, url=f"rtsp://{host}/live", timeout=1.0)
    seen = []

    def watch():
        for item in decoder.frames():
            with item:
                seen.append(item.seq)
            if len(seen) == 10:
                os.kill(process.pid, how)

    expected = "has sent nothing for 1 s" if how == signal.SIGSTOP else "it ended the stream"
    with pytest.raises(SourceError, match=expected) as caught:
        watch()
    decoder.close()
    assert len(seen) >= 10
    assert caught.value.retry


def test_a_camera_with_a_password(camera):
    _, host = camera("me:hunter2")
    with pytest.raises(SourceError, match="the user name or password is wrong"):
        solo(Decoder, url=f"rtsp://me:wrong@{host}/live")
    with pytest.raises(SourceError, match="it wants a user name and password"):
        solo(Decoder, url=f"rtsp://{host}/live")
    with pytest.raises(SourceError, match="is not known to the server"):
        solo(Decoder, url=f"rtsp://me:hunter2@{host}/nothing")
    decoder = solo(Decoder, url=f"rtsp://me:hunter2@{host}/live")
    frames = decoder.frames()
    with next(frames) as frame:
        assert (frame.width, frame.height) == (160, 120)
    frames.close()
    decoder.close()
