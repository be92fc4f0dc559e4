from __future__ import annotations

import asyncio
import threading

import pytest

from nodes.web.backlog import LONGEST, MOST, Backlog, Jpeg, Newest
from nodes.web.hub import FullError, Hub, Kind
from nodes.web.transport_stream import Chunk


def chunk(number, *, entry=False, at=0.0, size=1):
    return Chunk(bytes([number]) * size, entry, at)


class Counted:
    def __init__(self):
        self.times = 0

    def __call__(self):
        self.times += 1


def numbers(pieces):
    return [piece.data[0] for piece in pieces]


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, 30))


def test_a_viewer_begins_with_a_keyframe_and_gets_everything_from_there():
    async def check():
        behind, skipped = Counted(), Counted()
        backlog = Backlog(behind=behind, skipped=skipped)
        for number in range(3):
            backlog.put(chunk(number))
        assert (behind.times, skipped.times, len(backlog)) == (3, 0, 0)
        backlog.put(chunk(3, entry=True))
        backlog.put(chunk(4))
        assert numbers(await backlog.get()) == [3, 4]
        backlog.put(chunk(5))
        assert numbers(await backlog.get()) == [5]

    run(check())


@pytest.mark.parametrize("slow", [{"at": LONGEST + 0.01}, {"size": MOST}])
def test_a_viewer_that_falls_behind_goes_on_at_the_next_keyframe(slow):
    async def check():
        behind, skipped = Counted(), Counted()
        backlog = Backlog(behind=behind, skipped=skipped)
        backlog.put(chunk(0, entry=True))
        backlog.put(chunk(1))
        backlog.put(chunk(2, **slow))
        assert (len(backlog), skipped.times, behind.times) == (0, 3, 1)
        backlog.put(chunk(3, at=1))
        assert skipped.times == 4
        backlog.put(chunk(4, at=1, entry=True))
        assert numbers(await backlog.get()) == [4]
        assert skipped.times == 4

    run(check())


def test_one_large_piece_gets_through():
    async def check():
        backlog = Backlog(behind=Counted())
        backlog.put(chunk(1, entry=True, size=MOST + 1))
        assert len(await backlog.get()) == 1

    run(check())


def test_whoever_waits_is_woken_and_let_go():
    async def check():
        for box, piece in (
            (Backlog(behind=Counted()), chunk(7, entry=True)),
            (Newest(), Jpeg(b"\x07", 0.0)),
        ):
            waiting = asyncio.create_task(box.get())
            await asyncio.sleep(0)
            assert not waiting.done()
            box.put(piece)
            assert await waiting == [piece]
            box.put(piece)
            box.close()
            assert await box.get() == []
            box.put(piece)
            assert await box.get() == []

    run(check())


def test_of_pictures_that_stand_for_themselves_the_newest_waits():
    async def check():
        skipped = Counted()
        newest = Newest(skipped=skipped)
        for number in range(4):
            newest.put(Jpeg(bytes([number]), 0.0))
        assert numbers(await newest.get()) == [3]
        assert skipped.times == 3

    run(check())


def test_pieces_go_to_the_viewers_of_their_kind():
    async def check():
        told = []
        hub = Hub(limit=2, stall=1.0, viewers=told.append)
        hub.attach(asyncio.get_running_loop())
        ts, rtc = Backlog(behind=hub.ask_keyframe), Backlog(behind=hub.ask_keyframe)
        viewer = hub.join(Kind.TS, "a", ts, end=ts.close)
        other = hub.join(Kind.WEBRTC, "b", rtc, end=rtc.close, watching=False)
        with pytest.raises(FullError, match="2 viewers"):
            hub.join(Kind.TS, "c", ts, end=ts.close)
        assert hub.watched(Kind.TS)
        assert not hub.watched(Kind.WEBRTC)
        hub.post(Kind.TS, chunk(1, entry=True))
        hub.post(Kind.WEBRTC, chunk(2, entry=True))
        await asyncio.sleep(0)
        assert (numbers(await ts.get()), len(rtc)) == ([1], 0)
        hub.watch(other)
        hub.post(Kind.WEBRTC, chunk(3, entry=True))
        await asyncio.sleep(0)
        assert numbers(await rtc.get()) == [3]
        hub.leave(viewer)
        hub.leave(viewer)
        assert told == [1, 2, 1]
        hub.dismiss(Kind.WEBRTC)
        assert await rtc.get() == []

    run(check())


def test_a_server_that_stands_still_holds_nobody_up_and_loses_whole_stretches():
    async def check():
        hub = Hub(limit=2, stall=1.0)
        hub.attach(asyncio.get_running_loop())
        backlog = Backlog(behind=hub.ask_keyframe)
        hub.join(Kind.TS, "a", backlog, end=backlog.close)

        def frame_loop():
            for number in range(1000):
                hub.post(Kind.TS, chunk(number % 250, entry=number in (0, 990)))

        thread = threading.Thread(target=frame_loop)
        thread.start()
        thread.join()  # the loop does not run meanwhile
        await asyncio.sleep(0)
        assert numbers(await backlog.get()) == [number % 250 for number in range(990, 1000)]

    run(check())


def test_keyframes_are_asked_for_no_faster_than_they_may_be_made(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("nodes.web.hub.time.monotonic", lambda: now[0])
    hub = Hub(limit=1, stall=1.0)
    assert not hub.wants_keyframe
    hub.ask_keyframe()
    assert hub.wants_keyframe
    hub.made_keyframe()
    hub.ask_keyframe()
    assert not hub.wants_keyframe
    now[0] += 0.6
    assert hub.wants_keyframe


def test_who_takes_nothing_for_too_long_is_ended(monkeypatch):
    async def check():
        now = [100.0]
        monkeypatch.setattr("nodes.web.hub.time.monotonic", lambda: now[0])
        hub = Hub(limit=3, stall=2.0)
        ended = []
        viewers = [
            hub.join(Kind.MJPEG, name, Newest(), end=lambda name=name: ended.append(name))
            for name in ("idle", "slow", "stuck")
        ]
        viewers[1].since, viewers[2].since = 99.0, 97.9
        assert hub.end_stalled() == [viewers[2]]
        assert ended == ["stuck"]

    run(check())


def test_a_snapshot_waits_for_the_next_picture():
    async def check():
        hub = Hub(limit=1, stall=1.0)
        hub.attach(asyncio.get_running_loop())
        assert await hub.snapshot(0.01) is None
        assert not hub.wants_jpeg
        waiting = [asyncio.create_task(hub.snapshot(30)) for _ in range(2)]
        await asyncio.sleep(0)
        assert hub.wants_jpeg
        hub.post(Kind.MJPEG, Jpeg(b"picture", 0.0))
        assert await asyncio.gather(*waiting) == [b"picture", b"picture"]
        assert not hub.wants_jpeg

    run(check())
