"""The decoder: pictures and sound of files, cameras, network streams and picture sequences."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from nodes.decoder.address import check_scheme, parse_address
from streamer import Frame, Packet, Params, Source

if TYPE_CHECKING:
    from nodes.decoder.player import Player

__all__ = ["Decoder", "DecoderParams"]


class DecoderParams(Params):
    """What to play, and how."""

    url: str = Field(min_length=1, max_length=4096)
    """a file, a URL (rtsp, http, udp, rtmp ...), /dev/video0, camera:NAME, pictures as \
frames/%04d.png or frames/*.png, or demo: for the clip that comes along"""

    fps: float | None = Field(
        default=None, gt=0, le=1000, allow_inf_nan=False, json_schema_extra={"unit": "1/s"}
    )
    """frame rate: a file's frames are left out or shown again to reach it, a live source is only \
slowed down, a camera asked for it; of pictures, how fast they are shown (25 by default)"""

    size: str | None = Field(default=None, pattern=r"^[1-9]\d{0,4}x[1-9]\d{0,4}$")
    """of a camera: the size that it is asked for, 1280x720 say; `streamer devices` lists them"""

    input_format: str | None = Field(default=None, pattern=r"^[a-z0-9_]{1,32}$")
    """of a camera: the pixel format or codec that it is asked for, mjpeg or yuyv422 say"""

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
    """how long a network source or a device may stay silent, when opened and later; then it is \
opened again"""

    give_up: float | None = Field(
        default=None, ge=0, le=31_536_000, allow_inf_nan=False, json_schema_extra={"unit": "s"}
    )
    """how long a live source that is away is tried again before the run ends; by default for \
ever, 0: not at all"""

    transport: Literal["tcp", "udp", "auto"] = "tcp"
    """how an RTSP server is to send: within the connection, beside it, or, with auto, as the \
server takes it, tcp first"""

    jitter: Annotated[float, Field(ge=0, le=60, allow_inf_nan=False)] | Literal["auto"] = Field(
        default="auto", json_schema_extra={"unit": "s"}
    )
    """how long a picture of a live source that sends in bursts waits at most, to be let go \
evenly; auto: 0.25 (HLS: 30); 0: never. A source that sends smoothly is not delayed"""

    hwaccel: Literal["auto", "cuda", "none"] = "auto"
    """who decodes: auto is the GPU where the node has one (gpu: 0) that takes the codec, else the \
CPU; cuda is the GPU or an error"""

    threads: int = Field(default=0, ge=0, le=64)
    """threads of the video decoder; 0 lets FFmpeg choose"""

    options: dict[str, str | int | float | bool] = Field(default_factory=dict, max_length=64)
    """options for FFmpeg's demuxer and protocol, {video_size: 1280x720, input_format: mjpeg} say"""

    @field_validator("url")
    @classmethod
    def _understood(cls, url: str) -> str:
        if "\0" in url or "\n" in url:
            raise ValueError("a url has no line breaks or zero bytes in it")
        check_scheme(parse_address(url))
        return url

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        address = parse_address(self.url)
        if self.loop and (address.is_live or self.live is True):
            raise ValueError("loop: a live source has no end to begin again from")
        for name in ("size", "input_format"):
            if getattr(self, name) is not None and address.kind != "device":
                raise ValueError(
                    f"{name} is asked of a camera, and {address.shown} is none; a preprocess node "
                    "changes the size of other pictures"
                )
        if self.transport != "tcp" and address.scheme not in ("rtsp", "rtsps"):
            raise ValueError(f"transport: {self.transport} is for rtsp: addresses only")
        return self


class Decoder(Source[DecoderParams]):
    """Plays a file, a camera, a network stream or pictures, with their sound."""

    Params = DecoderParams
    memory = ("cuda", "host")
    preload: ClassVar[tuple[str, ...]] = ("nodes.decoder.player",)
    _player: Player | None = None

    @classmethod
    def is_live(cls, params: Any) -> bool:
        """Whether frames come at their own pace; nothing is opened to find out."""
        if params.live != "auto":
            return bool(params.live)
        return bool(params.realtime) or parse_address(params.url).is_live

    def open(self) -> None:
        """Opens the source and finds its picture and its sound; a live one may still be away.

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
            SourceError: the source broke off, or is away for longer than `give_up`.
        """
        assert self._player is not None, "open() comes first"
        return self._player.play()

    def close(self) -> None:
        """Closes the source."""
        if self._player is not None:
            self._player.close()
            self._player = None
