"""What a decoder's `url` means: a file, pictures, a device or a network stream."""

from __future__ import annotations

import glob
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from streamer.graph.tree import one_line

Kind = Literal["file", "pictures", "device", "network"]

LIVE_SCHEMES: Final = frozenset(
    {"rtsp", "rtsps", "rtmp", "rtmps", "rtmpt", "rtmpe", "rtmpts", "udp", "udplite", "rtp", "srtp"}
    | {"srt", "rist"}
)
_EVERYWHERE: Final = frozenset(
    {"rtsp", "rtsps", "rtmp", "rtmps", "rtmpt", "udp", "rtp", "tcp", "http", "https", "ftp"}
    | {"pipe", "fd"}
)
"""Schemes that FFmpeg is not asked for, as it usually knows them: that would load it, and the last
two would read the standard input."""
CAMERA: Final = "camera:"
"""Before the name of a camera, or a part of it."""
DEMO: Final = "demo:"
DEMO_CLIP: Final = Path(__file__).parent.parent / "demo" / "demo.mp4"

_BRIEFLY: Final = 0.2  # seconds

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]+):")
_DEVICE = re.compile(r"/dev/(video\d+|v4l/.+)")
_COUNTER = re.compile(r"%(0?\d*)d")


@dataclass(frozen=True, slots=True)
class Address:
    """A source's address, understood but not looked at.

    Attributes:
        kind: how it is opened.
        url: what FFmpeg is given; of a camera by name, that name.
        scheme: in lower case, empty for paths.
        shown: the address without credentials, for messages; of a long one both ends.
    """

    kind: Kind
    url: str
    scheme: str
    shown: str

    @property
    def is_live(self) -> bool:
        """Whether it sends at its own pace."""
        return self.kind == "device" or self.scheme in LIVE_SCHEMES

    @property
    def is_local(self) -> bool:
        """Whether it is a path of this machine's file system."""
        return self.kind in ("file", "pictures")


def parse_address(url: str) -> Address:
    """What an address means.

    Raises:
        ValueError: it is a scheme without anything behind it.
    """
    if url == DEMO:
        return Address("file", str(DEMO_CLIP), "", DEMO)
    shown = one_line(url)
    if _DEVICE.fullmatch(url):
        return Address("device", url, "", shown)
    if url.lower().startswith(CAMERA):
        name = url[len(CAMERA) :].strip()
        if not name:
            raise ValueError("camera: wants a part of a camera's name; see `streamer devices`")
        return Address("device", name, "camera", shown)
    match = _SCHEME.match(url)
    if match is not None and not os.path.exists(url):
        scheme, rest = match[1].lower(), url[match.end() :]
        if scheme == "file":
            path = rest.removeprefix("//")
            if not path:
                raise ValueError(f"{shown!r} names no file")
            return Address(_local_kind(path), path, "", shown)
        if not rest.strip("/"):
            raise ValueError(
                f"{shown!r} names no place after {scheme}: (the clip that comes along is {DEMO!r})"
            )
        return Address("network", url, scheme, shown)
    return Address(_local_kind(url), url, "", shown)


def check_scheme(address: Address) -> None:
    """Raises ValueError if this machine's FFmpeg knows no protocol of an address's scheme."""
    if address.kind != "network" or address.scheme in _EVERYWHERE:
        return
    import av

    try:
        # It names no place: whether the protocol is known is told before that.
        av.open(f"{address.scheme}:", timeout=_BRIEFLY).close()
    except av.error.ProtocolNotFoundError:
        raise ValueError(unknown_protocol(address)) from None
    except (av.error.FFmpegError, OSError):
        pass  # it is known, and misses the place


def unknown_protocol(address: Address) -> str:
    """The sentence for an address whose protocol FFmpeg does not know."""
    return (
        f"{address.shown}: {address.scheme} is no protocol that this FFmpeg knows; "
        "rtsp, http, https, rtmp, udp, rtp and tcp are"
    )


def _local_kind(path: str) -> Kind:
    is_pattern = _COUNTER.search(path) or glob.has_magic(path)
    return "pictures" if is_pattern and not os.path.exists(path) else "file"


def find_pictures(pattern: str) -> list[tuple[int, Path]]:
    """Files of a picture sequence in the order they are shown, each with its number.

    Args:
        pattern: a path with one counter (`%d`, `%04d`) or with `*`, `?` and `[...]`.
    """
    counter = _COUNTER.search(Path(pattern).name)
    if counter is None:
        return list(enumerate(sorted(Path(found) for found in glob.glob(pattern))))
    folder, name = Path(pattern).parent, Path(pattern).name
    width = int(counter[1] or 0)
    padded = counter[1].startswith("0")
    expression = re.compile(
        re.escape(name[: counter.start()]) + r"(\d+)" + re.escape(name[counter.end() :])
    )
    numbered = []
    for file in folder.iterdir() if folder.is_dir() else ():
        match = expression.fullmatch(file.name)
        if match is None:
            continue
        number = int(match[1])
        if match[1] == (f"{number:0{width}d}" if padded else str(number)):
            numbered.append((number, file))
    return sorted(numbered)
