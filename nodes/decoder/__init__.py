"""The decoder: pictures and sound of files, cameras, network streams and picture sequences."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from nodes.decoder.address import parse_address
from streamer import Frame, Packet, Params, Source

if TYPE_CHECKING:
    from nodes.decoder.player import Player

__all__ = ["Decoder", "DecoderParams"]


class DecoderParams(Params):
    """What to play, and how."""

    url: str = Field(min_length=1, max_length=4096)
    """a file, a URL (rtsp, http, udp, rtmp ...), /dev/video0, pictures as frames/%04d.png or \
frames/*.png, or demo: for the clip that comes along"""

    fps: float | None = Field(
        default=None, gt=0, le=1000, allow_inf_nan=False, json_schema_extra={"unit": "1/s"}
    )
    """frame rate: a file's frames are left out or shown again to reach it, a live source is only \
slowed down; of pictures, how fast they are shown (25 by default)"""

    loop: bool = False
    """begin again at the end, for ever; time goes on"""

    realtime: bool = False
    """play a file at its own speed, as if it were a camera; live sources do that anyway"""

    live: bool | Literal["auto"] = "auto"
    """whether newest wins over complete; by default so for cameras and for rtsp, rtmp, udp and \
rtp, and for anything played with realtime"""

    format: Literal["auto", "rgb24", "bgr24", "gray", "yuv420p", "nv12"] = "auto"
    """pixel format to hand on; by default the cheapest one that the next nodes take"""

    audio: bool = True
    """take the sound along, where some output can hold it"""

    timeout: float = Field(
        default=5.0, gt=0, le=300, allow_inf_nan=False, json_schema_extra={"unit": "s"}
    )
    """how long a network source or a device may stay silent, when opened and later"""

    threads: int = Field(default=0, ge=0, le=64)
    """threads of the video decoder; 0 lets FFmpeg choose"""

    options: dict[str, str | int | float | bool] = Field(default_factory=dict, max_length=64)
    """options for FFmpeg's demuxer and protocol, {video_size: 1280x720, input_format: mjpeg} say"""

    @field_validator("url")
    @classmethod
    def _understood(cls, url: str) -> str:
        if "\0" in url or "\n" in url:
            raise ValueError("a url has no line breaks or zero bytes in it")
        parse_address(url)
        return url

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        address = parse_address(self.url)
        if self.loop and (address.is_live or self.live is True):
            raise ValueError("loop: a live source has no end to begin again from")
        return self


class Decoder(Source[DecoderParams]):
    """Plays a file, a camera, a network stream or pictures, with their sound."""

    Params = DecoderParams
    _player: Player | None = None

    @classmethod
    def is_live(cls, params: Any) -> bool:
        """Whether frames come at their own pace; nothing is opened to find out."""
        if params.live != "auto":
            return bool(params.live)
        return bool(params.realtime) or parse_address(params.url).is_live

    def open(self) -> None:
        """Opens the source and finds its picture and its sound.

        Raises:
            SourceError: it cannot be opened, or holds no picture that can be decoded.
            ParameterError: the pixel format is none that the next nodes take.
        """
        from nodes.decoder.player import Player

        self._player = Player(self.params, self.context, live=self.is_live(self.params))
        self._player.open()

    def frames(self) -> Iterator[Frame | Packet]:
        """Yields the frames in order of presentation, and audio packets where they come.

        Raises:
            SourceError: the source went away or broke off.
        """
        assert self._player is not None, "open() comes first"
        return self._player.play()

    def close(self) -> None:
        """Closes the source."""
        if self._player is not None:
            self._player.close()
            self._player = None
