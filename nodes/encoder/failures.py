"""FFmpeg's errors as one clear sentence each."""

from __future__ import annotations

import errno
from typing import Final

from nodes.encoder.outputs import Output
from streamer import SinkError
from streamer.masking import mask

_AWAY = "is the server running, and are host and port right?"
_LOST = "the other side closed the connection or went away"
_REASONS = {
    errno.ENOSPC: "no space is left on the disk; free some, or write elsewhere",
    errno.EDQUOT: "the disk quota is used up; free some, or write elsewhere",
    errno.EFBIG: "the file has reached the largest size that is allowed here (see ulimit -f)",
    errno.EACCES: "permission denied; choose a place that you may write to",
    errno.EPERM: "the operation is not permitted there",
    errno.EROFS: "the file system is read-only; write elsewhere",
    errno.ENOENT: "there is no such file, folder or device",
    errno.EISDIR: "it is a folder; add a file name",
    errno.ENAMETOOLONG: "the name is too long",
    errno.ECONNREFUSED: f"the connection was refused; {_AWAY}",
    errno.ETIMEDOUT: f"no answer came in time; {_AWAY}",
    errno.EHOSTUNREACH: f"the host cannot be reached; {_AWAY}",
    errno.ENETUNREACH: "the network cannot be reached; is this machine connected?",
    errno.ECONNRESET: _LOST,
    errno.EPIPE: _LOST,
    errno.ENOTTY: "it is not a video output device; load v4l2loopback and name its device",
    errno.ENODEV: "there is no such device",
    errno.EBUSY: "the device is in use by another program",
    errno.ENOMEM: "there is not enough memory",
    errno.EIO: "reading from or writing to it failed",
}
_HTTP = {
    "HTTPUnauthorizedError": "the server refused the user name or password (401)",
    "HTTPForbiddenError": "the server forbids it (403)",
    "HTTPNotFoundError": "the server knows no such path (404)",
    "HTTPBadRequestError": "the server did not understand the request (400)",
    "HTTPServerError": "the server failed (5xx)",
    "HTTPOtherClientError": "the server refused the request (4xx)",
}


def reason(error: Exception) -> str:
    """Why an operation failed, in words, without the address."""
    http = _HTTP.get(getattr(error, "kind", type(error).__name__))
    if http is not None:
        return http
    code = getattr(error, "errno", None)
    if code in _REASONS:
        return _REASONS[code]
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return mask(str(text)).rstrip(".")


def failure(output: Output, doing: str, error: Exception) -> SinkError:
    """The error to raise; `doing` completes `cannot ...`, `open` or `write to` say.

    Whether a server or a device may come back is told by the error's `retry`.
    """
    message = f"cannot {doing} {output.shown}: {reason(error)}"
    return SinkError(message, retry=output.kind in ("network", "device"))


_NEVER: Final = (
    "HTTPUnauthorizedError",
    "HTTPForbiddenError",
    "ProtocolNotFoundError",
    "MuxerNotFoundError",
    "OptionNotFoundError",
    "EncoderNotFoundError",
    "PatchWelcomeError",
    "ValueError",
    "TypeError",
)


def is_lasting(kind: str, number: int) -> bool:
    """Whether an error of connecting would come again, however often it is tried.

    Args:
        kind: name of PyAV's exception.
        number: its errno, 0 if there is none.
    """
    return kind in _NEVER or number == errno.EINVAL


def is_refusal(kind: str) -> bool:
    """Whether a server is there and says no; that may pass, but need not do so at once.

    A path may not be there yet, and another publisher may still have it: each server has an answer
    of its own for that.

    Args:
        kind: name of PyAV's exception.
    """
    return kind in _HTTP
