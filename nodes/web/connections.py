"""HTTP connections that are bounded in number, and in how long they may dawdle."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from uvicorn.protocols.http.h11_impl import H11Protocol

REQUEST: Final = 10.0
"""seconds that a client has to send a request's head"""

KEEP_ALIVE: Final = 5
"""seconds that a connection without a request stays open"""

CLOSING: Final = 5.0
"""seconds after which a connection that is being closed is cut"""

SEND_BUFFER: Final = 128 << 10
"""bytes that the system keeps for a viewer; more of them would only make what it sees older"""

BODY: Final = 64 << 10
"""bytes of a request's body"""


class Connections:
    """The open connections of one server, by the client's address.

    Args:
        most: how many there may be; further ones are cut at once.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._open: dict[tuple[str, int], asyncio.Transport] = {}
        self._closing: dict[asyncio.Transport, float] = {}

    def add(self, client: tuple[str, int], transport: asyncio.Transport) -> bool:
        """Takes note of a connection; False if there are too many."""
        if len(self._open) >= self.most:
            return False
        self._open[client] = transport
        return True

    def remove(self, client: tuple[str, int], transport: asyncio.Transport) -> None:
        """Forgets a connection that has ended."""
        if self._open.get(client) is transport:
            del self._open[client]
        self._closing.pop(transport, None)

    def unsent(self, client: tuple[str, int] | None) -> int:
        """Bytes that a client has not taken, beyond those that the system keeps for it."""
        transport = self._open.get(client) if client is not None else None
        return 0 if transport is None else transport.get_write_buffer_size()

    def cut(self, client: tuple[str, int] | None) -> None:
        """Ends a connection at once, whatever it has not taken yet."""
        transport = self._open.get(client) if client is not None else None
        if transport is not None:
            transport.abort()

    async def cut_all(self, *, after: float) -> None:
        """Ends all connections, once they have had a little time to end by themselves.

        Args:
            after: seconds.
        """
        end = asyncio.get_running_loop().time() + after
        while self._open and asyncio.get_running_loop().time() < end:
            await asyncio.sleep(0.02)
        for transport in list(self._open.values()):
            transport.abort()

    def cut_dawdlers(self) -> None:
        """Cuts those who keep a closed connection open by not taking what was sent last."""
        now = asyncio.get_running_loop().time()
        for transport in list(self._open.values()):
            if transport.is_closing() and now - self._closing.setdefault(transport, now) > CLOSING:
                transport.abort()

    def protocol(self) -> type[asyncio.Protocol]:
        """The protocol class for uvicorn, whose connections are kept here."""
        connections = self

        class Protocol(_Timed):
            def __init__(self, *args: Any, **options: Any) -> None:
                super().__init__(*args, **options)
                self.kept = connections

        return Protocol


class _Timed(H11Protocol):
    """HTTP/1.1 in which a request's head must come in time."""

    kept: Connections
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if self.client is None or not self.kept.add(self.client, transport):
            transport.abort()
            return
        self._wait_for_request()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        if self.client is not None:
            self.kept.remove(self.client, self.transport)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_waiting()
        else:
            self._wait_for_request()

    def _wait_for_request(self) -> None:
        if self._deadline is None and not self.transport.is_closing():
            self._deadline = self.loop.call_later(REQUEST, self.transport.abort)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
