"""What is sent: each picture and each sound encoded once in every form that somebody watches."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from fractions import Fraction
from typing import TYPE_CHECKING, Final

from nodes.encoder.timing import Clock
from nodes.web.backlog import Jpeg
from nodes.web.hub import Hub, Kind
from nodes.web.opus import Opus
from nodes.web.rtp import payloads_of_h264
from nodes.web.transport_stream import TransportStream
from nodes.web.video import H264, TIME_BASE, JpegEncoder
from streamer import AudioFormat, Frame, Header, Packet, SinkError

if TYPE_CHECKING:
    from nodes.encoder.codecs import Setup

_NOMINAL: Final = Fraction(1, 30)
_PATIENCE: Final = 1.0  # seconds for announced sound to come before MPEG-TS begins without it


class Programme:
    """Encodes in the frame loop and posts to the hub; encoders live while somebody watches.

    Args:
        setup: of the H.264 encoder.
        hub: says who watches, and takes what is made.
        jpeg_quality: 1 to 100.
        log: for what a user should know.
        instead: chooses another H.264 encoder for pictures that this one does not take.
    """

    def __init__(
        self,
        setup: Setup,
        *,
        hub: Hub,
        jpeg_quality: int,
        log: logging.Logger,
        instead: Callable[[], Setup] | None = None,
    ) -> None:
        self._setup, self._hub, self._log = setup, hub, log
        self._instead = instead
        self._clock: Clock | None = None
        self._h264: H264 | None = None
        self._ts: TransportStream | None = None
        self._jpeg_quality = jpeg_quality
        self._jpeg: JpegEncoder | None = None
        self._opus: Opus | None = None
        self._audio: AudioFormat | None = None
        self._first_sound: Packet | None = None
        self._announced_at = 0.0

    @property
    def may_have_sound(self) -> bool:
        """Whether sound was announced, or may still be, as it is before the first picture."""
        return self._audio is not None or self._clock is None

    def picture(self, frame: Frame) -> None:
        """Encodes a new picture in every form that is watched.

        Raises:
            SinkError: an encoder failed.
        """
        header = frame.header
        if self._clock is None:
            start = header.pts * header.time_base
            self._clock = Clock(TIME_BASE, start, _NOMINAL)
        pts, _ = self._clock.picture(header.pts, header.time_base, header.duration)
        self._video(frame, pts)
        if self._hub.wants_jpeg:
            self.snapshot(frame)
        else:
            self._jpeg = None

    def again(self, frame: Frame, last: Header, after: float) -> bool:
        """Sends a picture in place of one that does not come; False if nobody watches.

        Args:
            frame: of the last picture's size.
            last: header of the last picture.
            after: seconds since that came.

        Raises:
            SinkError: an encoder failed.
        """
        if self._clock is None:
            return False
        h264 = self._hub.watched(Kind.TS) or self._hub.watched(Kind.WEBRTC)
        if h264:
            # Told to the clock, so that what comes next is later still.
            at = last.pts + round(Fraction(after) / last.time_base)
            pts, _ = self._clock.picture(at, last.time_base, 0)
            self._video(frame, pts)
        if self._hub.watched(Kind.MJPEG):
            self.snapshot(frame)
        return h264 or self._hub.watched(Kind.MJPEG)

    def snapshot(self, frame: Frame) -> None:
        """Makes a JPEG of a picture, for viewers of MJPEG and those who want a single one.

        Raises:
            SinkError: the encoder failed.
        """
        if self._jpeg is None:
            self._jpeg = JpegEncoder(self._jpeg_quality)
        self._hub.post(Kind.MJPEG, Jpeg(self._jpeg.encode(frame), time.monotonic()))

    def audio(self, packet: Packet) -> None:
        """Encodes sound in every form that is watched; a packet without data announces it.

        Raises:
            SinkError: an encoder failed.
        """
        if not packet.data:
            if packet.audio != self._audio:
                self._renew(packet.audio)
            return
        if self._first_sound is None:
            self._renew(packet.audio)
            self._first_sound = packet
        if self._clock is None:
            return
        at = self._clock.seconds(packet.pts, packet.time_base)
        if at < 0:
            return
        if self._ts is not None and (chunk := self._ts.sound(packet, at)) is not None:
            self._hub.post(Kind.TS, chunk)
        if not self._hub.watched(Kind.WEBRTC):
            self._opus = None
            return
        if self._opus is None:
            self._opus = Opus(packet, log=self._log)
        for payloads in self._opus.payloads(packet, at):
            self._hub.post(Kind.WEBRTC, payloads)

    def close(self) -> None:
        """Ends all encoders."""
        self._end_ts()
        self._h264 = self._jpeg = self._opus = None

    def _renew(self, audio: AudioFormat) -> None:
        """Turns to another sound: players read once, at the start, what a stream consists of."""
        if self._ts is not None:
            self._hub.dismiss(Kind.TS)
            self._end_ts()
        self._opus = self._first_sound = None
        self._audio = audio
        self._announced_at = time.monotonic()

    def _video(self, frame: Frame, pts: int) -> None:
        ts, webrtc = self._hub.watched(Kind.TS), self._hub.watched(Kind.WEBRTC)
        if not ts:
            self._end_ts()
        if not (ts or webrtc):
            self._h264 = None
            return
        header = frame.header
        if self._h264 is None or self._h264.size != (header.width, header.height):
            self._h264 = self._opened(frame)
        coded, key = self._h264.encode(frame, pts, key=self._hub.wants_keyframe)
        if key:
            self._hub.made_keyframe()
        for picture in coded:
            if ts and self._ts is None and self._may_begin_ts():
                size = (header.width, header.height)
                self._ts = TransportStream(size, sound=self._first_sound, log=self._log)
                if not picture.key:
                    self._hub.ask_keyframe()
            if self._ts is not None:
                self._hub.post(Kind.TS, self._ts.picture(picture))
            if webrtc:
                self._hub.post(
                    Kind.WEBRTC, payloads_of_h264(picture.data, picture.pts, key=picture.key)
                )

    def _opened(self, frame: Frame) -> H264:
        """An encoder for pictures like this one: those of GPUs take no very large or small ones."""
        try:
            return H264(self._setup, frame)
        except SinkError as error:
            other = None if self._instead is None else self._instead()
            if other is None or other.codec == self._setup.codec:
                raise
            self._log.warning("%s; %s encodes these", error, other.codec)
            return H264(other, frame)

    def _may_begin_ts(self) -> bool:
        """Whether it is known what MPEG-TS is to consist of: of sound, its first packet tells."""
        if self._audio is None or self._first_sound is not None:
            return True
        return time.monotonic() - self._announced_at > _PATIENCE

    def _end_ts(self) -> None:
        stream, self._ts = self._ts, None
        if stream is not None:
            stream.close()
