"""The supervisor's end of the control messages: never waits for a worker, and checks each word."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator
from typing import Any, Final

import zmq

from streamer.errors import ProtocolError
from streamer.runtime import control
from streamer.runtime.addresses import bind, control_endpoint

_MOST_MESSAGES: Final = 1000
"""messages heard in one turn, so that a talkative node does not hold up the clock"""


class ControlDesk:
    """See the module.

    Args:
        context: ZeroMQ context of the run.
        folder: of the run's sockets.
        nodes: names that messages may speak of.
        complain: told in one sentence what was refused.

    Attributes:
        socket: readable when a worker has said something.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        folder: str,
        *,
        nodes: Container[str],
        complain: Callable[[str], None],
    ) -> None:
        self._nodes = nodes
        self._complain = complain
        self.socket = context.socket(zmq.ROUTER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self.socket.setsockopt(zmq.MAXMSGSIZE, control.MAX_MESSAGE)
        bind(self.socket, control_endpoint(folder))

    def messages(self) -> Iterator[tuple[bytes, str, dict[str, Any]]]:
        """Sender, kind and fields of what has come in; some of it, if it is very much."""
        for _ in range(_MOST_MESSAGES):
            try:
                identity, data = self.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            except ValueError:
                continue
            try:
                kind, fields = control.unpack(data)
            except ProtocolError as error:
                self._complain(f"a worker sent nonsense: {error}")
                continue
            if "node" in fields and fields["node"] not in self._nodes:
                self._complain(f"a worker spoke of an unknown node {fields['node']!r:.40}")
                continue
            yield identity, kind, fields

    def wait(self, seconds: float) -> None:
        """Sleeps until something comes in, or for so long."""
        self.socket.poll(int(seconds * 1000) + 1)

    def tell(self, identity: bytes, kind: str, **fields: Any) -> None:
        """Sends a message to a worker, unless it is gone."""
        try:
            self.socket.send_multipart((identity, control.pack(kind, **fields)), zmq.NOBLOCK)
        except zmq.ZMQError as error:
            if error.errno not in (zmq.EHOSTUNREACH, zmq.EAGAIN):
                raise

    def close(self) -> None:
        """Stops listening."""
        self.socket.close(0)

    def __repr__(self) -> str:
        return "<ControlDesk>"
