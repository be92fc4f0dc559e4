from __future__ import annotations

import http.client
import io
import logging
import re
import socket
from dataclasses import replace

import av
import numpy as np
import pytest
from web_stage import SIZE, number_of, staged, ts_numbers, wait_for

from nodes.web import Web
from nodes.web.video import JpegEncoder
from streamer import Count, Frame, ParameterError, Status
from streamer.testing import solo


def decoded(jpeg: bytes) -> np.ndarray:
    with av.open(io.BytesIO(jpeg), format="jpeg_pipe") as container:
        return next(container.decode(video=0)).to_ndarray(format="rgb24")


def jpegs(stage, count):
    """The first pictures of /stream.mjpeg, parsed as RFC 2046 has it."""
    connection = http.client.HTTPConnection("127.0.0.1", stage.port, timeout=30)
    connection.request("GET", "/stream.mjpeg")
    answer = connection.getresponse()
    kind = answer.getheader("content-type")
    boundary = re.fullmatch(r"multipart/x-mixed-replace; boundary=(\S+)", kind)[1]
    found = []
    while len(found) < count:
        assert answer.readline() == f"--{boundary}\r\n".encode()
        assert answer.readline() == b"Content-Type: image/jpeg\r\n"
        length = int(re.fullmatch(rb"Content-Length: (\d+)\r\n", answer.readline())[1])
        assert answer.readline() == b"\r\n"
        found.append(answer.read(length))
        assert answer.readline() == b"\r\n"
    connection.close()
    return found


def test_mpegts_begins_at_once_with_a_keyframe_and_shows_every_picture_in_order():
    with staged(keyframe_interval=60) as stage:
        wait_for(lambda: stage.number > 5)
        for _ in range(2):  # the second viewer comes long before the next keyframe is due
            before = stage.number
            numbers = ts_numbers(f"http://127.0.0.1:{stage.port}/stream.ts", 25)
            assert numbers == list(range(numbers[0], numbers[0] + 25))
            assert before <= numbers[0] < before + 900  # of 1,800
        wait_for(lambda: stage.viewers("ts") == 0)
    assert stage.context.watching == [1, 0, 1, 0]


def test_pictures_that_an_encoder_does_not_take_are_encoded_by_another(caplog):
    with staged(codec="auto") as stage:
        programme = stage.node._programme
        # As encoders of GPUs do, H.263 takes some sizes alone.
        programme._setup = replace(programme._setup, codec="h263", options={})
        numbers = ts_numbers(f"http://127.0.0.1:{stage.port}/stream.ts", 5)
        assert numbers == list(range(numbers[0], numbers[0] + 5))
    assert "h263 does not take pictures of 256x192" in caplog.text
    assert "libx264 encodes these" in caplog.text


def test_a_slow_source_is_not_taken_for_one_that_is_away():
    with staged(fps=3) as stage:
        wait_for(lambda: stage.number > 2)
        wait_for(lambda: 1 < stage.health()["fps"] < 6)


def test_an_outage_does_not_slow_what_is_taken_for_usual():
    with staged() as stage:
        wait_for(lambda: stage.number > 10)
        stage.flowing.clear()
        wait_for(lambda: stage.health()["silent_s"] > 2)
        before = stage.number
        stage.flowing.set()
        wait_for(lambda: stage.number > before + 10)
        # With the outage in it, 7, and more only once that is 64 pictures ago.
        wait_for(lambda: stage.health()["fps"] > 15 or stage.number > before + 50)
        assert stage.number <= before + 50


def test_mpegts_keeps_the_times_of_the_source():
    times = []
    with (
        staged(fps=20) as stage,
        av.open(f"http://127.0.0.1:{stage.port}/stream.ts", timeout=20) as container,
    ):
        for frame in container.decode(video=0):
            times.append(float(frame.pts * frame.time_base))
            if len(times) == 20:
                break
        profile = container.streams.video[0].codec_context.profile
    assert profile in ("Constrained Baseline", "Baseline")
    steps = np.diff(times)
    assert np.allclose(steps, np.round(steps * 20) / 20, atol=1e-4)
    assert min(steps) > 0.04


def test_mjpeg_and_snapshots_show_whole_pictures():
    with staged(jpeg_quality=95) as stage:
        shown = [number_of(decoded(data)) for data in jpegs(stage, 12)]
        assert shown == sorted(set(shown))
        wait_for(lambda: stage.viewers("mjpeg") == 0)
        status, headers, body = stage.get("/snapshot.jpg")
        assert (status, headers["content-type"]) == (200, "image/jpeg")
        assert decoded(body).shape == (SIZE[1], SIZE[0], 3)
        assert shown[-1] <= number_of(decoded(body)) <= stage.number


def test_the_page_stands_for_itself():
    with staged() as stage:
        status, headers, body = stage.get("/")
    text = body.decode()
    assert status == 200
    assert headers["content-type"].startswith("text/html")
    assert 'id="video"' in text
    assert "window.streamerStats" in text
    assert not re.findall(r"""(?:src|href)\s*=\s*["'](?!data:)""", text)
    assert "default-src 'none'" in headers["content-security-policy"]
    assert headers["referrer-policy"] == "no-referrer"
    assert "access-control-allow-origin" not in headers


def test_health_tells_frames_rate_viewers_and_age():
    with staged() as stage:
        wait_for(lambda: stage.number > 40)
        health = wait_for(lambda: 20 < stage.health()["fps"] < 40 and stage.health())
        assert health["frames"] > 40
        assert health["viewers"] == {"webrtc": 0, "ts": 0, "mjpeg": 0}
        assert health["age_ms"] >= 0
        stage.flowing.clear()
        wait_for(lambda: stage.health()["silent_s"] > 1)
        assert stage.health()["fps"] == 0


def test_every_picture_counts_as_delivered_whether_or_not_anybody_watches():
    with staged() as stage:
        wait_for(lambda: stage.number >= 20)
        assert stage.node._programme._h264 is None
        ts_numbers(f"http://127.0.0.1:{stage.port}/stream.ts", 3)
        wait_for(lambda: stage.node._programme._h264 is None)
        end = stage.number + 5
        wait_for(lambda: stage.number >= end)
    context = stage.context
    assert len(context.sent) == stage.number
    assert [header.pts for header in context.sent] == sorted(h.pts for h in context.sent)
    assert not context.dropped
    assert context.statuses[-1][0] is Status.LIVE


def test_a_new_size_shows_without_a_new_connection():
    with staged() as stage:
        wait_for(lambda: stage.number > 3)
        sizes = set()
        with av.open(f"http://127.0.0.1:{stage.port}/stream.ts", timeout=20) as container:
            for number, frame in enumerate(container.decode(video=0)):
                sizes.add((frame.width, frame.height))
                if number == 10:
                    stage.size = (320, 240)
                if len(sizes) == 2:
                    break
    assert sizes == {SIZE, (320, 240)}


def test_pictures_of_odd_sides_and_other_formats_are_served():
    with staged() as stage:
        stage.size = (217, 193)
        wait_for(lambda: stage.number > 3)
        numbers = ts_numbers(f"http://127.0.0.1:{stage.port}/stream.ts", 5)
        assert numbers == sorted(set(numbers))
        assert decoded(stage.get("/snapshot.jpg")[2]).shape[:2] == (193, 217)


def test_viewers_who_come_while_the_source_is_silent_get_the_last_picture():
    with staged() as stage:
        wait_for(lambda: stage.number > 10)
        stage.flowing.clear()
        wait_for(lambda: stage.health()["silent_s"] > 0.2)
        assert number_of(decoded(stage.get("/snapshot.jpg")[2])) == stage.number - 1
        numbers = ts_numbers(f"http://127.0.0.1:{stage.port}/stream.ts", 2)
        assert numbers == [stage.number - 1] * 2
        stage.flowing.set()
        again = ts_numbers(f"http://127.0.0.1:{stage.port}/stream.ts", 10)
        assert again == list(range(again[0], again[0] + 10))
    assert stage.context.counts[Count.FILLED] >= 2
    assert len(stage.context.sent) == stage.number


def test_with_idle_nothing_a_silent_source_shows_nothing():
    with (
        staged(idle="nothing") as stage,
        socket.create_connection(("127.0.0.1", stage.port), timeout=30) as viewer,
    ):
        viewer.sendall(b"GET /stream.mjpeg HTTP/1.1\r\nHost: localhost\r\n\r\n")
        wait_for(lambda: stage.viewers("mjpeg") == 1 and stage.number > 10)
        stage.flowing.clear()
        wait_for(lambda: stage.health()["silent_s"] > 1)
    assert not stage.context.counts[Count.FILLED]


def test_a_slate_shows_until_pictures_come_again():
    with staged(idle="slate", slate="back soon") as stage:
        wait_for(lambda: stage.number > 10)
        stage.flowing.clear()
        wait_for(lambda: stage.health()["silent_s"] > 1)
        slate = decoded(stage.get("/snapshot.jpg")[2])
        assert slate.shape == (SIZE[1], SIZE[0], 3)
        assert np.median(slate) < 40  # dark
        assert slate.max() > 120  # with words on it
        stage.flowing.set()
        before = stage.number
        wait_for(lambda: stage.number > before + 2)
        assert number_of(decoded(stage.get("/snapshot.jpg")[2])) > before


def test_a_slate_that_is_no_picture_is_a_sentence(tmp_path):
    with pytest.raises(ParameterError, match="does not exist"):
        solo(Web, listen="127.0.0.1:0", idle="slate", slate=str(tmp_path / "none.png"))


def test_before_the_first_picture_there_is_no_snapshot(monkeypatch):
    monkeypatch.setattr("nodes.web.app._SNAPSHOT", 0.3)
    with staged(flowing=False) as stage:
        status, _, body = stage.get("/snapshot.jpg")
    assert status == 503
    assert b"no picture" in body


def test_streams_end_with_the_node():
    with staged() as stage:
        connection = http.client.HTTPConnection("127.0.0.1", stage.port, timeout=30)
        connection.request("GET", "/stream.ts")
        answer = connection.getresponse()
        assert len(answer.read(1880)) == 1880
        stage.end()
        stage.node.finish()
        rest = answer.read()  # to the end, which comes
        assert len(rest) % 188 == 0
        connection.close()


@pytest.mark.parametrize(("low", "high"), [(20, 60), (60, 95)])
def test_more_quality_is_more_bytes(low, high):
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 255, (96, 96, 3), dtype=np.uint8).repeat(2, 0).repeat(2, 1)
    sizes = []
    for quality in (low, high):
        encoder = JpegEncoder(quality)
        sizes.append([len(encoder.encode(Frame.of(pixels))) for _ in range(3)])
    assert max(sizes[0]) * 1.3 < min(sizes[1])


def test_coming_and_going_is_logged_for_those_who_want_to_know(caplog):
    caplog.set_level(logging.DEBUG, "streamer.node.page")
    with staged() as stage:
        ts_numbers(f"http://127.0.0.1:{stage.port}/stream.ts", 2)
        wait_for(lambda: stage.viewers("ts") == 0)
    said = [record.message for record in caplog.records]
    assert any("watches ts" in text for text in said)
    assert any("has gone" in text for text in said)
