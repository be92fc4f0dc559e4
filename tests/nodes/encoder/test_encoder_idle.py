"""What a live output shows while nothing comes, and how its source joins in again."""

from __future__ import annotations

import io
import socket
import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import pairwise

import av
import cv2
import numpy as np
import pytest
from encoder_media import MILLI, picture
from encoder_stage import Stage, closing
from hypothesis import given
from hypothesis import strategies as st
from test_encoder_live import free_port

from nodes.encoder import Encoder, stand_in
from nodes.encoder.params import EncoderParams
from nodes.encoder.timing import Clock
from streamer import Count, Frame, ParameterError
from streamer.testing import SoloContext, solo


@pytest.fixture
def on_stage() -> Iterator[Callable[..., Stage]]:
    with closing() as make:
        yield make


class Listener:
    """Collects what comes in by UDP, and decodes it in the end."""

    def __init__(self) -> None:
        self.port = free_port(socket.SOCK_DGRAM)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        self._socket.bind(("127.0.0.1", self.port))
        self._socket.settimeout(0.1)
        self._data = io.BytesIO()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        while True:
            try:
                self._data.write(self._socket.recv(65536))
            except TimeoutError:
                if self._ended.is_set():
                    return

    def decoded(self) -> list[tuple[float, np.ndarray]]:
        """Times and pictures of all that came."""
        self._ended.set()
        self._thread.join()
        self._socket.close()
        self._data.seek(0)
        with av.open(self._data, format="mpegts") as container:
            return [(float(f.time), f.to_ndarray(format="gray")) for f in container.decode(video=0)]


@pytest.fixture
def listener() -> Listener:
    return Listener()


def last_shown(number: int) -> np.ndarray:
    return picture(number)[:96, :160].astype(int)


def test_the_last_picture_is_shown_until_the_next_one_comes(listener, on_stage):
    stage = on_stage(f"udp://127.0.0.1:{listener.port}")
    stage.play(lambda: stage.sent >= 20)
    held = stage.shown - 1
    stage.pause(lambda: stage.context.counts[Count.FILLED] >= 8)
    before = stage.sent
    stage.play(lambda: stage.sent >= before + 20)
    stage.end()
    seen = listener.decoded()
    assert len(seen) == stage.sent + stage.context.counts[Count.FILLED]
    times = [at for at, _ in seen]
    assert times == sorted(set(times))
    same = [at for at, pixels in seen if np.abs(pixels - last_shown(held)).mean() < 12]
    assert len(same) >= 1 + 8
    assert np.median([b - a for a, b in pairwise(same)]) < 0.3


def test_a_slate_with_words_is_shown(listener, on_stage):
    stage = on_stage(f"udp://127.0.0.1:{listener.port}", idle="slate", slate="back soon")
    stage.play(lambda: stage.sent >= 10)
    stage.pause(lambda: stage.context.counts[Count.FILLED] >= 6)
    stage.end()
    slates = [pixels for _, pixels in listener.decoded()[-4:]]
    for pixels in slates:
        assert np.median(pixels) < 50
        assert pixels.max() > 100  # the words
        assert (pixels > 100).mean() < 0.1


def test_a_slate_may_be_a_picture(tmp_path):
    path = tmp_path / "slate.png"
    image = np.zeros((50, 100, 3), np.uint8)
    image[:] = (0, 0, 255)  # red, as OpenCV writes it
    cv2.imwrite(str(path), image)
    loaded = stand_in.load_slate(str(path))
    with stand_in.draw_slate(str(path), loaded, 200, 200) as frame:
        shown = frame.numpy().copy()
    assert shown.shape == (200, 200, 3)
    assert tuple(shown[100, 100]) == (255, 0, 0)
    assert shown[10].max() < 50  # above it, the ground


@pytest.mark.parametrize("live", [True, False])
def test_a_slate_that_is_no_picture_is_a_sentence_whichever_the_source(tmp_path, live):
    url, path = f"udp://127.0.0.1:{free_port()}", tmp_path / "slate.png"
    with pytest.raises(ParameterError, match=r"the slate missing\.png does not exist"):
        solo(Encoder, context=SoloContext(live=live), url=url, idle="slate", slate="missing.png")
    path.write_text("no picture")
    with pytest.raises(ParameterError, match="is no picture that can be read"):
        solo(Encoder, context=SoloContext(live=live), url=url, idle="slate", slate=str(path))
    with pytest.raises(ParameterError, match="does not exist"):  # also where it is not shown
        solo(Encoder, context=SoloContext(live=live), url=url, slate="missing.jpg")


def test_nothing_is_shown_where_nothing_is_wanted_or_a_file_is_played(on_stage):
    for live, params in ((True, {"idle": "nothing"}), (False, {})):
        stage = on_stage(f"udp://127.0.0.1:{free_port()}", live=live, **params)
        stage.play(lambda: stage.sent >= 5)  # noqa: B023
        waited = []
        stage.pause(lambda: waited.append(1) or len(waited) > 15)  # noqa: B023
        assert not stage.context.counts
        stage.end()


def test_files_keep_their_gaps():
    for url in ("out.mp4", "out/%04d.png", "null:"):
        assert EncoderParams(url=url).stand_in == "nothing"
        with pytest.raises(ValueError, match="is for outputs that are watched live"):
            EncoderParams(url=url, idle="hold")
    for url in ("udp://h:5", "rtsp://h/live", "/dev/video7"):
        assert EncoderParams(url=url).stand_in == "hold"


@given(st.floats(0.001, 10))
def test_waiting_grows_with_the_usual_interval(interval):
    assert stand_in.patience(interval) >= max(0.2, 2 * interval)
    assert stand_in.spacing(interval, device=True) == interval
    assert stand_in.spacing(interval, device=False) >= 0.2


def clock() -> Clock:
    made = Clock(MILLI, Fraction(0), Fraction(1, 25))
    for at in (0, 40, 80):
        assert made.picture(at, MILLI, 40) == (at, 40)
    return made


def test_fillers_go_on_by_the_wall_clock_and_the_source_keeps_its_times():
    made = clock()
    assert made.fill(0.3, 0.2) == (380, 200)
    assert made.fill(0.5, 0.2) == (580, 200)
    assert made.picture(700, MILLI, 40) == (700, 40)
    assert made.seconds(700, MILLI) == Fraction(7, 10)
    assert made.usual == pytest.approx(0.04)


def test_a_source_that_comes_back_earlier_is_shifted_and_its_sound_with_it():
    made = clock()
    made.fill(2.0, 0.2)
    at, _ = made.picture(120, MILLI, 40)  # it had been stopped, and so had its clock
    assert at == 2080 + 40
    assert made.picture(160, MILLI, 40)[0] == at + 40
    assert made.seconds(160, MILLI) == Fraction(at + 40, 1000)
    assert (made.mended, made.jumps) == (0, 0)


@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 3000)), max_size=40),
)
def test_times_only_grow_whatever_is_shown_in_between(events):
    made, last, at = clock(), 80, 80
    for fills, step in events:
        if fills:
            got, _ = made.fill(step / 1000, 0.2)
        else:
            at += step - 500
            got, _ = made.picture(at, MILLI, 40)
        assert got > last
        last = got


def test_a_picture_that_is_shown_again_outlasts_its_frame(on_stage, listener):
    encoder = on_stage(f"udp://127.0.0.1:{listener.port}").encoder
    memory = picture(0)
    for number in range(10):
        memory[:] = picture(number)
        with Frame.of(memory, format="yuv420p", pts=number * 40) as frame:
            frame.header.colorspace, frame.header.full_range = "bt601", False
            encoder.process(frame)
    memory[:] = 0  # the next frame's, by now
    for _ in range(4000):
        if encoder.context.counts[Count.FILLED] >= 2:
            break
        time.sleep(min(encoder.idle() or 0.05, 0.05))
    encoder.finish()
    assert np.abs(listener.decoded()[-1][1] - last_shown(9)).mean() < 12
