"""What an address means: kind of output, container, and the codecs that suit it."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal
from urllib.parse import urlsplit

from nodes.encoder.directives import wrong_moment, wrong_number
from streamer.masking import mask

Kind = Literal["file", "images", "network", "device", "null"]


class OutputError(ValueError):
    """An address that names no output."""


@dataclass(frozen=True, slots=True)
class Container:
    """A container format.

    Attributes:
        muxer: FFmpeg's name of it.
        video: encoders that suit it, best first; the first one that opens is taken.
        holds: codecs (canonical names) of video that it can hold; empty if FFmpeg's muxer knows.
        copies: codecs of sound that are copied into it unchanged.
        sound: encoder for any other sound; None if it holds no sound.
    """

    muxer: str
    video: tuple[str, ...]
    holds: tuple[str, ...] = ()
    copies: frozenset[str] = frozenset()
    sound: str | None = None


@dataclass(frozen=True, slots=True)
class Output:
    """Where pictures go.

    Attributes:
        url: as FFmpeg wants it.
        kind: how it is opened and what happens when the size changes.
        container: what is written.
        path: the file, or None.
        live: whether it is watched while it is written, so that latency comes before size.
    """

    url: str
    kind: Kind
    container: Container
    path: Path | None = None
    live: bool = False

    @property
    def shown(self) -> str:
        """The address without credentials, for messages."""
        return mask(self.url)

    def encoders(self, codec: str) -> tuple[str, ...]:
        """Encoders that may be taken, best first: the one that is asked for, or what suits it.

        Args:
            codec: FFmpeg's name of an encoder, or `auto`.
        """
        return self.container.video if codec == "auto" else (codec,)

    @property
    def claim(self) -> str | None:
        """What no other output can have: the address without credentials, or the device."""
        if self.kind == "device":
            return str(self.path)
        if self.kind != "network":
            return None
        parts = urlsplit(self.url)
        host = "127.0.0.1" if parts.hostname == "localhost" else parts.hostname
        claim = f"{parts.scheme}://{host}:{parts.port or ''}"
        if parts.scheme in ("udp", "tcp"):  # what follows are options of FFmpeg
            return claim
        return f"{claim}{parts.path}?{parts.query}"


_H264 = ("h264_nvenc", "libx264")
_VP9 = ("libvpx-vp9",)
_MP4_SOUND = frozenset({"aac", "mp3", "ac3", "eac3", "alac", "flac", "opus"})
_PCM = frozenset({"pcm_s16le", "pcm_s24le", "pcm_s32le", "pcm_f32le"})

MP4: Final = Container("mp4", _H264, (), _MP4_SOUND, "aac")
MOV: Final = Container(
    "mov", _H264, (), (_MP4_SOUND | _PCM | {"pcm_s16be", "pcm_mulaw", "pcm_alaw"}) - {"flac"}, "aac"
)
MATROSKA: Final = Container("matroska", _H264, (), _MP4_SOUND | _PCM | {"vorbis", "mp2"}, "aac")
WEBM: Final = Container("webm", _VP9, (), frozenset({"opus", "vorbis"}), "libopus")
MPEGTS: Final = Container(
    "mpegts",
    _H264,
    ("h264", "hevc", "mpeg2video", "mpeg1video", "mpeg4"),
    frozenset({"aac", "mp3", "mp2", "ac3", "eac3"}),
    "aac",
)
FLV: Final = Container(
    "flv", _H264, ("h264", "hevc", "av1", "vp9", "flv1"), frozenset({"aac", "mp3"}), "aac"
)
RTSP: Final = Container(
    "rtsp",
    _H264,
    ("h264", "hevc", "vp8", "vp9", "av1", "mpeg4", "mjpeg"),
    frozenset({"aac", "opus", "pcm_mulaw", "pcm_alaw"}),
    "aac",
)
WHIP: Final = Container("whip", _H264, ("h264",), frozenset(), "libopus")
PNG: Final = Container("image2", ("png",), ("png",))
JPEG: Final = Container("image2", ("mjpeg",), ("mjpeg",))
VIDEO4LINUX: Final = Container("v4l2", ("rawvideo",), ("rawvideo",))
NOTHING: Final = Container("null", ())

FILES: Final = {
    ".mp4": MP4,
    ".m4v": MP4,
    ".mov": MOV,
    ".mkv": MATROSKA,
    ".webm": WEBM,
    ".ts": MPEGTS,
    ".flv": FLV,
}
IMAGES: Final = {".png": PNG, ".jpg": JPEG, ".jpeg": JPEG}
_SCHEMES: Final = {
    "udp": MPEGTS,
    "tcp": MPEGTS,
    "rtmp": FLV,
    "rtmps": FLV,
    "rtsp": RTSP,
    "rtsps": RTSP,
    "http": MPEGTS,
    "https": MPEGTS,
    "whip": WHIP,
    "whips": WHIP,
}
_WITHOUT_PORT: Final = ("rtmp", "rtmps", "rtsp", "rtsps", "http", "https", "whip", "whips")
_DEVICE = re.compile(r"/dev/video\d+")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*):(?://)?")
_SUFFIXES = ", ".join((*FILES, *IMAGES))


def parse(url: str) -> Output:
    """The output that an address names; nothing is opened or looked at.

    Raises:
        OutputError: an unknown scheme or file extension, or a network address without host or
            port.
    """
    if not url.strip() or "\0" in url:
        raise OutputError("the output's url is empty; give a file such as out.mp4")
    if url == "null:":
        return Output(url, "null", NOTHING)
    if _DEVICE.fullmatch(url):
        return Output(url, "device", VIDEO4LINUX, Path(url), live=True)
    if (scheme := _SCHEME.match(url)) is not None:
        if scheme[1].lower() != "file":
            return _network(url, scheme[1].lower())
        url = url[scheme.end() :]
    return _file(url)


def _file(url: str) -> Output:
    path = Path(url)
    with contextlib.suppress(RuntimeError):  # ~ of nobody: a file's name like any other
        path = path.expanduser()
    suffix = path.suffix.lower()
    if suffix in IMAGES:
        _demand(url, wrong_number(url))
        return Output(str(path), "images", IMAGES[suffix], path)
    if suffix in FILES:
        _demand(url, wrong_moment(url))
        return Output(str(path), "file", FILES[suffix], path)
    what = f"the extension {suffix!r:.40}" if suffix else "no extension"
    raise OutputError(
        f"the output {mask(url)!r:.200} has {what}, which names no format; known: {_SUFFIXES}"
    )


def _demand(url: str, mistake: str | None) -> None:
    if mistake is not None:
        raise OutputError(f"the output {mask(url)!r:.200} has a wrong name: {mistake}")


def _network(url: str, scheme: str) -> Output:
    container = _SCHEMES.get(scheme)
    if container is None:
        raise OutputError(
            f"the output {mask(url)!r:.200} has the unknown scheme {scheme!r:.40}; known: "
            f"{', '.join(_SCHEMES)}, file, null: and file names"
        )
    try:
        parts = urlsplit(url)
    except ValueError:  # brackets of an IPv6 address
        raise OutputError(f"the output {mask(url)!r:.200} names no host that can be read") from None
    try:
        port = parts.port
    except ValueError:
        raise OutputError(
            f"the output {mask(url)!r:.200} has a port outside of 1 to 65535"
        ) from None
    if not parts.hostname:
        raise OutputError(
            f"the output {mask(url)!r:.200} names no host, as {scheme}://host:port does"
        )
    if port is None and scheme not in _WITHOUT_PORT:
        raise OutputError(
            f"the output {mask(url)!r:.200} names no port, as {scheme}://host:port does"
        )
    if scheme in ("whip", "whips"):
        url = "http" + url[len("whip") :]
    elif scheme in ("http", "https") and parts.path.rstrip("/").endswith("/whip"):
        container = WHIP
    elif scheme in ("http", "https"):
        container = FILES.get(Path(parts.path).suffix.lower(), MPEGTS)
    if scheme == "udp" and "pkt_size=" not in parts.query:
        # Seven packets of MPEG-TS: the most that fits into an Ethernet frame.
        url += ("&" if parts.query else "?") + "pkt_size=1316"
    return Output(url, "network", container, live=True)
