"""Parameters of the encoder."""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from nodes.encoder.outputs import OutputError, parse
from nodes.encoder.recipes import check_bitrate, check_preset, check_quality
from streamer import Params

_BITRATE = re.compile(r"(?P<number>\d{1,15}(?:\.\d{1,15})?)\s*(?P<unit>[kKmM]?)")
_UNITS = {"": 1, "k": 1_000, "m": 1_000_000}
_SIZE = re.compile(r"(?P<number>\d{1,15}(?:\.\d{1,15})?)\s*(?P<unit>[kKmMgG]?)[bB]?")
_SIZES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}
_LEAST_BITRATE, _MOST_BITRATE = 1_000, 1_000_000_000


def bits_per_second(text: str) -> int:
    """Bits per second of `4M`, `800k` or `4000000`.

    Raises:
        ValueError: it is no such number, or outside of 1k to 1000M.
    """
    match = _BITRATE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"a bit rate is written like 4M, 800k or 4000000, not {text!r}")
    bits = round(float(match["number"]) * _UNITS[match["unit"].lower()])
    if not _LEAST_BITRATE <= bits <= _MOST_BITRATE:
        raise ValueError(f"a bit rate is 1k to 1000M bits a second, not {text!r}")
    return bits


def byte_count(text: str | int) -> int:
    """Bytes of `200M`, `1.5G` or `0`.

    Raises:
        ValueError: it is no such number.
    """
    match = _SIZE.fullmatch(str(text).strip())
    if match is None:
        raise ValueError(f"a size is written like 200M, 1.5G or 0, not {text!r:.40}")
    return round(float(match["number"]) * _SIZES[match["unit"].lower()])


class EncoderParams(Params):
    """Parameters of the encoder."""

    url: str
    """Where to: a file (.mp4 .m4v .mov .mkv .webm .ts .flv), also with the time in its name
    (rec-%Y%m%d-%H%M%S.mp4), images (out/%04d.png), udp://host:port, tcp://host:port, rtmp://,
    rtsp://, http(s)://, whip(s):// or http(s)://.../whip, a virtual camera (/dev/video9), or null:
    to encode nothing"""

    codec: str = "auto"
    """FFmpeg's name of the video encoder, or auto: what the output wants and the machine has"""

    quality: float | None = Field(default=None, ge=0, le=63)
    """Constant quality in the codec's own scale, lower is better (x264: 18 to 28, JPEG: 1 to 31);
    by default one that suits the codec; not together with bitrate"""

    bitrate: str | None = Field(default=None, json_schema_extra={"unit": "bit/s"})
    """Bit rate to keep to, such as 4M or 800k, instead of constant quality"""

    preset: str | None = None
    """The codec's own trade of speed for size (x264: ultrafast to veryslow)"""

    options: dict[str, str | int | float | bool] = Field(default_factory=dict)
    """Further options of the codec by FFmpeg's names; they win over all others"""

    muxer_options: dict[str, str | int | float | bool] = Field(default_factory=dict)
    """Further options of the container or protocol by FFmpeg's names; they win over all others"""

    keyframe_interval: Annotated[float, Field(gt=0, le=60)] | None = Field(
        default=None, json_schema_extra={"unit": "s"}
    )
    """Most time between two keyframes; by default 1 for live outputs and 2 for files"""

    fps: Annotated[float, Field(gt=0, le=1000)] | None = Field(
        default=None, json_schema_extra={"unit": "Hz"}
    )
    """Frame rate to announce; pictures keep their own times whatever it is"""

    audio: Literal["auto", "none"] = "auto"
    """Whether sound of the source is carried through where the output can hold it"""

    overwrite: bool = True
    """Whether a file that exists already is replaced; otherwise it is an error"""

    segment_seconds: Annotated[float, Field(ge=1, le=10**6)] | None = Field(
        default=None, json_schema_extra={"unit": "s"}
    )
    """Length of one file of a recording; then it goes on in the next (name-0001.mp4 and so on)"""

    segment_megabytes: Annotated[float, Field(ge=1, le=10**9)] | None = Field(
        default=None, json_schema_extra={"unit": "MB"}
    )
    """Size of one file of a recording; then it goes on in the next, as with segment_seconds"""

    keep_free: str | int = Field(default="200M", json_schema_extra={"unit": "B"})
    """Room to leave on the disk of a recording, such as 200M or 1G: when less is free, the file is
    closed properly, and pictures are dropped until there is room; 0 looks at nothing"""

    timeout: Annotated[float, Field(ge=0.1, le=600)] = Field(
        default=5.0, json_schema_extra={"unit": "s"}
    )
    """How long a server may take to answer, or take nothing, until it counts as gone"""

    give_up: Annotated[float, Field(gt=0, le=10**9)] | None = Field(
        default=None, json_schema_extra={"unit": "s"}
    )
    """How long a server may be away until the node fails; by default it is tried for ever"""

    idle: Literal["hold", "slate", "nothing"] | None = None
    """What a live output shows while no picture comes: the last one (hold), a dark picture with
    words (slate), or nothing; by default hold"""

    slate: str = "no signal"
    """Words to show with idle: slate, or a picture (.png, .jpg)"""

    @field_validator("url")
    @classmethod
    def _known_output(cls, url: str) -> str:
        try:
            parse(url)
        except OutputError as error:
            raise ValueError(str(error)) from None
        return url

    @field_validator("codec")
    @classmethod
    def _known_codec(cls, codec: str, info: ValidationInfo) -> str:
        if codec != "auto":
            # Here, since FFmpeg takes a while to load: most graphs name no codec.
            from nodes.encoder.known import check_codec, check_held

            check_codec(codec)
            if "url" in info.data:
                check_held(parse(info.data["url"]), codec)
        return codec

    @field_validator("quality")
    @classmethod
    def _fitting_quality(cls, quality: float | None, info: ValidationInfo) -> float | None:
        if quality is not None:
            _ask(info, lambda codec: check_quality(codec, quality))
        return quality

    @field_validator("bitrate")
    @classmethod
    def _fitting_bitrate(cls, text: str | None, info: ValidationInfo) -> str | None:
        if text is not None:
            bits_per_second(text)
            _ask(info, check_bitrate)
        return text

    @field_validator("preset")
    @classmethod
    def _fitting_preset(cls, preset: str | None, info: ValidationInfo) -> str | None:
        if preset is not None:
            _ask(info, lambda codec: check_preset(codec, preset))
        return preset

    @field_validator("options")
    @classmethod
    def _known_options(
        cls, options: dict[str, str | int | float | bool], info: ValidationInfo
    ) -> dict[str, str | int | float | bool]:
        encoders = _encoders(info)
        if options and encoders:
            from nodes.encoder.known import check_options

            check_options(encoders, options)
        return options

    @field_validator("keep_free")
    @classmethod
    def _keep_free_is_a_size(cls, text: str | int) -> str | int:
        byte_count(text)
        return text

    @model_validator(mode="after")
    def _fits_the_output(self) -> Self:
        output = parse(self.url)
        if output.kind != "file" and self.segment_seconds is not None:
            raise ValueError("segment_seconds divides a file; this output is none")
        if output.kind != "file" and self.segment_megabytes is not None:
            raise ValueError("segment_megabytes divides a file; this output is none")
        if not output.live and self.idle in ("hold", "slate"):
            raise ValueError(
                f"idle: {self.idle} is for outputs that are watched live, as udp:// or a virtual "
                "camera; a file keeps the gap"
            )
        return self

    @model_validator(mode="after")
    def _one_rate_control(self) -> Self:
        if self.quality is not None and self.bitrate is not None:
            raise ValueError("quality and bitrate exclude each other: give one of them")
        return self

    @property
    def stand_in(self) -> str:
        """What is shown while no picture comes: `hold`, `slate` or `nothing`."""
        return self.idle or ("hold" if parse(self.url).live else "nothing")

    @property
    def rate(self) -> Fraction | None:
        """`fps` as a fraction (29.97 means 30000/1001), None where it is not given."""
        if self.fps is None:
            return None
        near = Fraction(round(self.fps * 1.001)) / Fraction("1.001")
        if abs(near - Fraction(self.fps)) < Fraction(1, 200) and self.fps != round(self.fps):
            return near
        return Fraction(self.fps).limit_denominator(1001)


def _encoders(info: ValidationInfo) -> tuple[str, ...]:
    """Encoders that the output may come to; none where its address or codec is a mistake itself."""
    if "url" not in info.data or "codec" not in info.data:
        return ()
    return parse(info.data["url"]).encoders(info.data["codec"])


def _ask(info: ValidationInfo, test: Callable[[str], None]) -> None:
    """Raises the last encoder's ValueError where none of those that may be taken passes a test."""
    mistake: ValueError | None = None
    for codec in _encoders(info):
        try:
            return test(codec)
        except ValueError as error:
            mistake = error
    if mistake is not None:
        raise mistake
