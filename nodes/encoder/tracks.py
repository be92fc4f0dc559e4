"""Streams of a container as plain descriptions, so that several containers can hold the same.

An encoder belongs to no container: the recording goes on in the next file, or the connection in
the next one, while it stays open. PyAV describes a stream that it does not encode by the stream of
another container, so every encoder has a container of its own that leads nowhere.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import av

if TYPE_CHECKING:
    from av.container.output import OutputContainer


@dataclass(frozen=True, slots=True, kw_only=True)
class Track:
    """What a muxer must know of one stream.

    Attributes:
        encoder: FFmpeg's name of an encoder of this codec; it is not used to encode.
        time_base: seconds in one unit of the packets' times.
        extradata: the codec's own header.
        bit_rate: bits a second, 0 if unknown.
        width: pixels; 0 for sound.
        height: pixels; 0 for sound.
        format: FFmpeg's name of the pixel format; empty for sound.
        colours: numbers of ITU-T H.273 for matrix, primaries and transfer, then FFmpeg's of range.
        rate: announced pictures a second; 0 for sound.
        sample_rate: hertz; 0 for pictures.
        layout: FFmpeg's channel layout; empty for pictures.
    """

    encoder: str
    time_base: Fraction
    extradata: bytes = b""
    bit_rate: int = 0
    width: int = 0
    height: int = 0
    format: str = ""
    colours: tuple[int, int, int, int] = (2, 2, 2, 0)
    rate: Fraction = Fraction(0)
    sample_rate: int = 0
    layout: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The description as types that msgpack knows."""
        plain = asdict(self)
        for name in ("time_base", "rate"):
            plain[name] = [plain[name].numerator, plain[name].denominator]
        return plain

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> Track:
        """The description that `to_dict` made plain."""
        times = {name: Fraction(*plain[name]) for name in ("time_base", "rate")}
        return cls(**{**plain, **times, "colours": tuple(plain["colours"])})

    def add_to(self, container: OutputContainer) -> Any:
        """Adds such a stream to a container whose header is not written yet.

        Raises:
            ValueError: the container cannot hold this codec.
        """
        with av.open(os.devnull, "w", format="null") as scratch:
            model: Any = scratch.add_stream(self.encoder, rate=self.sample_rate or self.rate or 30)
            stream = container.add_stream_from_template(model, opaque=True)
        context = stream.codec_context
        if self.sample_rate:
            context.sample_rate = self.sample_rate
            context.layout = self.layout
        else:
            context.width, context.height, context.pix_fmt = self.width, self.height, self.format
            context.colorspace, context.color_primaries, context.color_trc = self.colours[:3]
            context.color_range = self.colours[3]
        if self.bit_rate:
            context.bit_rate = self.bit_rate
        context.extradata = self.extradata or None
        context.time_base = self.time_base
        stream.time_base = self.time_base
        return stream


class Encoding:
    """An open encoder with the description of its stream.

    Args:
        stream: of a container that leads nowhere; its encoder is open.

    Attributes:
        context: the encoder.
        track: what a muxer in another process must know.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.context: Any = stream.codec_context
        # Writing the header of nothing settles what the stream says of itself.
        stream.container.start_encoding()
        context, sound = self.context, stream.type == "audio"
        self.track = Track(
            encoder=context.name,
            time_base=context.time_base,
            extradata=bytes(context.extradata or b""),
            bit_rate=context.bit_rate or 0,
            width=0 if sound else context.width,
            height=0 if sound else context.height,
            # That of the samples, for muxers that know nothing of a GPU's memory.
            format="" if sound else "nv12" if context.pix_fmt == "cuda" else context.pix_fmt,
            colours=(2, 2, 2, 0)
            if sound
            else (
                int(context.colorspace),
                int(context.color_primaries),
                int(context.color_trc),
                int(context.color_range),
            ),
            rate=Fraction(0) if sound else context.framerate,
            sample_rate=context.sample_rate if sound else 0,
            layout=context.layout.name if sound else "",
        )

    def add_to(self, container: OutputContainer) -> Any:
        """Adds a stream of what is encoded to a container whose header is not written yet.

        Raises:
            ValueError: the container cannot hold this codec.
        """
        stream = container.add_stream_from_template(self._stream, opaque=True)
        tag = self.context.codec_tag.strip("\0")
        if tag:
            stream.codec_context.codec_tag = self.context.codec_tag
        stream.time_base = self.context.time_base
        return stream

    def close(self) -> None:
        """Lets go of the container that led nowhere."""
        self._stream.container.close()


def nowhere() -> OutputContainer:
    """A container that takes any stream and writes nothing."""
    return av.open(os.devnull, "w", format="null")


def wants_global_header(muxer: str) -> bool:
    """Whether a container holds the codec's header once, in front, and not in every keyframe."""
    return bool(av.ContainerFormat(muxer, "w").flags & 0x40)  # AVFMT_GLOBALHEADER
