"""Why a source cannot be opened or read, in one sentence for the person who named it."""

from __future__ import annotations

import os
import socket
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from streamer import SourceError

if TYPE_CHECKING:
    from av.error import FFmpegError

    from nodes.decoder.address import Address

_MP4_NAMES: Final = (".mp4", ".m4v", ".mov", ".3gp")


def check_local(address: Address) -> None:
    """Refuses a path that cannot be a video before FFmpeg looks at it.

    Raises:
        SourceError: it does not exist, is a folder, is empty, or may not be read.
    """
    path, shown = Path(address.url), address.shown
    try:
        is_folder = path.is_dir()
        status = path.stat()
    except FileNotFoundError:
        raise SourceError(f"{shown} does not exist; {_nearest(path)}") from None
    except NotADirectoryError:
        raise SourceError(f"{shown} does not exist: a part of its path is no folder") from None
    except PermissionError:
        raise SourceError(f"{shown} cannot be reached: permission denied") from None
    except OSError as error:
        raise SourceError(f"{shown} cannot be reached: {error.strerror}") from None
    if is_folder:
        raise SourceError(
            f"{shown} is a folder; name a file in it, or its pictures as {path / '*.png'}"
        )
    if not os.access(path, os.R_OK):
        raise SourceError(f"{shown} cannot be read: permission denied; see its owner and mode")
    if path.is_file() and not status.st_size:
        raise SourceError(f"{shown} is empty (0 bytes)")


def explain_opening(
    error: FFmpegError, address: Address, *, elapsed: float, timeout: float
) -> SourceError:
    """The sentence for an address that FFmpeg could not open.

    Args:
        error: what FFmpeg said.
        address: what was opened.
        elapsed: seconds that the attempt took.
        timeout: seconds that it was given.
    """
    live = address.is_live
    if address.kind == "network":
        # Some demuxers turn a timeout into "invalid data": time tells.
        if elapsed >= timeout * 0.95:
            return SourceError(
                f"{address.shown} did not answer within {timeout:g} s; "
                "is the address right, and is it sending?",
                retry=live,
            )
        return _explain_network(error, address)
    if address.kind == "device":
        return _explain_device(error, address)
    return SourceError(_explain_file(error, address))


def explain_reading(
    error: FFmpegError | None, address: Address, *, after: float, timeout: float
) -> SourceError:
    """The sentence for a source that broke off; `error` is None where it simply ended.

    Args:
        error: what FFmpeg said.
        address: what was read.
        after: seconds of presentation time that had been read.
        timeout: seconds that the source may stay silent.
    """
    from av import error as fault

    if isinstance(error, fault.ExitError | fault.TimeoutError):
        return explain_silence(address, timeout)
    reason = "it ended the stream" if error is None else _plain(error)
    return SourceError(
        f"{address.shown} broke off after {after:.1f} s: {reason}", retry=not address.is_local
    )


def explain_silence(address: Address, timeout: float) -> SourceError:
    """The sentence for a source that is connected but sends nothing."""
    return SourceError(f"{address.shown} has sent nothing for {timeout:g} s", retry=True)


def _explain_network(error: FFmpegError, address: Address) -> SourceError:
    from av import error as fault

    shown, live = address.shown, address.is_live
    host, port = _host(address.url)
    match error:
        case fault.HTTPUnauthorizedError():
            given = "the user name or password is wrong" if "@" in address.url else "it wants a "
            given += "" if "@" in address.url else "user name and password: scheme://user:password@"
            return SourceError(f"{shown} refuses to let us in (401): {given}")
        case fault.HTTPForbiddenError():
            return SourceError(f"{shown} may not be read with this account (403)")
        case fault.HTTPNotFoundError():
            return SourceError(
                f"{shown} is not known to the server (404); see the path after the host",
                retry=live,
            )
        case fault.HTTPClientError():
            return SourceError(f"{shown} was refused by the server (4xx: {_plain(error)})")
        case fault.HTTPError():
            return SourceError(f"{shown}: the server itself failed (5xx); try again", retry=live)
        case fault.ConnectionRefusedError():
            return SourceError(
                f"{shown}: nothing listens at {host} port {port} (connection refused)", retry=live
            )
        case fault.ProtocolNotFoundError():
            return SourceError(
                f"{shown}: {address.scheme} is no protocol that this FFmpeg knows; "
                "rtsp, http, https, rtmp, udp, rtp and tcp are"
            )
        case fault.TimeoutError() | fault.ExitError():
            return SourceError(f"{shown}: {host} did not answer in time", retry=live)
        case fault.InvalidDataError():
            return SourceError(f"{shown} answers, but not with video that is understood")
    try:
        socket.getaddrinfo(host, port or None)
    except (socket.gaierror, UnicodeError):
        return SourceError(f"{shown}: no host is known by the name {host!r}", retry=live)
    return SourceError(f"{shown} cannot be opened: {_plain(error)}", retry=live)


def _explain_device(error: FFmpegError, address: Address) -> SourceError:
    from av import error as fault

    shown = address.shown
    match error:
        case fault.FileNotFoundError():
            cameras = sorted(str(path) for path in Path("/dev").glob("video*"))
            there = f"here are {', '.join(cameras)}" if cameras else "this machine has no cameras"
            return SourceError(f"{shown} does not exist; {there}", retry=True)
        case fault.PermissionError():
            return SourceError(
                f"{shown} cannot be opened: permission denied; is this user in the group 'video'?"
            )
    if error.errno == 16:  # EBUSY
        return SourceError(f"{shown} is in use by another program", retry=True)
    return SourceError(
        f"{shown} cannot be opened as a camera: {_plain(error)}; "
        "see options (video_size, input_format)",
        retry=True,
    )


def _explain_file(error: FFmpegError, address: Address) -> str:
    from av import error as fault

    path, shown = Path(address.url), address.shown
    if isinstance(error, fault.InvalidDataError):
        if path.suffix.lower() in _MP4_NAMES and _lacks_index(path):
            return f"{shown} is cut off: its index (moov) is missing, so nothing of it can be shown"
        if _is_text(path):
            return f"{shown} is a text file, not a video"
        return f"{shown} holds no video or picture that is understood"
    return f"{shown} cannot be opened: {_plain(error)}"


def _lacks_index(path: Path) -> bool:
    """Whether an MP4 file begins as one and has no `moov` box (ISO/IEC 14496-12, 4.2)."""
    seen: list[bytes] = []
    size_of_file = path.stat().st_size
    with path.open("rb") as file:
        at = 0
        while at + 8 <= size_of_file and len(seen) < 1000:
            file.seek(at)
            size, kind = struct.unpack(">I4s", file.read(8))
            if size == 1:
                large = file.read(8)
                size = struct.unpack(">Q", large)[0] if len(large) == 8 else 0
            seen.append(kind)
            if size < 8:
                break
            at += size
    return bool(seen) and seen[0] in (b"ftyp", b"mdat", b"wide", b"free") and b"moov" not in seen


def _is_text(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(512)
    try:
        text = head.decode("utf-8", errors="strict")
    except UnicodeDecodeError:
        return False
    return all(character.isprintable() or character in "\r\n\t\f\b" for character in text)


def _nearest(path: Path) -> str:
    """What is there instead of a missing file."""
    folder = path.parent
    if not folder.is_dir():
        return f"there is no folder {folder}"
    names = [entry.name for entry in folder.iterdir()] if os.access(folder, os.R_OK) else []
    import difflib

    close = difflib.get_close_matches(path.name, names, n=1)
    return f"did you mean {folder / close[0]}?" if close else "see the spelling of its path"


def _host(url: str) -> tuple[str, int]:
    try:
        parts = urlsplit(url)
        return parts.hostname or "", parts.port or 0
    except ValueError:
        return "", 0


def _plain(error: FFmpegError) -> str:
    """FFmpeg's words without its number and the address, which may hold a password."""
    return (error.strerror or type(error).__name__).strip().rstrip(".").lower()
