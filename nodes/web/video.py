"""Pictures encoded once for all viewers of a kind."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Final, cast

import av
from av.error import FFmpegError
from av.video.codeccontext import VideoCodecContext
from av.video.frame import PictureType, VideoFrame
from av.video.reformatter import ColorRange

from nodes.encoder.codecs import Setup, choose
from nodes.encoder.failures import reason
from nodes.encoder.outputs import parse
from nodes.encoder.params import EncoderParams
from nodes.encoder.pictures import Converter, Shape
from streamer import Frame, SinkError

if TYPE_CHECKING:
    from nodes.web.params import WebParams

TIME_BASE: Final = Fraction(1, 90000)
"""seconds in one unit of times of H.264, in MPEG-TS and RTP alike"""

_RATE: Final = Fraction(30)
_LIKE: Final = "udp://127.0.0.1:9"  # an output that is watched live, for the choice of settings


@dataclass(frozen=True, slots=True)
class Coded:
    """One encoded picture.

    Attributes:
        data: H.264 with start codes; parameter sets stand before every keyframe.
        pts: presentation time in units of `TIME_BASE`.
        key: whether decoding can begin with it.
    """

    data: bytes
    pts: int
    key: bool


def choose_h264(params: WebParams, *, gpu: int | None) -> Setup:
    """The H.264 encoder that works here, opened once with these settings.

    Raises:
        ParameterError: none opens with them.
    """
    like = EncoderParams(
        url=_LIKE,
        codec=params.codec,
        preset=params.preset,
        bitrate=params.bitrate,
        keyframe_interval=params.keyframe_interval,
        # What every browser decodes in WebRTC.
        options={"profile": "baseline"},
    )
    return choose(parse(_LIKE), like, gpu=gpu)


def choose_software(params: WebParams) -> Setup:
    """The H.264 encoder that takes pictures of any size, with these settings.

    Raises:
        ParameterError: it does not open with them.
    """
    return choose_h264(params.model_copy(update={"codec": "libx264"}), gpu=None)


class H264:
    """An encoder for pictures of one size.

    Args:
        setup: from `choose_h264`.
        first: of the pictures.

    Raises:
        SinkError: it does not open for pictures of this size.
    """

    def __init__(self, setup: Setup, first: Frame) -> None:
        header = first.header
        self.size = (header.width, header.height)
        shape = Shape.of(header, setup.formats, codec=setup.codec)
        self._converter = Converter(shape, frees=setup.frees)
        self._encoder = cast(VideoCodecContext, av.CodecContext.create(setup.codec, "w"))
        setup.context(
            self._encoder, width=shape.width, height=shape.height, format=shape.format, rate=_RATE
        )
        shape.tag(self._encoder)
        self._encoder.time_base = TIME_BASE
        self._interval = round(setup.interval / TIME_BASE)
        self._next_key: int | None = None
        try:
            self._encoder.open()
        except FFmpegError as error:
            raise SinkError(
                f"the codec {setup.codec} does not take pictures of {shape.width}x{shape.height} "
                f"{shape.format}: {reason(error)}; make them smaller, or choose another codec"
            ) from error

    @property
    def context(self) -> VideoCodecContext:
        """The encoder, for a container to describe its stream by."""
        return self._encoder

    def encode(self, frame: Frame, pts: int, *, key: bool) -> tuple[list[Coded], bool]:
        """Encodes a picture; keeps no view of the frame.

        Args:
            frame: of the encoder's size.
            pts: in units of `TIME_BASE`, later than the one before.
            key: whether a keyframe is asked for.

        Returns:
            what the encoder gave, and whether this picture is a keyframe.

        Raises:
            SinkError: the encoder failed.
        """
        picture = self._converter.convert(frame)
        picture.pts, picture.time_base = pts, TIME_BASE
        key = key or self._next_key is None or pts >= self._next_key
        if key:
            picture.pict_type = PictureType.I
            self._next_key = pts + self._interval
        try:
            return [
                Coded(bytes(packet), packet.pts or 0, bool(packet.is_keyframe))
                for packet in self._encoder.encode(picture)
            ], key
        except FFmpegError as error:
            raise SinkError(f"encoding H.264 failed: {reason(error)}", retry=True) from error


class JpegEncoder:
    """Makes JPEG files of frames of any size and format.

    Args:
        quality: 1 to 100, 100 is best.
    """

    def __init__(self, quality: int) -> None:
        # FFmpeg's quantisers go from 2, fine, to 31.
        self._quantiser = round(2 + (100 - quality) * 29 / 99)
        self._like: tuple[int, int, str] | None = None
        self._encoder: VideoCodecContext | None = None
        self._converter: Converter | None = None

    def encode(self, frame: Frame) -> bytes:
        """One picture as a JPEG file; keeps no view of the frame.

        Raises:
            SinkError: the encoder failed.
        """
        header = frame.header
        like = (header.width, header.height, header.format)
        try:
            if self._encoder is None or self._converter is None or self._like != like:
                self._open(frame)
                self._like = like
            assert self._encoder is not None
            assert self._converter is not None
            picture: VideoFrame = self._converter.convert(frame)
            picture.pts = None
            return b"".join(bytes(packet) for packet in self._encoder.encode(picture))
        except FFmpegError as error:
            raise SinkError(f"encoding a JPEG failed: {reason(error)}", retry=True) from error

    def _open(self, frame: Frame) -> None:
        formats = tuple(item.name for item in av.Codec("mjpeg", "w").video_formats or ())
        shape = Shape.of(frame.header, formats, codec="mjpeg")
        encoder = av.CodecContext.create("mjpeg", "w")
        encoder.width, encoder.height, encoder.pix_fmt = shape.width, shape.height, shape.format
        encoder.time_base, encoder.framerate = 1 / _RATE, _RATE
        encoder.color_range = ColorRange.JPEG
        # The option for a fixed quantiser is read from each picture, which PyAV does not set.
        encoder.options = {"qmin": str(self._quantiser), "qmax": str(self._quantiser)}
        encoder.thread_count = 1  # with more, pictures come out one call late
        encoder.open()
        self._encoder, self._converter = encoder, Converter(shape, frees=False)
