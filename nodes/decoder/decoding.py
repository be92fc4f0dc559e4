"""Video packets into pictures with their times."""

from __future__ import annotations

import time
from collections.abc import Iterator
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Final

from av.error import EOFError as EndError
from av.error import FFmpegError

from nodes.decoder.input import Input
from nodes.decoder.interlace import Deinterlacer
from nodes.decoder.render import Shot
from nodes.decoder.timeline import Timeline
from streamer import Context, Drop

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

    from nodes.decoder.hwaccel import Acceleration

_NO_PICTURE_OF_ITS_OWN: Final = ("vp8", "vp9", "av1")
"""Codecs with packets that show nothing, so that packets cannot be counted as pictures."""
_MANY: Final = 50
"""Packets without a whole picture: more than any decoder keeps back."""


class Decoding:
    """One pass through the video packets of a source.

    Args:
        source: the opened source.
        timeline: gives the pictures their times.
        context: told of pictures that could not be decoded.
        stale_ns: arrival of the last packet that had come before it could be shown.
        acceleration: the GPU's decoder; None where the CPU decodes.
    """

    def __init__(
        self,
        source: Input,
        timeline: Timeline,
        context: Context,
        *,
        stale_ns: int = 0,
        acceleration: Acceleration | None = None,
    ) -> None:
        self._acceleration = acceleration
        self._source = source
        self._timeline = timeline
        self._context = context
        self._time_base = source.video.time_base or Fraction(1, 90000)
        self._weave = Deinterlacer(self._time_base)
        self._read = self._decoded = self._failed = self._corrupt = 0
        self._stale_ns = stale_ns
        self._keyed = False
        self._vain, self._vain_since = 0, 0.0

    def pictures(self, packet: Any, arrival: int) -> Iterator[Shot]:
        """Pictures that are ready once this packet was decoded; an empty packet flushes."""
        flush = not packet.size
        if not flush:
            self._read += 1
            packet.opaque = arrival
            self._keyed = self._keyed or packet.is_keyframe
            if not self._vain:
                self._vain_since = time.monotonic()
            self._vain += 1
        for picture in self._decode(packet):
            self._decoded += 1
            if picture.is_corrupt:
                self._corrupt += 1
                self._context.drop(Drop.CORRUPT)
            else:
                self._vain = 0
                picture = self._accelerated(picture)
                yield from (self._shot(one, arrival) for one in self._weave.passed(picture))
        if flush:
            yield from (self._shot(one, arrival) for one in self._weave.passed(None))

    def blind(self) -> float:
        """Seconds for which pictures have come that should be decodable, and none was.

        Those are a picture that stands for itself and what follows it, and any after one that was
        decoded. Before it, in mid-stream, there is nothing to decode until the next keyframe,
        however late that comes.
        """
        if self._vain < _MANY or not (self._keyed or self._decoded):
            return 0.0
        return time.monotonic() - self._vain_since

    def finish(self) -> None:
        """Counts what the decoder swallowed, where something was found corrupt."""
        lost = self._read - self._decoded - self._failed
        codec = self._source.video.codec_context.codec.canonical_name
        found = self._failed or self._corrupt  # FFmpeg does not report each that it leaves out
        if found and lost > 0 and codec not in _NO_PICTURE_OF_ITS_OWN:
            self._context.drop(Drop.CORRUPT, lost)
        if self._failed:
            self._context.log.warning(
                "%d of %d pictures could not be decoded", self._failed + max(0, lost), self._read
            )

    def _accelerated(self, picture: VideoFrame) -> VideoFrame:
        """The picture, in host memory where fields have to be woven."""
        if self._acceleration is None:
            return picture
        self._acceleration.decoded(picture, self._source.video.codec_context)
        if not picture.interlaced_frame:
            return picture
        from nodes.decoder.on_gpu import on_host

        return on_host(picture)

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
            arrival,
            self._source.pixel_shape(),
            stale=captured <= self._stale_ns,
        )
