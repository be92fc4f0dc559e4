from __future__ import annotations

import asyncio
import itertools
import subprocess
import sys
import time

import aiortc
import pytest
from web_stage import RtcViewer, staged, wait_for

from nodes.web import hub, peer


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, 90))


async def viewers(stage, kind="webrtc"):
    return (await asyncio.to_thread(stage.health))["viewers"][kind]


async def until(condition, seconds=30.0):
    end = time.monotonic() + seconds
    while not await condition():
        assert time.monotonic() < end, "still waiting"
        await asyncio.sleep(0.05)


def test_a_viewer_sees_every_picture_in_order_from_a_keyframe_on():
    async def watch(stage):
        viewer = RtcViewer(stage)
        before = stage.number
        await viewer.connect()
        assert viewer.status == 201
        numbers = await viewer.watch(45)
        assert numbers == list(range(numbers[0], numbers[0] + 45))
        assert numbers[0] < before + 900  # the next keyframe is not due for 1,800
        assert await viewers(stage) == 1
        await viewer.close()
        await until(lambda: _none(stage))

    with staged(keyframe_interval=60) as stage:
        run(watch(stage))
    assert stage.context.watching == [1, 0]


async def _none(stage):
    return await viewers(stage) == 0


def test_several_viewers_share_one_encoder():
    async def watch(stage):
        several = [RtcViewer(stage) for _ in range(3)]
        await asyncio.gather(*(viewer.connect() for viewer in several))
        seen = await asyncio.gather(*(viewer.watch(20) for viewer in several))
        for numbers in seen:
            assert numbers == list(range(numbers[0], numbers[0] + 20))
        assert await viewers(stage) == 3
        await asyncio.gather(*(viewer.close() for viewer in several))

    with staged() as stage:
        run(watch(stage))


def test_a_viewer_that_asks_for_a_keyframe_gets_one_but_not_as_many_as_it_asks_for(monkeypatch):
    keys = []
    made = hub.Hub.made_keyframe

    def note(self):
        keys.append(time.monotonic())
        made(self)

    monkeypatch.setattr(hub.Hub, "made_keyframe", note)

    async def watch(stage):
        viewer = RtcViewer(stage)
        await viewer.connect()
        await viewer.watch(5)
        receiver = viewer.peer.getReceivers()[0]
        (ssrc,) = [source.source for source in receiver.getSynchronizationSources()]
        had = len(keys)
        for count in range(6, 66):
            await receiver._send_rtcp_pli(ssrc)
            await viewer.watch(count)
        assert len(keys) > had
        numbers = viewer.numbers
        assert numbers == list(range(numbers[0], numbers[0] + 65))
        await viewer.close()

    with staged(keyframe_interval=60) as stage:
        run(watch(stage))
    gaps = [later - earlier for earlier, later in itertools.pairwise(keys)]
    assert min(gaps) >= hub.KEYFRAME_GAP


def test_lost_packets_are_sent_again():
    async def watch(stage):
        viewer = RtcViewer(stage)
        await viewer.connect()
        await viewer.watch(3)
        way = viewer.peer.getReceivers()[0].transport.transport
        whole, lost = way._recv, []

        async def lossy():
            while True:
                data = await whole()
                number = int.from_bytes(data[2:4])
                media = data[0] >> 6 == 2 and not 192 <= data[1] <= 223
                if not media or number % 17 or number in lost:
                    return data
                lost.append(number)

        way._recv = lossy
        numbers = await viewer.watch(60)
        assert len(lost) > 5
        assert numbers == list(range(numbers[0], numbers[0] + 60))
        await viewer.close()

    with staged(keyframe_interval=60, bitrate="4M") as stage:
        run(watch(stage))


def test_delete_ends_a_viewer():
    async def watch(stage):
        viewer = RtcViewer(stage)
        await viewer.connect()
        await viewer.watch(3)
        status, _, _ = await asyncio.to_thread(stage.get, viewer.location, {}, "DELETE")
        assert status == 200
        await until(lambda: _none(stage))
        status, _, _ = await asyncio.to_thread(stage.get, viewer.location, {}, "DELETE")
        assert status == 404
        await viewer.close()

    with staged() as stage:
        run(watch(stage))


def test_a_viewer_that_is_killed_is_forgotten_and_others_go_on(monkeypatch):
    monkeypatch.setattr(peer, "_SILENCE", 10.0)

    async def watch(stage):
        viewer = RtcViewer(stage)
        await viewer.connect()
        victim = subprocess.Popen(
            [sys.executable, "-m", "nodes.web.bench_viewers", str(stage.port), "0", "0", "1"],
            stdin=subprocess.PIPE,
        )
        seeing = asyncio.create_task(viewer.watch(10_000))
        try:
            await until(lambda: _are(stage, 2))
            victim.kill()
            await until(lambda: _are(stage, 1))
        finally:
            victim.kill()
            victim.communicate()
        before = len(viewer.numbers)

        async def goes_on():
            return len(viewer.numbers) > before + 10

        await until(goes_on)
        seeing.cancel()
        await viewer.close()
        numbers = viewer.numbers
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))

    with staged() as stage:
        run(watch(stage))


async def _are(stage, count):
    return await viewers(stage) == count


def test_an_offer_that_nobody_follows_up_leaves_no_viewer(monkeypatch):
    monkeypatch.setattr(peer, "NEGOTIATION", 5.0)

    async def offer_only(stage):
        viewer = RtcViewer(stage)
        silent = RtcViewer(stage)
        # The one viewer that there may be is there, though it does not connect.
        await _offer(silent)
        assert silent.status == 201
        await _offer(viewer)
        assert (viewer.status, viewer.answer) == (
            503,
            "there are 1 viewers, as many as max_viewers allows\n",
        )
        await until(lambda: _admitted(stage))

    async def _admitted(stage):
        viewer = RtcViewer(stage)
        await _offer(viewer)
        return viewer.status == 201

    with staged(max_viewers=1) as stage:
        run(offer_only(stage))
    assert stage.context.watching == []


async def _offer(viewer):
    """Makes an offer and leaves it at that."""
    connection = aiortc.RTCPeerConnection(aiortc.RTCConfiguration(iceServers=[]))
    connection.addTransceiver("video", direction="recvonly")
    await connection.setLocalDescription(await connection.createOffer())
    viewer.status, _, body = await asyncio.to_thread(
        viewer.stage.get,
        "/whep",
        {"content-type": "application/sdp"},
        "POST",
        connection.localDescription.sdp,
    )
    viewer.answer = body.decode()
    await connection.close()


def test_media_stay_on_the_address_that_is_listened_on():
    async def watch(stage):
        viewer = RtcViewer(stage)
        await viewer.connect()
        found = [line for line in viewer.answer.splitlines() if line.startswith("a=candidate")]
        assert [line.split()[4] for line in found] == ["127.0.0.1"]
        await viewer.watch(2)
        await viewer.close()

    with staged() as stage:
        run(watch(stage))


def test_viewers_are_told_when_the_node_ends():
    async def watch(stage):
        viewer = RtcViewer(stage)
        await viewer.connect()
        await viewer.watch(3)
        await asyncio.to_thread(stage.end)
        await asyncio.to_thread(stage.node.finish)
        with pytest.raises(aiortc.mediastreams.MediaStreamError):
            await viewer.watch(1000)
        await viewer.close()

    with staged() as stage:
        run(watch(stage))


def test_bad_offers_are_refused_with_a_sentence():
    with staged() as stage:
        for body, said in (
            ("", "does not begin with v=0"),
            ("hello", "does not begin with v=0"),
            ("v=0\r\ns=-\r\n", "no video section to receive H.264"),
            ("v=0\r\nm=video\r\n", "a section that cannot be read"),
            ("v=0\r\n" + "m=audio 9 UDP/TLS/RTP/SAVPF 0\r\n" * 20, "more than 16 sections"),
            ("v=0\r\n\xff", "not UTF-8"),
        ):
            status, _, answer = stage.get(
                "/whep", {"content-type": "application/sdp"}, "POST", body.encode("latin-1")
            )
            assert status == 400, body
            assert said in answer.decode()
            assert answer.count(b"\n") == 1
        before = stage.number
        wait_for(lambda: stage.number > before + 2)
