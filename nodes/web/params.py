"""Parameters of the web output."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from nodes.encoder.params import bits_per_second
from nodes.web.address import Address, parse_listen
from streamer import Params


class WebParams(Params):
    """Where to serve, to whom, and how pictures are encoded."""

    listen: str = "127.0.0.1:8080"
    """IP:PORT to serve on; 127.0.0.1 is reached from this machine alone, 0.0.0.0 from everywhere \
(then a token is demanded); port 0 takes a free one"""

    token: Annotated[str, Field(min_length=12, max_length=128)] | None = Field(
        default=None, repr=False
    )
    """what viewers must send, as ?token= or as a bearer header; by default one made at random, or \
none on 127.0.0.1 without `hosts`"""

    hosts: list[Annotated[str, Field(min_length=1, max_length=253)]] = Field(
        default_factory=list, max_length=32
    )
    """names by which viewers may call this server, beside localhost and IP addresses"""

    max_viewers: int = Field(default=32, ge=1, le=1000)
    """viewers of all kinds together; more are refused"""

    stall: float = Field(
        default=5.0, ge=0.5, le=300, allow_inf_nan=False, json_schema_extra={"unit": "s"}
    )
    """a viewer that takes nothing for so long is closed"""

    codec: Literal["auto", "libx264", "h264_nvenc"] = "auto"
    """encoder of H.264, for WebRTC and MPEG-TS; by default NVENC where there is one"""

    preset: str | None = Field(default=None, max_length=64)
    """the encoder's own trade of speed for quality; by default its quick one"""

    bitrate: str = Field(default="4M", json_schema_extra={"unit": "bit/s"})
    """bits a second of H.264 to keep to; 2.5M and 800k are understood"""

    keyframe_interval: float = Field(
        default=2.0, ge=0.1, le=60, allow_inf_nan=False, json_schema_extra={"unit": "s"}
    )
    """most seconds between two keyframes; a viewer who comes gets one at once"""

    jpeg_quality: int = Field(default=85, ge=1, le=100)
    """of /stream.mjpeg and /snapshot.jpg; 100 is best"""

    idle: Literal["hold", "slate", "nothing"] = "hold"
    """what viewers get while no picture comes: the last one (hold), a dark picture with words \
(slate), or nothing"""

    slate: str = Field(default="no signal", max_length=4096)
    """words to show with idle: slate, or a picture (.png, .jpg)"""

    audio: Literal["auto", "none"] = "auto"
    """whether sound of the source is carried along"""

    @field_validator("listen")
    @classmethod
    def _listens_somewhere(cls, text: str) -> str:
        parse_listen(text)
        return text

    @field_validator("token")
    @classmethod
    def _fits_into_an_address(cls, token: str | None) -> str | None:
        if token is not None and not all(
            character.isascii() and (character.isalnum() or character in "-._~")
            for character in token
        ):
            # The value is a secret: it is not repeated here.
            raise ValueError("a token consists of letters, digits and - . _ ~ alone")
        return token

    @field_validator("bitrate")
    @classmethod
    def _bitrate_is_a_number(cls, text: str) -> str:
        bits_per_second(text)
        return text

    @property
    def address(self) -> Address:
        """`listen`, parsed."""
        return parse_listen(self.listen)
