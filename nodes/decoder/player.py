"""Plays one source: packets in, pictures with their times and sound out."""

from __future__ import annotations

import gc
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import count as count_up
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from av.error import EOFError as EndError
from av.error import FFmpegError

from nodes.decoder.address import parse_address
from nodes.decoder.faults import explain_reading, explain_silence
from nodes.decoder.feed import Broken, DirectFeed, Feed, Stopped, ThreadFeed
from nodes.decoder.input import Input, open_input
from nodes.decoder.interlace import Deinterlacer
from nodes.decoder.pace import at_own_speed, convert, limit
from nodes.decoder.render import Renderer, Shot
from nodes.decoder.sound import Sound
from nodes.decoder.timeline import Timeline
from nodes.rate import exact_rate
from streamer import Context, Drop, Frame, Packet, SourceError

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

    from nodes.decoder import DecoderParams

_LOOK_FOR_SOUND: Final = 250
"""Packets that are read ahead, at most, to learn the format of AAC in ADTS."""
_CUT: Final = 0.5
"""Seconds by which a file may end before the time that it announced."""
_BROADCAST: Final = ("mpegts", "mpeg", "hls", "rtsp", "rtp", "sdp", "flv")
_NO_PICTURE_OF_ITS_OWN: Final = ("vp8", "vp9", "av1")
"""Codecs with packets that show nothing, so that packets cannot be counted as pictures."""


class Player:
    """Opens a source, and yields its frames and audio packets.

    Args:
        params: the decoder's parameters.
        context: the node's.
        live: whether newest wins over complete.
    """

    def __init__(self, params: DecoderParams, context: Context, *, live: bool) -> None:
        self._params = params
        self._context = context
        self._address = parse_address(params.url)
        # A named pipe is a path too, but it may block like a socket.
        self._is_file = self._address.is_local and not Path(self._address.url).is_fifo()
        # A file played at its own speed is live for others, but it can be read ahead.
        self._sent = live and not self._is_file
        self._feed: Feed | None = None
        self._source: Input | None = None
        self._timeline: Timeline | None = None

    def open(self) -> None:
        """Opens the source, and says what to expect of it.

        Raises:
            SourceError: it cannot be opened.
            ParameterError: the pixel format is none that the next nodes take.
        """
        self._renderer = Renderer(self._context, self._params.format)
        if not self._is_file:
            self._context.note(f"connecting to {self._address.shown}")
        try:
            self._source = self._connect()
        except Stopped:
            return
        if self._params.loop or self._sent:
            return
        frames = self._source.frames
        if self._params.fps is not None and self._source.seconds and not self._source.still:
            frames = max(1, round(self._source.seconds * exact_rate(self._params.fps)))
        self._context.expect(frames=frames, seconds=self._source.seconds)

    def close(self) -> None:
        """Closes the source."""
        if self._feed is not None:
            self._feed.close()
            self._feed = None

    def play(self) -> Iterator[Frame | Packet]:
        """Frames and audio packets up to the end, or to the end of the run.

        Raises:
            SourceError: the source broke off, or held nothing that could be decoded.
        """
        if self._source is None:
            return
        self._timeline = Timeline(
            start=self._source.start,
            live=self._sent,
            broadcast=self._source.container.format.name.split(",")[0] in _BROADCAST,
        )
        shots = self._passes(self._source)
        drop, params = self._context.drop, self._params
        paced = params.realtime and not self._address.is_live
        if params.fps is not None and self._address.kind != "pictures" and not self._source.still:
            change = limit if self._sent else convert
            shots = change(shots, exact_rate(params.fps), drop)
        if paced:
            shots = at_own_speed(shots, self._context.stopping)
        try:
            for shot in shots:
                yield shot if isinstance(shot, Packet) else self._renderer.frame(shot)
        except Stopped:
            return

    def _connect(self) -> Input:
        def opener() -> Input:
            return open_input(
                self._address,
                self._params,
                live=self._sent,
                audio=self._context.wants_audio,
            )

        stopping: threading.Event = self._context.stopping
        if self._is_file:
            self._feed = DirectFeed(opener, stopping)
        else:
            self._feed = ThreadFeed(opener, stopping, timeout=self._params.timeout)
        return self._feed.open()

    def _passes(self, source: Input) -> Iterator[Shot | Packet]:
        """Plays the source once, or for ever; announces the sound in the first pass."""
        timeline = self._timeline
        assert timeline is not None
        for turn in count_up():
            shown = 0
            for item in self._pass(source, first=turn == 0):
                shown += isinstance(item, Shot)
                yield item
                if source.still and self._params.loop and isinstance(item, Shot):
                    yield from self._repeat(item)
            if not shown:
                raise SourceError(f"{self._address.shown} holds no picture that can be decoded")
            self._note_end(source, timeline)
            if not self._params.loop:
                return
            assert self._feed is not None
            self._feed.close()
            del source
            # A container and its streams hold each other, so only the collector frees a decoder's
            # buffers; it sees how few objects they are, not how large.
            gc.collect()
            source = self._connect()
            timeline.again(source.start or Fraction(0))

    def _repeat(self, shot: Shot) -> Iterator[Shot]:
        """A still picture, for ever."""
        rate = exact_rate(self._params.fps or 25.0)
        for tick in count_up(1):
            if self._context.stopping.is_set():
                raise Stopped
            yield replace(shot, pts=tick, time_base=1 / rate, duration=1)

    def _pass(self, source: Input, *, first: bool) -> Iterator[Shot | Packet]:
        assert self._feed is not None
        assert self._timeline is not None
        sound = None
        if source.audio is not None:
            sound = Sound(source.audio, self._context.name, self._timeline)
        decoding = Decoding(source, self._timeline, self._context)
        packets, ahead = self._feed.packets(), deque[tuple[Any, int]]()
        try:
            if sound is not None:
                ahead = self._learn(packets, sound)
                if sound.format is None:
                    self._context.log.warning("the sound's format cannot be found; it is left out")
                    sound = None
                elif first:
                    yield sound.announcement()
            while (item := ahead.popleft() if ahead else next(packets, None)) is not None:
                packet, arrival = item
                if packet.stream is source.video:
                    yield from decoding.pictures(packet, arrival)
                elif sound is not None:
                    yield from sound.passed(packet)
        except Broken as broken:
            raise self._broken(broken.error) from broken
        finally:
            decoding.finish()
            if sound is not None and sound.skipped:
                self._context.log.warning("%d audio packets were left out", sound.skipped)
        if self._address.scheme.startswith("rtsp") and source.seconds is None:
            raise self._ended(None)

    def _learn(self, packets: Iterator[tuple[Any, int]], sound: Sound) -> deque[tuple[Any, int]]:
        """Reads ahead until the format of the sound is known."""
        ahead: deque[tuple[Any, int]] = deque()
        while sound.format is None and len(ahead) < _LOOK_FOR_SOUND:
            item = next(packets, None)
            if item is None:
                break
            ahead.append(item)
            if item[0].stream.type == "audio":
                sound.learn(item[0])
        return ahead

    def _broken(self, error: FFmpegError | None) -> SourceError:
        if error is None:
            return explain_silence(self._address, self._params.timeout)
        return self._ended(error)

    def _ended(self, error: FFmpegError | None) -> SourceError:
        assert self._timeline is not None
        after, timeout = float(self._timeline.end), self._params.timeout
        return explain_reading(error, self._address, after=after, timeout=timeout)

    def _note_end(self, source: Input, timeline: Timeline) -> None:
        if self._params.loop or source.still or self._sent or source.seconds is None:
            return
        end = float(timeline.end)
        if end < source.seconds - _CUT:
            text = (
                f"it ends at {end:.1f} s of {source.seconds:.1f} s: the file is cut off or broken"
            )
            self._context.note(text)
            self._context.log.warning(text)


class Decoding:
    """One pass through the video packets of a source.

    Args:
        source: the opened source.
        timeline: gives the pictures their times.
        context: told of pictures that could not be decoded.
    """

    def __init__(self, source: Input, timeline: Timeline, context: Context) -> None:
        self._source = source
        self._timeline = timeline
        self._context = context
        self._time_base = source.video.time_base or Fraction(1, 90000)
        self._weave = Deinterlacer(self._time_base)
        self._read = self._decoded = self._failed = 0

    def pictures(self, packet: Any, arrival: int) -> Iterator[Shot]:
        """Pictures that are ready once this packet was decoded; an empty packet flushes."""
        flush = not packet.size
        if not flush:
            self._read += 1
            packet.opaque = arrival
        for picture in self._decode(packet):
            self._decoded += 1
            if picture.is_corrupt:
                self._context.drop(Drop.CORRUPT)
            else:
                yield from (self._shot(one, arrival) for one in self._weave.passed(picture))
        if flush:
            yield from (self._shot(one, arrival) for one in self._weave.passed(None))

    def finish(self) -> None:
        """Counts what the decoder swallowed, where something was found corrupt."""
        lost = self._read - self._decoded - self._failed
        codec = self._source.video.codec_context.codec.canonical_name
        if self._failed and lost > 0 and codec not in _NO_PICTURE_OF_ITS_OWN:
            self._context.drop(Drop.CORRUPT, lost)
        if self._failed:
            self._context.log.warning(
                "%d of %d pictures could not be decoded", self._failed + max(0, lost), self._read
            )

    def _decode(self, packet: Any) -> list[VideoFrame]:
        try:
            decoded: list[VideoFrame] = packet.decode()
        except EndError:  # flushed before, at an error
            return []
        except FFmpegError:
            self._failed += bool(packet.size)
            self._context.drop(Drop.CORRUPT, int(bool(packet.size)))
            return []
        return decoded

    def _shot(self, picture: VideoFrame, arrival: int) -> Shot:
        own = picture.pts if picture.pts is not None else picture.dts
        base, captured = self._time_base, picture.opaque
        duration = picture.duration
        step = duration * base if duration > 0 else 1 / self._source.rate
        captured = captured if isinstance(captured, int) else arrival
        pts = self._timeline.picture(own, base, step, captured)
        return Shot(
            picture,
            pts,
            base,
            duration,
            captured,
            self._source.pixel_shape(),
        )
