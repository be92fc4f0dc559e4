"""The video encoder of an output: opened for one shape, whatever containers its packets go to."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any

from av.codec.context import Flags
from av.error import FFmpegError
from av.video.frame import PictureType

from nodes.encoder.codecs import Setup
from nodes.encoder.failures import failure, reason
from nodes.encoder.on_gpu import surfaces_of
from nodes.encoder.outputs import Output
from nodes.encoder.pictures import Shape
from nodes.encoder.tracks import Encoding, nowhere, wants_global_header
from streamer import Header, SinkError
from streamer.priority import ordinary_priority

if TYPE_CHECKING:
    import av
    from av.video.frame import VideoFrame

_USUAL_RATE = Fraction(30)
_COUNTING = ("mpeg1video", "mpeg2video")
_RATES = (
    *(Fraction(rate) for rate in (24, 25, 30, 50, 60)),
    *(Fraction(1000 * rate, 1001) for rate in (24, 30, 60)),
)
_FINEST = Fraction(1, 60_000)
"""of MPEG-4 Part 2: a unit that all usual rates are whole numbers of"""


class VideoEncoder(Encoding):
    """Encodes pictures of one shape; keyframes come by time, since pictures may come at any rate.

    Args:
        output: where to, for messages and for what its container wants.
        setup: the encoder and its settings.
        shape: of the pictures.
        rate: announced pictures a second.
        time_base: seconds in one unit of the pictures' times.
        every: seconds between two cuts, each at a keyframe; None for no cuts.

    Raises:
        SinkError: the encoder does not take such pictures.
    """

    def __init__(
        self,
        output: Output,
        setup: Setup,
        shape: Shape,
        *,
        rate: Fraction,
        time_base: Fraction,
        every: Fraction | None = None,
    ) -> None:
        self.shape = shape
        self._output, self._setup = output, setup
        self._next_key: Fraction | None = None
        self._every = every
        self._next_cut: Fraction | None = None
        self._cuts: set[Fraction] = set()
        scratch = nowhere()
        try:
            hwaccel = surfaces_of(setup.surfaces)
            stream: Any = scratch.add_stream(setup.codec, rate=rate, hwaccel=hwaccel)
            context = stream.codec_context
            setup.context(
                context, width=shape.width, height=shape.height, format=shape.format, rate=rate
            )
            shape.tag(context)
            context.time_base = stream.time_base = time_base
            if wants_global_header(output.container.muxer):
                context.flags |= Flags.global_header
            with ordinary_priority():
                context.open()
        except (FFmpegError, ValueError) as error:
            raise SinkError(
                f"the codec {setup.codec} does not take pictures of "
                f"{shape.width}x{shape.height} {shape.format}: {reason(error)}; "
                "make them smaller, or choose another codec"
            ) from error
        super().__init__(stream)

    def encode(self, picture: VideoFrame, pts: int, duration: int) -> list[av.Packet[Any]]:
        """Packets that are ready once this picture has come.

        Args:
            picture: of the encoder's shape.
            pts: in units of the encoder's time base; more than the one before.
            duration: in the same units.

        Raises:
            SinkError: the encoder failed.
        """
        picture.pts, picture.duration = pts, duration
        picture.time_base = self.context.time_base
        # A picture that is sent once more was a keyframe perhaps, and need not be one again.
        key = self._is_key(pts * self.context.time_base)
        picture.pict_type = PictureType.I if key else PictureType.NONE
        return self._encoded(picture)

    def flush(self) -> list[av.Packet[Any]]:
        """Packets that were held back; nothing can be encoded afterwards."""
        return self._encoded(None)

    def cut_at(self, at: Fraction) -> bool:
        """Whether the keyframe of this time, in seconds, was made for a cut; true only once."""
        if at not in self._cuts:
            return False
        self._cuts.discard(at)
        return True

    def _encoded(self, picture: VideoFrame | None) -> list[av.Packet[Any]]:
        try:
            packets: list[av.Packet[Any]] = self.context.encode(picture)
        except FFmpegError as error:
            raise failure(self._output, "encode for", error) from error
        return packets

    def _is_key(self, at: Fraction) -> bool:
        if not self._is_cut(at) and self._next_key is not None and at < self._next_key:
            return False
        # Measured from the picture itself, so that a gap is not followed by a crowd of keyframes.
        self._next_key = at + self._setup.interval
        return True

    def _is_cut(self, at: Fraction) -> bool:
        if self._every is None:
            return False
        if self._next_cut is None:
            self._next_cut = at + self._every
        if at < self._next_cut:
            return False
        while self._next_cut <= at:
            self._next_cut += self._every
        self._cuts.add(at)
        return True


def rate_of(header: Header, setup: Setup) -> Fraction:
    """Pictures a second to announce for pictures like this one."""
    if setup.rate is not None:
        return setup.rate
    if header.duration > 0:
        rate = 1 / (header.duration * header.time_base)
        if rate <= 1000:
            return rate.limit_denominator(1001)
    return _USUAL_RATE


def time_base_of(header: Header, setup: Setup, rate: Fraction) -> Fraction:
    """Seconds in one unit of the encoder's times: the source's, where the codec takes them.

    MPEG-1 and MPEG-2 count pictures at one of a few rates (ISO/IEC 13818-2, table 6-4), MPEG-4
    Part 2 in at most 65,535ths of a second.
    """
    own = header.time_base
    if setup.codec in _COUNTING:
        nearest = min(_RATES, key=lambda known: abs(known - rate))
        return own if 1 / own in _RATES else 1 / nearest
    if setup.codec == "mpeg4" and own.denominator > _FINEST.denominator:
        return _FINEST
    return own
