"""Why a source cannot be opened or read, in one sentence for the person who named it."""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from nodes.decoder.address import unknown_protocol
from streamer import SourceError

if TYPE_CHECKING:
    from av.error import FFmpegError

    from nodes.decoder.address import Address

_MP4_NAMES: Final = (".mp4", ".m4v", ".mov", ".3gp")
TLS_SCHEMES: Final = ("https", "rtsps", "rtmps", "rtmpts", "tls")
DEFAULT_PORTS: Final = {
    "rtsp": 554,
    "rtsps": 322,
    "rtmp": 1935,
    "rtmps": 443,
    "http": 80,
    "https": 443,
}
"""Ports that are meant where an address names none."""


class Reason(StrEnum):
    """What kind of fault keeps a source away; the first word of a status text."""

    AUTHENTICATION = "authentication"
    """the server refuses the user name, the password or the account"""
    TLS = "tls"
    """the server's certificate is not trusted, or it does not speak TLS"""
    NAME = "name"
    """no host is known by this name"""
    REFUSED = "refused"
    """nothing listens there, or no route leads there"""
    NOT_FOUND = "not found"
    """the server knows no such stream, the machine no such device or file"""
    TIMEOUT = "timeout"
    """no answer when opened, or nothing sent for too long"""
    CODEC = "codec"
    """an answer that holds no picture, or one that cannot be decoded"""
    BUSY = "busy"
    """a device or a port that another program uses"""
    SERVER = "server"
    """the server itself failed"""
    ENDED = "ended"
    """the stream ended although it has no end"""
    ADDRESS = "address"
    """an address or an option that cannot work"""
    OTHER = "other"
    """anything else that FFmpeg says"""


class Fault(SourceError):  # noqa: N818 - a fault is an error by its name
    """A source that cannot be opened or read.

    Args:
        message: one sentence, without credentials.
        reason: what kind of fault it is.
        retry: whether it may pass by itself, so that trying again makes sense.
    """

    def __init__(self, message: str, reason: Reason, *, retry: bool = False) -> None:
        super().__init__(message, retry=retry)
        self.reason = reason

    def __reduce__(self) -> tuple[type[Fault], tuple[str, Reason], dict[str, object]]:
        return type(self), (str(self), self.reason), {"retry": self.retry}


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
        raise Fault(f"{shown} does not exist; {_nearest(path)}", Reason.NOT_FOUND) from None
    except NotADirectoryError:
        raise Fault(
            f"{shown} does not exist: a part of its path is no folder", Reason.NOT_FOUND
        ) from None
    except PermissionError:
        raise Fault(
            f"{shown} cannot be reached: permission denied", Reason.AUTHENTICATION
        ) from None
    except OSError as error:
        raise Fault(f"{shown} cannot be reached: {error.strerror}", Reason.OTHER) from None
    if is_folder:
        raise Fault(
            f"{shown} is a folder; name a file in it, or its pictures as {path / '*.png'}",
            Reason.ADDRESS,
        )
    if not os.access(path, os.R_OK):
        raise Fault(
            f"{shown} cannot be read: permission denied; see its owner and mode",
            Reason.AUTHENTICATION,
        )
    if path.is_file() and not status.st_size:
        raise Fault(f"{shown} is empty (0 bytes)", Reason.CODEC)


def explain_opening(
    error: FFmpegError,
    address: Address,
    *,
    elapsed: float,
    timeout: float,
    options: Mapping[str, str] = MappingProxyType({}),
) -> Fault:
    """The sentence for an address that FFmpeg could not open.

    Args:
        error: what FFmpeg said.
        address: what was opened.
        elapsed: seconds that the attempt took.
        timeout: seconds that it was given.
        options: those that FFmpeg was given.
    """
    if address.kind == "network":
        # Some demuxers turn a timeout into "invalid data": time tells.
        if elapsed >= timeout * 0.95:
            return explain_no_answer(address, timeout)
        return _explain_network(error, address, timeout, options)
    if address.kind == "device":
        return _explain_device(error, address)
    return Fault(_explain_file(error, address), Reason.CODEC)


def explain_no_answer(address: Address, timeout: float) -> Fault:
    """The sentence for a source that could not be opened in time."""
    return Fault(
        f"{address.shown} did not answer within {timeout:g} s; "
        "is the address right, and is it sending?",
        Reason.TIMEOUT,
        retry=True,
    )


def explain_reading(error: FFmpegError | None, address: Address, *, after: float) -> Fault:
    """The sentence for a source that broke off; `error` is None where it simply ended.

    Args:
        error: what FFmpeg said.
        address: what was read.
        after: seconds of presentation time that had been read.
    """
    reason = "it ended the stream" if error is None else _plain(error)
    return Fault(
        f"{address.shown} broke off after {after:.1f} s: {reason}",
        Reason.ENDED,
        retry=not address.is_local,
    )


def explain_silence(address: Address, timeout: float) -> Fault:
    """The sentence for a source that is connected but sends nothing."""
    return Fault(f"{address.shown} has sent nothing for {timeout:g} s", Reason.TIMEOUT, retry=True)


def explain_blindness(address: Address, timeout: float) -> Fault:
    """The sentence for a source whose pictures cannot be decoded any more."""
    return Fault(
        f"{address.shown} sends, but for {timeout:g} s no picture of it could be decoded",
        Reason.CODEC,
        retry=True,
    )


def _explain_network(
    error: FFmpegError, address: Address, timeout: float, options: Mapping[str, str]
) -> Fault:
    from av import error as fault

    shown = address.shown
    host, port = _host(address.url)
    match error:
        case fault.HTTPUnauthorizedError():
            given = "the user name or password is wrong" if "@" in address.url else "it wants a "
            given += "" if "@" in address.url else "user name and password: scheme://user:password@"
            return Fault(f"{shown} refuses to let us in (401): {given}", Reason.AUTHENTICATION)
        case fault.HTTPForbiddenError():
            return Fault(f"{shown} may not be read with this account (403)", Reason.AUTHENTICATION)
        case fault.HTTPNotFoundError():
            return Fault(
                f"{shown} is not known to the server (404); see the path after the host",
                Reason.NOT_FOUND,
                retry=True,
            )
        case fault.HTTPClientError():
            return Fault(
                f"{shown} was refused by the server (4xx: {_plain(error)})", Reason.ADDRESS
            )
        case fault.HTTPError():
            return Fault(
                f"{shown}: the server itself failed (5xx); try again", Reason.SERVER, retry=True
            )
        case fault.ConnectionRefusedError():
            return Fault(
                f"{shown}: nothing listens at {host} port {port} (connection refused)",
                Reason.REFUSED,
                retry=True,
            )
        case fault.ProtocolNotFoundError():
            return Fault(unknown_protocol(address), Reason.ADDRESS)
        case fault.OptionNotFoundError():
            return Fault(f"{shown}: FFmpeg does not know one of its options", Reason.ADDRESS)
        case fault.TimeoutError() | fault.ExitError():
            return Fault(f"{shown}: {host} did not answer in time", Reason.TIMEOUT, retry=True)
        case fault.InvalidDataError() if address.scheme not in TLS_SCHEMES:
            return Fault(f"{shown} answers, but not with video that is understood", Reason.CODEC)
    if error.errno == errno.EADDRINUSE:
        return Fault(f"{shown}: port {port} is in use by another program", Reason.BUSY, retry=True)
    try:
        socket.getaddrinfo(host, port or None)
    except (socket.gaierror, UnicodeError):
        return Fault(f"{shown}: no host is known by the name {host!r}", Reason.NAME, retry=True)
    if address.scheme in TLS_SCHEMES:
        said = _explain_tls(host, port or 443, min(timeout, 5.0), options)
        if said:
            return Fault(f"{shown}: {said}", Reason.TLS)
    if isinstance(error, fault.InvalidDataError):
        return Fault(f"{shown} answers, but not with video that is understood", Reason.CODEC)
    if error.errno in (errno.EHOSTUNREACH, errno.ENETUNREACH):
        return Fault(f"{shown}: no route leads to {host}", Reason.REFUSED, retry=True)
    return Fault(f"{shown} cannot be opened: {_plain(error)}", Reason.OTHER, retry=True)


def _explain_tls(host: str, port: int, timeout: float, options: Mapping[str, str]) -> str:
    """What is wrong with a server's TLS, as a handshake of our own finds; empty if nothing.

    FFmpeg tells no more than "input/output error".
    """
    import ssl

    try:
        context = ssl.create_default_context(cafile=options.get("ca_file"))
        if options.get("tls_verify", "0") == "0":
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with socket.create_connection((host, port), timeout=timeout) as connection:
            connection.settimeout(timeout)
            with context.wrap_socket(connection, server_hostname=host):
                return ""
    except ssl.SSLCertVerificationError as error:
        return (
            f"the certificate of {host} is not trusted ({error.verify_message.rstrip('.')}); "
            "give its authority as options: {ca_file: path}"
        )
    except ssl.SSLError as error:
        what = (error.reason or "handshake failed").replace("_", " ").lower()
        return f"{host} port {port} does not speak TLS as we do ({what})"
    except (OSError, ValueError):
        return ""


def _explain_device(error: FFmpegError, address: Address) -> Fault:
    from av import error as fault

    shown = address.shown
    match error:
        case fault.FileNotFoundError():
            return Fault(f"{shown} does not exist; {cameras_here()}", Reason.NOT_FOUND, retry=True)
        case fault.PermissionError():
            return Fault(
                f"{shown} cannot be opened: permission denied; is this user in the group 'video'?",
                Reason.AUTHENTICATION,
            )
    if error.errno == errno.EBUSY:
        return Fault(f"{shown} is in use by another program", Reason.BUSY, retry=True)
    if error.errno == errno.ENODEV:
        return Fault(f"{shown} is there, but no camera behind it", Reason.NOT_FOUND, retry=True)
    return Fault(
        f"{shown} cannot be opened as a camera: {_plain(error)}; "
        "see size, input_format and fps, and what `streamer devices` lists",
        Reason.OTHER,
        retry=True,
    )


def cameras_here() -> str:
    """What there is in place of a camera that is missing."""
    cameras = sorted(str(path) for path in Path("/dev").glob("video*"))
    return f"here are {', '.join(cameras)}" if cameras else "this machine has no cameras"


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

    # Endings are alike wherever there are films: names without them have to be.
    close = [
        name
        for name in difflib.get_close_matches(path.name, names, n=3, cutoff=0.75)
        if difflib.SequenceMatcher(None, path.stem, Path(name).stem).ratio() > 0.6
    ]
    return f"did you mean {folder / close[0]}?" if close else "see the spelling of its path"


def _host(url: str) -> tuple[str, int]:
    try:
        parts = urlsplit(url)
        return parts.hostname or "", parts.port or DEFAULT_PORTS.get(parts.scheme, 0)
    except ValueError:
        return "", 0


def _plain(error: FFmpegError) -> str:
    """FFmpeg's words without its number and the address, which may hold a password."""
    return (error.strerror or type(error).__name__).strip().rstrip(".").lower()
