"""A real RTSP server that goes away and comes back, changed or not."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from nodes.decoder import Decoder
from streamer import Count, SourceError, Status
from streamer.testing import solo


def lag(headers):
    """Seconds by which arrivals lag behind presentation times, as the soonest of them tell."""
    return min(header.capture_ns / 1e9 - header.time for header in headers)


def rises(headers):
    return all(later.time > sooner.time for sooner, later in pairwise(headers))


def test_picture_and_sound_of_a_camera(camera, watch):
    watched = watch(camera.start().url, wants_audio=True)
    watched.more(45)
    watched.stop()
    steps = [later.time - sooner.time for sooner, later in pairwise(watched.headers)]
    assert min(steps) > 0
    assert np.median(steps) == pytest.approx(1 / 30, abs=0.002)
    assert all(later.capture_ns > sooner.capture_ns for sooner, later in pairwise(watched.headers))
    assert watched.packets[0].data == b""
    assert watched.packets[0].audio.codec == "pcm_alaw"
    assert len(watched.packets) > 5
    assert watched.context.dropped == {}
    assert watched.context.counts == {}


def test_the_first_picture_is_that_of_the_first_keyframe(camera, watch):
    # The next one would come 20 s later: looking at the stream must not use the first one up.
    watched = watch(camera.start("--gop", "600").url)
    watched.more(10)
    assert watched.headers[9].time < 10
    assert watched.statuses == [Status.CONNECTING, Status.LIVE]


def test_a_camera_that_dies_and_is_back(camera, watch):
    watched = watch(camera.start().url, wants_audio=True)
    watched.more(45)
    camera.kill()
    watched.until(lambda: "refused" in watched.texts(Status.RECONNECTING))
    before = len(watched.headers)
    camera.start()
    watched.more(45)
    watched.stop()
    assert watched.error is None
    assert watched.statuses == [
        Status.CONNECTING,
        Status.LIVE,
        Status.RECONNECTING,
        Status.LIVE,
    ]
    assert "it ended the stream" in watched.texts(Status.RECONNECTING)
    assert rises(watched.headers)
    # Time went on while it was away: presentation times lag behind arrival as before.
    away = watched.headers[before].time - watched.headers[before - 1].time
    assert away > 0.1
    early, late = watched.headers[before - 20 : before], watched.headers[-20:]
    assert lag(late) == pytest.approx(lag(early), abs=0.3)
    announced = [number for number, packet in enumerate(watched.packets) if not packet.data]
    assert len(announced) == 2
    heard = [packet for packet in watched.packets if packet.data]
    assert all(later.pts > sooner.pts for sooner, later in pairwise(heard))
    assert watched.context.counts[Count.MENDED] == 0


def test_a_camera_that_freezes_is_found(camera, watch):
    watched = watch(camera.start().url, timeout=1.5)
    watched.more(30)
    camera.freeze()
    watched.until(lambda: watched.now is Status.RECONNECTING)
    assert watched.statuses[:3] == [Status.CONNECTING, Status.LIVE, Status.STALLED]
    assert "timeout: " in watched.texts(Status.RECONNECTING)
    assert "has sent nothing for 1.5 s" in watched.texts(Status.RECONNECTING)
    camera.kill()
    camera.start()
    watched.more(30)
    assert rises(watched.headers)


def test_a_camera_that_comes_back_with_another_size(camera, watch):
    watched = watch(camera.start("--size", "160x120").url)
    watched.more(20)
    camera.kill()
    camera.start("--size", "320x180", "--silent")
    watched.until(lambda: watched.headers[-1].width == 320)
    watched.more(10)
    sizes = [(header.width, header.height) for header in watched.headers]
    assert sorted(set(sizes)) == [(160, 120), (320, 180)]
    assert sizes == sorted(sizes)
    assert rises(watched.headers)


def test_a_camera_that_is_switched_on_later(camera, watch):
    watched = watch(camera.url)
    watched.until(lambda: len(watched.context.statuses) > 3)
    assert set(watched.statuses) == {Status.CONNECTING}
    assert "refused: " in watched.texts(Status.CONNECTING)
    camera.start()
    watched.more(10)
    assert watched.statuses == [Status.CONNECTING, Status.LIVE]
    assert watched.headers[0].time < 1


def test_a_camera_is_waited_for_as_long_as_asked(camera, watch):
    watched = watch(camera.start().url, give_up=1)
    watched.more(10)
    camera.kill()
    error = watched.ended()
    assert isinstance(error, SourceError)
    assert not error.retry
    assert str(error).endswith("(connection refused); given up after 1 s (give_up)")
    assert watched.statuses[-2:] == [Status.RECONNECTING, Status.FAILED]


def test_a_camera_that_knows_its_users_only_after_a_while(camera, watch):
    watched = watch(camera.start().url)
    watched.more(10)
    camera.kill()
    camera.start("--login", "me:hunter2")
    watched.until(lambda: "authentication: " in watched.texts(Status.RECONNECTING))
    camera.kill()
    camera.start()
    watched.more(10)
    assert watched.now is Status.LIVE


def test_a_camera_with_a_password(camera, watch):
    camera.start("--login", "me:hunter2")
    with pytest.raises(SourceError, match="the user name or password is wrong"):
        solo(Decoder, url=f"rtsp://me:wrong@{camera.host}/live")
    with pytest.raises(SourceError, match="it wants a user name and password"):
        solo(Decoder, url=camera.url)
    with pytest.raises(SourceError, match="is not known to the server"):
        solo(Decoder, url=f"rtsp://me:hunter2@{camera.host}/nothing", give_up=0)
    watched = watch(f"rtsp://me:hunter2@{camera.host}/live")
    watched.more(1)
    assert (watched.headers[0].width, watched.headers[0].height) == (160, 120)
    assert "hunter2" not in str(watched.context.statuses)


def test_a_camera_whose_clock_is_not_believed(camera, watch):
    watched = watch(camera.start().url, options={"use_wallclock_as_timestamps": 1})
    watched.more(45)
    camera.kill()
    before = len(watched.headers)
    camera.start()
    watched.more(30)
    assert watched.headers[0].time < 5
    assert rises(watched.headers)
    late = watched.headers[before + 10 :]
    assert lag(late) == pytest.approx(lag(watched.headers[20:before]), abs=0.3)


@pytest.mark.parametrize("transport", ["udp", "auto"])
def test_a_camera_that_sends_beside_its_connection_only(camera, watch, transport):
    watched = watch(camera.start("--udp").url, transport=transport, timeout=3)
    watched.more(30)
    assert watched.statuses == [Status.CONNECTING, Status.LIVE]


def test_a_camera_is_asked_to_send_within_its_connection_first(camera, watch):
    watched = watch(camera.start().url, transport="auto")
    watched.more(10)
    assert watched.statuses == [Status.CONNECTING, Status.LIVE]


def test_sound_stays_with_the_picture_when_a_camera_is_back(camera, watch):
    watched = watch(camera.start("--clapper").url, wants_audio=True)
    watched.more(100)
    first, heard = len(watched.headers), len(watched.packets)
    true_before = truth(camera.kill())
    watched.until(lambda: watched.now is Status.RECONNECTING)
    camera.start("--clapper")
    watched.more(100)
    watched.stop()
    true_after = truth(camera.kill())
    before = offsets(watched.headers[:first], watched.means[:first], watched.packets[:heard])
    after = offsets(watched.headers[first:], watched.means[first:], watched.packets[heard:])
    assert len(before) >= 2
    assert len(after) >= 2
    assert np.abs(before - true_before).max() < 0.04
    assert np.abs(after - true_after).max() < 0.04


def truth(said):
    """Seconds by which the camera's flashes come after its ticks, by its own clock."""
    lines = [line.split() for line in said.splitlines()]
    flashes = [float(time) for what, time in lines if what == "flash"]
    ticks = [float(time) for what, time in lines if what == "tick"]
    return float(np.median([nearest(flash, ticks) for flash in flashes[1:]]))


def nearest(flash, ticks):
    return min((flash - tick for tick in ticks), key=abs)


def offsets(headers, means, packets):
    """Seconds by which flashes come after the ticks that are nearest to them, as received."""
    flashes = [header.time for header, mean in zip(headers, means, strict=True) if mean > 150]
    ticks, quiet = [], -1.0
    for packet in packets:
        # A-law inverts every other bit; below its sign, codes grow with loudness, and 0x50 stands
        # for 4096 of 32768.
        loud = (np.frombuffer(packet.data, np.uint8) ^ 0x55) & 0x7F
        for sample in np.flatnonzero(loud >= 0x50):
            time = float(packet.pts * packet.time_base) + sample / 8000
            if time - quiet > 0.3:
                ticks.append(time)
            quiet = time
    found = [nearest(flash, ticks) for flash in flashes]
    return np.array([one for one in found if abs(one) < 0.5])
