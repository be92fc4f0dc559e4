from __future__ import annotations

import http.server
import os
import shutil
import socket
import ssl
import subprocess
import threading

import pytest
from pydantic import ValidationError

from nodes.decoder import Decoder
from nodes.decoder.faults import Reason
from streamer import SourceError, Status
from streamer.testing import SoloContext, solo


def refused(url, **params):
    """What a source says that is not waited for."""
    params = {"give_up": 0, **params}
    with pytest.raises(SourceError) as caught:
        solo(Decoder, url=str(url), **params).close()
    message = str(caught.value)
    assert "\n" not in message
    assert "Errno" not in message
    assert not caught.value.retry  # starting the node again would not help either
    return caught.value, message


def test_a_missing_file_names_the_nearest_one(clip):
    path = clip("holiday.mp4", count=1)
    error, message = refused(path.with_name("holidy.mp4"))
    assert message == f"{path.with_name('holidy.mp4')} does not exist; did you mean {path}?"
    assert error.reason is Reason.NOT_FOUND
    # An ending that is the same does not make a name alike.
    _, message = refused(path.with_name("nosuch.mp4"))
    assert message == f"{path.with_name('nosuch.mp4')} does not exist; see the spelling of its path"


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("empty.mp4", b"", "is empty (0 bytes)"),
        ("text.mp4", b"hello, this is a letter\n" * 40, "is a text file, not a video"),
        ("text.txt", b"hello, this is a letter\n" * 40, "is a text file, not a video"),
        ("noise.mp4", bytes(range(256)) * 64, "holds no video or picture that is understood"),
    ],
)
def test_files_that_are_no_videos(tmp_path, name, content, expected):
    path = tmp_path / name
    path.write_bytes(content)
    assert refused(path)[1] == f"{path} {expected}"


def test_a_folder(tmp_path):
    expected = f"{tmp_path} is a folder; name a file in it, or its pictures as {tmp_path}/*.png"
    assert refused(tmp_path)[1] == expected


def test_a_part_of_the_path_that_is_a_file(clip):
    path = clip("clip.mp4", count=1)
    assert "a part of its path is no folder" in refused(path / "clip.mp4")[1]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(clip):
    path = clip("secret.mp4", count=1)
    path.chmod(0)
    assert "permission denied" in refused(path)[1]


def test_a_file_without_its_index(clip):
    path = clip("cut.mp4")
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.index(b"moov") - 8])
    assert "is cut off: its index (moov) is missing" in refused(path)[1]


def test_sound_without_picture(tmp_path):
    import av
    import numpy as np

    path = tmp_path / "song.m4a"
    with av.open(str(path), "w") as out:
        sound = out.add_stream("aac", rate=48000, layout="mono")
        block = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        block.sample_rate, block.pts = 48000, 0
        out.mux(sound.encode(block))
        out.mux(sound.encode(None))
    assert refused(path)[1] == f"{path} has sound but no picture; a source of video is needed"


def test_a_camera_that_is_not_there():
    error, message = refused("/dev/video83")
    assert message.startswith("/dev/video83 does not exist; ")
    assert error.reason is Reason.NOT_FOUND


def test_a_camera_that_nobody_has_by_name():
    error, message = refused("camera:No Such Camera 83")
    assert message.startswith("camera:No Such Camera 83: no camera has 'No Such Camera 83' in its ")
    assert error.reason is Reason.NOT_FOUND


class Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(int(self.path.strip("/")))
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def web():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("status", "expected", "reason"),
    [
        (401, "refuses to let us in (401): the user name or password is wrong", "authentication"),
        (403, "may not be read with this account (403)", "authentication"),
        (404, "is not known to the server (404); see the path after the host", "not found"),
        (410, "was refused by the server (4xx", "address"),
        (500, "the server itself failed (5xx); try again", "server"),
    ],
)
def test_what_a_web_server_answers(web, status, expected, reason):
    error, message = refused(f"http://me:hunter2@{web}/{status}")
    assert expected in message
    assert "hunter2" not in message
    assert f"http://***@{web}/{status}" in message
    assert error.reason == reason


def test_a_server_that_does_not_speak_tls(web):
    error, message = refused(f"https://me:hunter2@{web}/200")
    assert "127.0.0.1 port" in message
    assert "does not speak TLS as we do (" in message
    assert "hunter2" not in message
    assert error.reason is Reason.TLS


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl command")
def test_a_certificate_that_nobody_vouches_for(tmp_path):
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    words = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"]
    subprocess.run(
        ["openssl", *words, "-keyout", key, "-out", certificate], capture_output=True, check=True
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        server.handle_error = lambda *_: None
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"https://localhost:{server.server_port}/404"
        error, message = refused(url, options={"tls_verify": 1})
        assert "the certificate of localhost is not trusted (self-signed certificate)" in message
        assert "options: {ca_file: path}" in message
        assert error.reason is Reason.TLS
        # A camera's own certificate is taken where nothing is asked of it.
        assert refused(url)[0].reason is Reason.NOT_FOUND
        server.shutdown()
        thread.join()


def test_a_file_on_the_web_that_is_not_there_is_not_waited_for(web):
    with pytest.raises(SourceError, match="is not known to the server") as caught:
        solo(Decoder, url=f"http://{web}/404")
    assert not caught.value.retry


def test_a_name_and_password_are_asked_for(web):
    assert (
        "it wants a user name and password: scheme://user:password@"
        in refused(f"http://{web}/401")[1]
    )


@pytest.fixture
def rtsp():
    """An RTSP server that answers every request with one status, or never."""
    servers = []

    def serve(status, *, port=0):
        listener = socket.create_server(("127.0.0.1", port))
        servers.append(listener)

        def answer(connection):
            with connection:
                rest = b""
                while data := connection.recv(4096):
                    rest += data
                    while b"\r\n\r\n" in rest and status is not None:
                        request, rest = rest.split(b"\r\n\r\n", 1)
                        number = next(
                            line for line in request.split(b"\r\n") if line.startswith(b"CSeq")
                        )
                        realm = b'WWW-Authenticate: Basic realm="cameras"\r\n'
                        head = b"RTSP/1.0 %d Status\r\n" % status
                        connection.sendall(head + number + b"\r\n" + realm + b"\r\n")

        def accept():
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=answer, args=(connection,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        return f"127.0.0.1:{listener.getsockname()[1]}"

    yield serve
    for server in servers:
        server.close()


@pytest.mark.parametrize(
    ("status", "expected", "reason"),
    [
        (401, "the user name or password is wrong", Reason.AUTHENTICATION),
        (403, "may not be read with this account (403)", Reason.AUTHENTICATION),
        (404, "is not known to the server (404)", Reason.NOT_FOUND),
    ],
)
def test_what_a_camera_answers(rtsp, status, expected, reason):
    error, message = refused(f"rtsp://admin:hunter2@{rtsp(status)}/live")
    assert expected in message
    assert "hunter2" not in message
    assert error.reason is reason


@pytest.mark.parametrize("status", [401, 403])
def test_a_wrong_password_ends_the_run_at_once(rtsp, status):
    context = SoloContext()
    with pytest.raises(SourceError, match=rf"\({status}\)") as caught:
        solo(Decoder, context=context, url=f"rtsp://admin:hunter2@{rtsp(status)}/live")
    assert not caught.value.retry
    assert [said for said, _ in context.statuses] == [Status.CONNECTING, Status.FAILED]
    assert not [text for _, text in context.statuses if "hunter2" in text]


def test_a_camera_that_was_away_may_refuse_for_a_while(rtsp, monkeypatch):
    """It is starting, and does not know its users yet."""
    monkeypatch.setattr("nodes.decoder.connection._GRACE", 600.0)
    monkeypatch.setattr("nodes.decoder.connection.pause", lambda *_: 0.1)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

    class Watching(SoloContext):
        def status(self, status, text):
            super().status(status, text)
            if text.startswith("refused") and starting.ident is None:
                starting.start()
            if sum(said.startswith("authentication") for _, said in self.statuses) == 2:
                monkeypatch.setattr("nodes.decoder.connection._GRACE", 0.0)

    starting = threading.Timer(0.5, rtsp, args=(401,), kwargs={"port": port})
    context = Watching()
    decoder = solo(Decoder, context=context, url=f"rtsp://admin:hunter2@127.0.0.1:{port}/live")
    with pytest.raises(SourceError, match=r"wrong; that has not passed for 0 s"):
        next(decoder.frames())
    decoder.close()
    reasons = [text.split(":")[0] for status, text in context.statuses if ": " in text]
    assert reasons.index("refused") < reasons.index("authentication")
    assert reasons.count("authentication") >= 2
    assert context.statuses[-1][0] is Status.FAILED


def test_a_camera_that_says_nothing(rtsp):
    error, message = refused(f"rtsp://{rtsp(None)}/live", timeout=0.4)
    assert "did not answer within 0.4 s" in message
    assert error.reason is Reason.TIMEOUT


def test_a_run_that_ends_does_not_wait_for_a_silent_camera(rtsp):
    context = SoloContext()
    stopper = threading.Timer(0.3, context.stopping.set)
    stopper.start()
    # The timeout of the camera is beyond that of any patience: only `stopping` ends this.
    decoder = solo(Decoder, context=context, url=f"rtsp://{rtsp(None)}/live", timeout=300)
    assert list(decoder.frames()) == []
    decoder.close()
    stopper.join()
    assert context.statuses[0][0] is Status.CONNECTING
    assert context.statuses[0][1].startswith("connecting to rtsp://127.0.0.1")


def test_nothing_listens():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    error, message = refused(f"rtsp://u:hunter2@127.0.0.1:{port}/live")
    assert f"nothing listens at 127.0.0.1 port {port} (connection refused)" in message
    assert "hunter2" not in message
    assert error.reason is Reason.REFUSED


def test_a_host_that_nobody_knows():
    error, message = refused("rtsp://no-such-host.invalid/live")
    assert message.endswith("no host is known by the name 'no-such-host.invalid'")
    assert error.reason is Reason.NAME


def test_a_protocol_that_nobody_speaks():
    for scheme in ("gopherspace", "mail"):
        with pytest.raises(ValidationError, match=f"{scheme} is no protocol that this FFmpeg know"):
            Decoder.Params(url=f"{scheme}://127.0.0.1:9000")
    Decoder.Params(url="concat:one.ts|two.ts")


def test_an_unknown_format_option(clip):
    message = refused(clip("clip.mp4", count=1), options={"format": "nonsense"})[1]
    assert "cannot be opened" in message
    assert "nonsense" in message


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"url": ""}, "at least 1 character"),
        ({"url": "rtsp://"}, "names no place after rtsp:"),
        ({"url": "a.mp4", "fps": -1}, "greater than 0"),
        ({"url": "a.mp4", "fps": float("nan")}, "finite number"),
        ({"url": "a.mp4", "fps": 1e9}, "less than or equal to 1000"),
        ({"url": "a.mp4", "timeout": 0}, "greater than 0"),
        ({"url": "rtsp://camera/x", "loop": True}, "a live source has no end"),
        ({"url": "a.mp4", "live": "sometimes"}, "auto"),
        ({"url": "a.mp4", "give_up": -1}, "greater than or equal to 0"),
        ({"url": "a.mp4", "jitter": 61}, "less than or equal to 60"),
        ({"url": "a.mp4", "jitter": "much"}, "auto"),
        ({"url": "camera:"}, "wants a part of a camera's name"),
        ({"url": "/dev/video0", "size": "large"}, "pattern"),
        ({"url": "a.mp4", "size": "640x480"}, "a.mp4 is none"),
        ({"url": "rtsp://camera/x", "input_format": "mjpeg"}, "is asked of a camera"),
        ({"url": "udp://127.0.0.1:1", "transport": "udp"}, "for rtsp: addresses only"),
        ({"url": "a.mp4", "sped": 3}, "Extra inputs"),
    ],
)
def test_parameters_that_make_no_sense(params, expected):
    with pytest.raises(ValidationError, match=expected):
        Decoder.Params(**params)


@pytest.mark.parametrize(
    ("params", "live"),
    [
        ({"url": "a.mp4"}, False),
        ({"url": "a.mp4", "realtime": True}, True),
        ({"url": "http://host/a.mp4"}, False),
        ({"url": "http://host/a.mp4", "live": True}, True),
        ({"url": "rtsp://host/a"}, True),
        ({"url": "RTSP://host/a"}, True),
        ({"url": "rtmp://host/a/b"}, True),
        ({"url": "udp://127.0.0.1:5004"}, True),
        ({"url": "rtp://127.0.0.1:5004"}, True),
        ({"url": "/dev/video0"}, True),
        ({"url": "/dev/v4l/by-id/usb-camera"}, True),
        ({"url": "camera:Logitech"}, True),
        ({"url": "rtsp://host/a", "live": False}, False),
        ({"url": "demo:"}, False),
        ({"url": "frames/%04d.png"}, False),
    ],
)
def test_what_is_live_is_known_without_opening(params, live):
    assert Decoder.is_live(Decoder.Params(**params)) is live


def test_checking_a_graph_imports_nothing_heavy():
    import subprocess
    import sys

    code = (
        "import sys, nodes.decoder, nodes.preprocess, nodes.mosaic;"
        "print([name for name in ('av', 'cv2', 'torch', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
