"""Faults outside of a run: its camera, its receivers and servers, its disk."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from chaos_faults import Outcome, ended_well, fault
from chaos_rig import LackingError, demand, show, until
from e2e_support import ROOT, free_port

PYTHON = "/usr/bin/python3"
CAMERA = ROOT / "tests/nodes/decoder/rtsp_camera.py"
RECORDER = ROOT / "tests/nodes/encoder/rtsp_recorder.py"

FROM_CAMERA = """version: 1
name: chaos
nodes:
  camera: {uses: decoder, with: {url: "rtsp://me:secret@127.0.0.1:$PORT/live", timeout: 2}}
  crop: {uses: preprocess, from: camera, with: {size: 64x64}}
  record: {uses: encoder, from: crop, with: {url: "$OUT/out.mkv", options: {tune: zerolatency}}}
"""
TO_SERVER = """version: 1
name: chaos
nodes:
  camera: {uses: decoder, with: {url: "$CLIP", realtime: true, loop: true}}
  crop: {uses: preprocess, from: camera, with: {size: 64x64}}
  obs: {uses: encoder, from: crop, with: {url: "$URL", audio: none, timeout: 2}}
  record: {uses: encoder, from: crop, with: {url: "$OUT/out.mkv", options: {tune: zerolatency}}}
"""


class Server:
    """A server of GStreamer's in a process of its own."""

    def __init__(self, script: Path, *options: str) -> None:
        found = subprocess.run(
            [PYTHON, "-c", "import gi; gi.require_version('GstRtspServer', '1.0')"],
            capture_output=True,
            check=False,
        )
        if found.returncode:
            raise LackingError("needs GStreamer's RTSP server (gir1.2-gst-rtsp-server-1.0)")
        self.port = free_port()
        self._script = script
        self.start(*options)

    def start(self, *options: str) -> None:
        """Starts it, on the same port every time."""
        self.process = subprocess.Popen(
            [PYTHON, str(self._script), str(self.port), *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert self.process.stdout is not None
        demand(self.process.stdout.readline() == b"ready\n", "the RTSP server did not start")
        os.set_blocking(self.process.stdout.fileno(), False)

    def kill(self) -> None:
        """Ends it at once."""
        self.process.kill()
        self.process.communicate()

    def came(self) -> bool:
        """Whether something has come in since the last call."""
        assert self.process.stdout is not None
        return bool(self.process.stdout.read())


@contextmanager
def server(script: Path, *options: str) -> Iterator[Server]:
    """A server, for a while."""
    one = Server(script, *options)
    try:
        yield one
    finally:
        one.kill()


def _camera_away(*options: str, seconds: float = 2.0) -> Outcome:
    with server(CAMERA) as camera, show(FROM_CAMERA.replace("$PORT", str(camera.port))) as one:
        one.flowing("record", frames=30)

        def harm() -> None:
            camera.kill()
            until(lambda: one.node("camera").get("status") == "reconnecting", "it reconnects")
            time.sleep(seconds)
            camera.start(*options)

        back = one.outage("record", harm)  # which counts from the moment that it is back
        camera_node = one.node("camera")
        demand(camera_node["status"] == "live", f"its status is {camera_node['status']}")
        demand(camera_node["restarts"] == 0, "its process was started again")
        checked = ended_well(one)
        node = one.report()["nodes"]["camera"]
        demand(node["reconnects"] >= 1, f"{node['reconnects']} reconnects")
        demand(node["away_seconds"] >= seconds, f"away for {node['away_seconds']} s")
        demand("secret" not in one.log.read_text(), "the password is in the log")
        return Outcome(back, f"{node['reconnects']} reconnects; {checked}")


@fault("camera-killed", "the RTSP camera dies and is back after 2 s", limit=2.0)
def camera_killed() -> Outcome:
    return _camera_away()


@fault("camera-other-size", "the RTSP camera comes back with another size", limit=2.0)
def camera_other_size() -> Outcome:
    return _camera_away("--size", "320x240")


@fault("camera-frozen", "the RTSP camera hangs with its connection open, then goes on", limit=4.0)
def camera_frozen() -> Outcome:
    with server(CAMERA) as camera, show(FROM_CAMERA.replace("$PORT", str(camera.port))) as one:
        one.flowing("record", frames=30)
        os.kill(camera.process.pid, signal.SIGSTOP)
        frozen = time.monotonic()
        away = ("stalled", "reconnecting")
        until(lambda: one.node("camera").get("status") in away, "it is found", seconds=20)
        found = time.monotonic() - frozen
        demand(found < 4, f"found after {found:.1f} s only, with a deadline of 2 s")
        time.sleep(2)
        seconds = one.outage("record", lambda: os.kill(camera.process.pid, signal.SIGCONT))
        demand(one.node("camera")["restarts"] == 0, "its process was started again")
        return Outcome(seconds, f"found after {found:.1f} s; {ended_well(one)}")


@fault("receiver-gone", "whoever received the UDP stream has gone", limit=0.5)
def receiver_gone() -> Outcome:
    receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    receiver.bind(("127.0.0.1", 0))
    url = f"udp://127.0.0.1:{receiver.getsockname()[1]}"
    with show(TO_SERVER.replace("$URL", url)) as one:
        one.flowing("obs")
        receiver.recv(2000)
        seconds = one.outage("obs", receiver.close)
        demand(one.node("obs")["restarts"] == 0, "its process was started again")
        return Outcome(seconds, ended_well(one))


@fault(
    "push-server-gone", "the RTSP server that is pushed to dies, and is back after 2 s", limit=3.0
)
def push_server_gone() -> Outcome:
    with server(RECORDER) as taker:
        url = f"rtsp://127.0.0.1:{taker.port}/live"
        with show(TO_SERVER.replace("$URL", url)) as one:
            one.flowing("obs")
            kept_on = one.outage("record", taker.kill)
            until(lambda: one.node("obs").get("status") == "reconnecting", "it reconnects")
            time.sleep(2)
            taker.start()
            began = time.monotonic()
            until(taker.came, "pictures come to the server again")
            seconds = time.monotonic() - began
            demand(kept_on < 1, f"the recording stood still for {kept_on:.1f} s")
            demand(one.node("obs")["restarts"] == 0, "its process was started again")
            checked = ended_well(one)
            reconnects = one.report()["nodes"]["obs"]["reconnects"]
            demand(reconnects == 1, f"{reconnects} reconnects")
            return Outcome(seconds, f"the recording went on; {checked}")


@fault(
    "push-server-frozen",
    "the RTSP server that is pushed to hangs: the recording goes on",
    limit=0.5,
)
def push_server_frozen() -> Outcome:
    with server(RECORDER) as taker:
        url = f"rtsp://127.0.0.1:{taker.port}/live"
        with show(TO_SERVER.replace("$URL", url)) as one:
            one.flowing("obs")
            stop = taker.process.pid
            seconds = one.outage("record", lambda: os.kill(stop, signal.SIGSTOP))
            time.sleep(3)
            os.kill(stop, signal.SIGCONT)
            return Outcome(seconds, f"the recording went on; {ended_well(one)}")


@fault("file-too-large", "the recording may not grow any more (as on a full disk)")
def file_too_large() -> Outcome:
    with show(TO_SERVER.replace("$URL", "udp://127.0.0.1:9")) as one:
        one.flowing("record", frames=60)
        before = one.delivered("record")
        pid = one.pid_of("record")
        size = max(part.stat().st_size for part in one.folder.glob("out*.mkv"))
        former = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (size + 4096, former[1]))
        time.sleep(2)
        demand(one.process.poll() is None, f"the run ended: {one.last_words()}")
        on_air = one.delivered("obs")
        until(lambda: one.delivered("obs") > on_air + 30, "the stream goes on")
        one.stop()
        words = one.log.read_text()
        demand("Traceback" not in words, f"a traceback: {words[-500:]}")
        one.report()
        pictures = one.plays(at_least=before - 30)
        one.nothing_left()
        return Outcome(None, f"the stream went on; {pictures} pictures play, nothing left")
