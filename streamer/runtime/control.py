"""What the supervisor and its workers tell each other, in msgpack over a private socket.

===========  =====================  ==========================================================
message      direction              meaning
===========  =====================  ==========================================================
hello        worker → supervisor    this worker is up: `worker`, `incarnation`, `pid`
state        worker → supervisor    `node` is opening, ready, running, finishing or finished; `text`
note         worker → supervisor    what `node` is doing: `text`; `done` parts `of` so many
status       worker → supervisor    how `node` stands with the outside: `status`, `text`
expect       worker → supervisor    the source `node` will give `frames` pictures, `seconds` long
failed       worker → supervisor    `node` cannot go on: `text`, `exit_status`; `retry`: it may be
                                    started again, `quick`: at once
done         worker → supervisor    all nodes have ended and all frames were given back
peers        supervisor → worker    incarnation of every node's worker: `incarnations`
start        supervisor → worker    sources may begin
drain        supervisor → worker    sources end; everything under way is finished
abort        supervisor → worker    end now, closing outputs properly
down         supervisor → worker    the process of `node`, `incarnation`, has died
closed       supervisor → worker    `node` takes no more pictures
gone         supervisor → worker    `node` will not come back
set          supervisor → worker    `node` is to take `params`, all of them; `generation`
taken        worker → supervisor    `node` has taken them, or refused with a `text`
===========  =====================  ==========================================================
"""

from __future__ import annotations

from typing import Any, Final

import msgpack

from streamer.errors import ProtocolError

MAX_MESSAGE: Final = 64 * 1024
NAMELESS: Final = "-" * 32
"""stands in a process's arguments where its worker's name comes, which is at most as long"""

_FIELDS: Final[dict[str, dict[str, type]]] = {
    "hello": {"worker": str, "incarnation": int, "pid": int},
    "state": {"node": str, "state": str, "text": str},
    "note": {"node": str, "text": str, "done": int, "of": int},
    "status": {"node": str, "status": str, "text": str},
    "expect": {"node": str, "frames": int, "seconds": float},
    "failed": {"node": str, "text": str, "exit_status": int, "retry": bool, "quick": bool},
    "done": {},
    "peers": {"incarnations": dict},
    "start": {},
    "drain": {},
    "abort": {},
    "down": {"node": str, "incarnation": int},
    "closed": {"node": str},
    "set": {"node": str, "params": dict, "generation": int},
    "taken": {"node": str, "generation": int, "text": str},
    "gone": {"node": str},
}


def pack(kind: str, **fields: Any) -> bytes:
    """The bytes of a control message."""
    _check(kind, fields)
    packed: bytes = msgpack.packb((kind, fields))
    return packed


def unpack(data: bytes) -> tuple[str, dict[str, Any]]:
    """The kind and the fields of a control message.

    Raises:
        ProtocolError: it is too large, malformed, unknown, or a field is missing or of another
            type.
    """
    if len(data) > MAX_MESSAGE:
        raise ProtocolError(f"a control message of {len(data)} bytes is too large")
    try:
        kind, fields = msgpack.unpackb(data, raw=False, strict_map_key=True, max_ext_len=0)
    except (ValueError, TypeError, RecursionError, msgpack.exceptions.UnpackException):
        raise ProtocolError("not a control message") from None
    if not isinstance(kind, str) or not isinstance(fields, dict):
        raise ProtocolError("a control message is a kind and a map")
    _check(kind, fields)
    return kind, fields


def _check(kind: str, fields: dict[str, Any]) -> None:
    expected = _FIELDS.get(kind)
    if expected is None:
        raise ProtocolError(f"unknown control message {kind!r:.40}")
    for name, wanted in expected.items():
        if type(fields.get(name)) is not wanted:
            raise ProtocolError(f"control message {kind!r} needs {name} as {wanted.__name__}")
