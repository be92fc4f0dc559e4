"""A web node that is fed as the runtime feeds it, and viewers of every kind."""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import Any

import aiortc
import av
import numpy as np
import pytest

from nodes.web import Web
from streamer import AudioFormat, Frame, Packet
from streamer.testing import SoloContext, solo

SIZE = (256, 192)
STRIPE = 16  # pixels of one digit of a picture's number
DIGITS = 12


def numbered(number: int, *, size: tuple[int, int] = SIZE) -> np.ndarray:
    """A picture with its number in it, as a row of black and white squares, on moving texture."""
    width, height = size
    texture = np.random.default_rng(3).integers(60, 190, (height // 8 + 1, width // 8 + 64, 3))
    shift = number % 64
    coarse = texture[:, shift : shift + width // 8 + 1].astype(np.uint8)
    picture = np.ascontiguousarray(coarse.repeat(8, 0).repeat(8, 1)[:height, :width])
    for digit in range(DIGITS):
        level = 235 if number >> digit & 1 else 16
        picture[:STRIPE, digit * STRIPE : (digit + 1) * STRIPE] = level
    return picture


def number_of(picture: np.ndarray) -> int:
    """The number in a picture of rgb24."""
    row = picture[4 : STRIPE - 4].mean(axis=(0, 2))
    return sum(
        1 << digit
        for digit in range(DIGITS)
        if row[digit * STRIPE + 4 : (digit + 1) * STRIPE - 4].mean() > 126
    )


class Stage:
    """Feeds a web node in a thread of its own, picture by picture, sound in between."""

    def __init__(self, node: Web, context: SoloContext, *, fps: float = 30.0) -> None:
        self.node, self.context, self.fps = node, context, fps
        self.flowing = threading.Event()
        self.flowing.set()
        self.size = SIZE
        self.number = 0
        self.slowest = 0.0
        self.error: BaseException | None = None
        self.sound: Callable[[int], list[Packet]] = lambda number: []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="stage")

    @property
    def port(self) -> int:
        address = self.context.statuses[-1][1]
        return int(address.rstrip("/").rpartition(":")[2])

    def _run(self) -> None:
        begin = time.monotonic()
        due = 0
        try:
            while not self._ended.wait(0.001):
                now = time.monotonic() - begin
                if not self.flowing.is_set():
                    self.node.idle()
                    self._ended.wait(0.02)
                    due = round(now * self.fps)
                    continue
                if now < due / self.fps:
                    continue
                for packet in self.sound(due):
                    self.node.audio(packet)
                pixels = numbered(self.number, size=self.size)
                frame = Frame.of(
                    pixels, pts=round(due / self.fps * 90000), time_base=Fraction(1, 90000)
                )
                started = time.monotonic()
                with frame:
                    self.node.process(frame)
                self.slowest = max(self.slowest, time.monotonic() - started)
                self.number += 1
                due += 1
        except BaseException as error:
            self.error = error

    def begin(self) -> None:
        self._thread.start()

    def end(self) -> None:
        self._ended.set()
        self._thread.join()

    def get(
        self,
        path: str,
        headers: dict[str, str] | None = None,
        method: str = "GET",
        body: Any = None,
    ) -> tuple[int, dict[str, str], bytes]:
        """One request and its whole answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body=body, headers=headers or {})
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return answer.status, found, answer.read()
        finally:
            connection.close()

    def health(self) -> dict[str, Any]:
        status, _, body = self.get("/health")
        assert status == 200
        return json.loads(body)

    def viewers(self, kind: str) -> int:
        return self.health()["viewers"][kind]


@contextmanager
def staged(
    *,
    fps: float = 30.0,
    context: SoloContext | None = None,
    announce: AudioFormat | None = None,
    flowing: bool = True,
    **params: Any,
) -> Iterator[Stage]:
    """A served node that gets pictures; in the end nothing of it is left."""
    before = set(threading.enumerate())
    params = {"listen": "127.0.0.1:0", "codec": "libx264", "bitrate": "2M", **params}
    context = context or SoloContext(name="page", live=True)
    node = solo(Web, context=context, **params)
    stage = Stage(node, context, fps=fps)
    if announce is not None:
        node.audio(
            Packet(
                stream="s",
                pts=0,
                time_base=Fraction(1, announce.sample_rate),
                duration=0,
                data=b"",
                audio=announce,
            )
        )
    if not flowing:
        stage.flowing.clear()
    stage.begin()
    try:
        yield stage
    finally:
        stage.end()
        node.close()
    if stage.error is not None:
        raise stage.error
    left = {t for t in threading.enumerate() if t not in before and t.is_alive()}
    assert not left


def wait_for(condition: Callable[[], Any], *, seconds: float = 30.0) -> Any:
    """Waits until a condition holds and returns its value; fails after a generous deadline."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > end:
            pytest.fail(f"still waiting for {condition} after {seconds:.0f} s")
        time.sleep(0.02)
    return value


def ts_numbers(url: str, count: int) -> list[int]:
    """Numbers of the first pictures that a player of MPEG-TS shows."""
    found = []
    options = {"analyzeduration": "200000"}
    with av.open(url, timeout=20, container_options=options) as container:
        for frame in container.decode(video=0):
            found.append(number_of(frame.to_ndarray(format="rgb24")))
            if len(found) == count:
                break
    return found


class RtcViewer:
    """A real WebRTC viewer: aiortc, as a browser would be."""

    def __init__(self, stage: Stage, *, query: str = "", audio: bool = False) -> None:
        self.stage, self.query, self.audio = stage, query, audio
        self.numbers: list[int] = []
        self.heard: list[av.AudioFrame] = []
        self.status = 0
        self.location = ""
        self.answer = ""
        self.peer: aiortc.RTCPeerConnection | None = None

    async def connect(self) -> None:
        peer = self.peer = aiortc.RTCPeerConnection(
            aiortc.RTCConfiguration(iceServers=[], bundlePolicy=aiortc.RTCBundlePolicy.MAX_BUNDLE)
        )
        tracks: dict[str, aiortc.MediaStreamTrack] = {}
        peer.on("track", lambda track: tracks.setdefault(track.kind, track))
        peer.addTransceiver("video", direction="recvonly")
        if self.audio:
            peer.addTransceiver("audio", direction="recvonly")
        await peer.setLocalDescription(await peer.createOffer())
        status, headers, body = await asyncio.to_thread(
            self.stage.get,
            "/whep" + self.query,
            {"content-type": "application/sdp"},
            "POST",
            peer.localDescription.sdp,
        )
        self.status, self.answer = status, body.decode()
        if status != 201:
            await peer.close()
            return
        self.location = headers["location"]
        await peer.setRemoteDescription(aiortc.RTCSessionDescription(self.answer, "answer"))
        self.tracks = tracks

    async def watch(self, count: int) -> list[int]:
        """Takes pictures; returns the numbers in them."""
        while len(self.numbers) < count:
            frame = await asyncio.wait_for(self.tracks["video"].recv(), 30)
            self.numbers.append(number_of(frame.to_ndarray(format="rgb24")))
        return self.numbers

    async def listen(self, count: int) -> list[av.AudioFrame]:
        """Takes sound."""
        while len(self.heard) < count:
            self.heard.append(await asyncio.wait_for(self.tracks["audio"].recv(), 30))
        return self.heard

    async def close(self) -> None:
        assert self.peer is not None
        await self.peer.close()
