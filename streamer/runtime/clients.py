"""The supervisor's desk for other programs of the same user: parameters and reports of a run.

A request is a msgpack array of a kind and a map, and so is its one answer.

========  ======================  ===========================================================
request   fields                  answer
========  ======================  ===========================================================
get       path                    value: `value`
set       path, value             value: `value`, `generation`, once the node has taken it
report                            report: the interim report
status                            status: how the run and its nodes stand
========  ======================  ===========================================================

Any of them may be answered by error: `text`, `exit_status`. The socket lies in the run's folder,
which only its user can enter.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgpack
import zmq

from streamer.errors import ProtocolError, StreamerError
from streamer.masking import mask
from streamer.runtime.addresses import bind

MAX_REQUEST: Final = 64 * 1024
"""bytes"""

_REQUESTS: Final[dict[str, tuple[str, ...]]] = {
    "get": ("path",),
    "set": ("path", "value"),
    "report": (),
    "status": (),
}


def clients_endpoint(folder: str | Path) -> str:
    """Where the supervisor listens for other programs."""
    return f"ipc://{folder}/clients"


@dataclass(frozen=True, slots=True)
class Request:
    """What a client asks; `identity` is where the answer goes."""

    identity: bytes
    kind: str
    fields: dict[str, Any]


class ClientDesk:
    """Hears requests and sends answers.

    Args:
        context: ZeroMQ context of the supervisor.
        folder: of the run.
    """

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], folder: str) -> None:
        self.socket = context.socket(zmq.ROUTER)
        self.socket.setsockopt(zmq.LINGER, 200)
        self.socket.setsockopt(zmq.MAXMSGSIZE, MAX_REQUEST)
        bind(self.socket, clients_endpoint(folder))

    def requests(self) -> Iterator[Request]:
        """What has come in; nonsense is answered here."""
        while True:
            try:
                identity, data = self.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            except ValueError:
                continue
            try:
                kind, fields = unpack(data)
                if kind not in _REQUESTS or not set(_REQUESTS[kind]) <= set(fields):
                    raise ProtocolError(f"unknown or incomplete request {kind!r:.40}")
                if not isinstance(fields.get("path", ""), str):
                    raise ProtocolError("a path is text")
            except ProtocolError as error:
                self.refuse(identity, error)
                continue
            yield Request(identity, kind, fields)

    def answer(self, identity: bytes, kind: str, **fields: Any) -> None:
        """Answers a request; a client that has left gets nothing."""
        # A ROUTER drops what it cannot deliver, so this never blocks.
        self.socket.send_multipart((identity, pack(kind, **fields)), zmq.NOBLOCK)

    def refuse(self, identity: bytes, error: StreamerError) -> None:
        """Answers that a request cannot be met."""
        self.answer(identity, "error", text=mask(str(error)), exit_status=error.exit_status)

    def close(self) -> None:
        """Stops listening."""
        self.socket.close()


def pack(kind: str, **fields: Any) -> bytes:
    """The bytes of a request or an answer."""
    packed: bytes = msgpack.packb((kind, fields))
    return packed


def unpack(data: bytes) -> tuple[str, dict[str, Any]]:
    """A request or an answer.

    Raises:
        ProtocolError: the bytes are none.
    """
    try:
        kind, fields = msgpack.unpackb(data, raw=False, strict_map_key=True, max_ext_len=0)
    except (ValueError, TypeError, RecursionError, msgpack.exceptions.UnpackException):
        raise ProtocolError("not a message of streamer's") from None
    if not isinstance(kind, str) or not isinstance(fields, dict):
        raise ProtocolError("a message is a kind and a map")
    return kind, fields
