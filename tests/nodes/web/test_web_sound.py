"""Sound: carried along in MPEG-TS and WebRTC, in step with the pictures."""

from __future__ import annotations

import asyncio
import logging
import threading
from fractions import Fraction

import av
import numpy as np
import pytest
from web_stage import RtcViewer, number_of, numbered, staged, wait_for

from nodes.web.transport_stream import TransportStream
from nodes.web.video import TIME_BASE, Coded
from streamer import AudioFormat, Packet

RATE = 48000
STEP = Fraction(40, 1000)
"""by which sound may be off, seconds"""

LEAD = 0.15
"""seconds by which sound comes before its pictures, which take their time in the graph"""


class Tone:
    """A tone, by default heard during every second second, compressed by a real encoder."""

    def __init__(self, codec="aac", *, seconds=20, layout="stereo", rate=RATE, steady=False):
        self.encoder = av.CodecContext.create(codec, "w")
        self.encoder.sample_rate, self.encoder.layout = rate, layout
        self.encoder.format = "fltp" if codec == "aac" else "flt"
        self.encoder.time_base = Fraction(1, rate)
        self.encoder.bit_rate = 128_000
        self.encoder.open()
        size = self.encoder.frame_size
        channels = av.AudioLayout(layout).nb_channels
        self.packets = []
        for start in range(0, seconds * rate, size):
            times = (start + np.arange(size)) / rate
            wave = 0.5 * np.sin(2 * np.pi * 660 * times) * (steady | times.astype(int) % 2)
            planes = np.tile(wave.astype(np.float32), (channels, 1))
            if codec != "aac":
                planes = np.ascontiguousarray(planes.T.reshape(1, -1))
            frame = av.AudioFrame.from_ndarray(planes, self.encoder.format.name, layout)
            frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
            self.packets += [(p.pts, bytes(p)) for p in self.encoder.encode(frame)]
        self.format = AudioFormat(
            codec="aac" if codec == "aac" else "opus",
            sample_rate=rate,
            layout=layout,
            extradata=bytes(self.encoder.extradata or b""),
            frame_size=size,
        )
        self.rate, self.size = rate, size
        self._next = 0

    def __call__(self, number, fps=30.0):
        """Packets that are due when the picture of this number is."""
        made = []
        while self._next < len(self.packets):
            pts, data = self.packets[self._next]
            if pts / self.rate > number / fps + LEAD:
                break
            self._next += 1
            made.append(
                Packet(
                    stream="s",
                    pts=pts,
                    time_base=Fraction(1, self.rate),
                    duration=self.size,
                    data=data,
                    audio=self.format,
                )
            )
        return made


def onset(samples):
    """Time of the first sample of the tone after silence.

    Args:
        samples: pairs of the time of a block's first sample and the block, mono.
    """
    quiet = False
    for start, block, rate in samples:
        loud = np.abs(block) > 0.1
        if quiet and loud.any():
            return start + Fraction(int(loud.argmax()), rate)
        quiet = quiet or not loud.any()
    return None


def mono(frame):
    array = frame.to_ndarray().astype(np.float32)
    if frame.format.name.startswith("s16"):
        array /= 32768
    if not frame.format.is_planar:
        array = array.reshape(-1, frame.layout.nb_channels).T
    return array.mean(axis=0)


def test_mpegts_carries_sound_in_step():
    tone = Tone()
    with staged(announce=tone.format) as stage:
        stage.sound = tone
        wait_for(lambda: stage.number > 3)
        samples, pictures = [], []
        url = f"http://127.0.0.1:{stage.port}/stream.ts"
        with av.open(url, timeout=20) as container:
            assert [s.codec.name for s in container.streams] == ["h264", "aac"]
            for frame in container.decode():
                if isinstance(frame, av.VideoFrame):
                    number = number_of(frame.to_ndarray(format="rgb24"))
                    pictures.append((frame.pts * frame.time_base, number))
                else:
                    samples.append((frame.pts * frame.time_base, mono(frame), frame.sample_rate))
                heard = onset(samples)
                if heard is not None and pictures and pictures[-1][0] > heard:
                    break
    # The picture of number n belongs to n/30 s, and the tone begins with odd seconds.
    at = {number: time for time, number in pictures}
    seconds = [n for n in at if n % 60 == 30]
    assert seconds, sorted(at)
    assert min(abs(at[n] - heard) for n in seconds) < STEP


def test_webrtc_carries_sound_in_step():
    tone = Tone()

    async def watch(stage):
        viewer = RtcViewer(stage, audio=True)
        await viewer.connect()
        reports = {"video": [], "audio": []}
        first = {}
        for receiver in viewer.peer.getReceivers():
            kind, whole = receiver.track.kind, receiver._handle_rtcp_packet

            async def noted(packet, kind=kind, whole=whole):
                if hasattr(packet, "sender_info"):
                    info = packet.sender_info
                    reports[kind].append((info.ntp_timestamp, info.rtp_timestamp))
                await whole(packet)

            taken = receiver._handle_rtp_packet

            async def begun(packet, arrival_time_ms, kind=kind, taken=taken):
                first.setdefault(kind, packet.timestamp)
                await taken(packet, arrival_time_ms=arrival_time_ms)

            receiver._handle_rtcp_packet = noted
            receiver._handle_rtp_packet = begun
        pictures, samples = [], []

        async def see():
            while True:
                frame = await viewer.tracks["video"].recv()
                pictures.append((frame.pts, number_of(frame.to_ndarray(format="rgb24"))))

        async def hear():
            while onset(samples) is None:
                frame = await viewer.tracks["audio"].recv()
                samples.append((Fraction(frame.pts, RATE), mono(frame), frame.sample_rate))

        seeing = asyncio.create_task(see())
        await asyncio.wait_for(hear(), 30)
        await asyncio.sleep(1.5)
        seeing.cancel()
        await viewer.close()
        return pictures, onset(samples), reports, first

    with staged(announce=tone.format) as stage:
        stage.sound = tone
        pictures, heard, reports, first = asyncio.run(asyncio.wait_for(watch(stage), 60))

    def moment(kind, ticks, clock):
        """The sender's wall-clock time of an RTP time, as its reports tell it."""
        ntp, rtp = reports[kind][-1]
        # aiortc counts the times of what it receives from the first one on.
        off = (first[kind] + ticks - rtp + (1 << 31)) % (1 << 32) - (1 << 31)
        return Fraction(ntp, 1 << 32) + Fraction(off, clock)

    assert reports["video"]
    assert reports["audio"]
    at = moment("audio", int(heard * RATE), RATE)
    seen = [moment("video", pts, 90000) for pts, number in pictures if number % 60 == 30]
    assert seen
    assert min(abs(time - at) for time in seen) < STEP


@pytest.mark.parametrize(
    ("codec", "layout"), [("libopus", "stereo"), ("libopus", "mono"), ("aac", "5.1")]
)
def test_webrtc_gets_opus_of_two_channels_whatever_the_source_has(codec, layout):
    tone = Tone(codec, layout=layout, steady=True)

    async def watch(stage):
        viewer = RtcViewer(stage, audio=True)
        await viewer.connect()
        frames = await viewer.listen(30)
        await viewer.close()
        return frames

    with staged(announce=tone.format) as stage:
        stage.sound = tone
        frames = asyncio.run(asyncio.wait_for(watch(stage), 60))
    assert {frame.layout.name for frame in frames} == {"stereo"}
    assert max(float(np.abs(mono(frame)).max()) for frame in frames) > 0.2


def test_without_sound_there_is_none():
    async def watch(stage):
        viewer = RtcViewer(stage, audio=True)
        await viewer.connect()
        assert "a=inactive" in viewer.answer
        await viewer.watch(3)
        await viewer.close()

    with staged() as stage:
        wait_for(lambda: stage.number > 0)  # sound would have been announced before it
        asyncio.run(asyncio.wait_for(watch(stage), 60))
        with av.open(f"http://127.0.0.1:{stage.port}/stream.ts", timeout=20) as container:
            assert [s.type for s in container.streams] == ["video"]


def test_who_comes_before_the_source_has_opened_hears_it_all_the_same():
    tone = Tone(steady=True)

    async def watch(stage):
        viewer = RtcViewer(stage, audio=True)
        await viewer.connect()
        stage.node.audio(_announcement(tone.format))
        stage.sound = tone
        stage.flowing.set()
        await viewer.listen(30)
        await viewer.watch(3)
        await viewer.close()

    with staged(flowing=False) as stage:
        asyncio.run(asyncio.wait_for(watch(stage), 60))


def test_audio_none_leaves_sound_out():
    tone = Tone(seconds=5)
    with staged(announce=tone.format, audio="none") as stage:
        assert not stage.node.takes_audio()
        stage.sound = tone
        with av.open(f"http://127.0.0.1:{stage.port}/stream.ts", timeout=20) as container:
            assert [s.type for s in container.streams] == ["video"]


def _announcement(audio):
    return Packet(
        stream="s",
        pts=0,
        time_base=Fraction(1, audio.sample_rate),
        duration=0,
        data=b"",
        audio=audio,
    )


def test_a_source_that_comes_back_with_other_sound_ends_streams_that_promised_the_former():
    tone, other = Tone(), Tone("libopus", layout="mono")
    with staged(announce=tone.format) as stage:
        stage.sound = tone
        wait_for(lambda: stage.number > 3)
        url = f"http://127.0.0.1:{stage.port}/stream.ts"
        with av.open(url, timeout=20) as container:
            assert len(container.streams) == 2
            ended = threading.Event()

            def play():
                for _ in container.demux():
                    pass
                ended.set()

            player = threading.Thread(target=play)
            player.start()
            announced = []

            def changed(number):
                if not announced:
                    announced.append(number)
                    return [_announcement(other.format)]
                return other(number)

            stage.sound = changed
            assert ended.wait(30)
            player.join()
        with av.open(url, timeout=20) as container:
            assert [s.codec.name for s in container.streams] == ["h264", "aac"]
            sound = container.streams.audio[0]
            assert (sound.rate, sound.layout.name) == (RATE, "mono")


def test_pictures_do_not_wait_for_sound_that_has_ended():
    tone = Tone()
    stream = TransportStream((256, 192), sound=tone(0)[0], log=logging.getLogger("test"))
    encoder = av.CodecContext.create("libx264", "w")
    encoder.width, encoder.height, encoder.pix_fmt = 256, 192, "yuv420p"
    encoder.time_base = TIME_BASE
    encoder.options = {"preset": "ultrafast", "tune": "zerolatency"}
    sizes = []
    for number in range(90):
        if number < 30:
            for packet in tone(number):
                stream.sound(packet, packet.pts * packet.time_base)
        picture = av.VideoFrame.from_ndarray(numbered(number), format="rgb24")
        picture = picture.reformat(format="yuv420p")
        picture.pts, picture.time_base = round(number / 30 / TIME_BASE), TIME_BASE
        for made in encoder.encode(picture):
            chunk = stream.picture(Coded(bytes(made), made.pts, made.is_keyframe))
            sizes.append(len(chunk))
    stream.close()
    assert len(sizes) == 90
    # Sound comes a little ahead, and pictures wait for more of it a tenth of a second.
    assert all(sizes[45:])
