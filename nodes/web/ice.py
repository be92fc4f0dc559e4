"""ICE on chosen addresses alone, and what DTLS needs of it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import aioice
import aioice.ice
import aioice.stun


class BoundConnection(aioice.Connection):
    """ICE on given addresses: aioice by itself leaves loopback out and takes all others.

    Args:
        addresses: of this machine, to listen on and to be reached at.
        ice_controlling: whether this end chooses the way.

    Attributes:
        heard: `time.monotonic()` of the latest sign of life of the other end.
    """

    def __init__(self, addresses: Sequence[str], *, ice_controlling: bool = False) -> None:
        super().__init__(ice_controlling=ice_controlling)
        self._addresses = list(addresses)
        self.heard = time.monotonic()

    async def get_component_candidates(
        self, component: int, addresses: list[str], timeout: int = 5
    ) -> list[aioice.Candidate]:
        """Host candidates on the given addresses; called by aioice."""
        return await super().get_component_candidates(component, self._addresses, timeout)

    def check_incoming(
        self, message: aioice.stun.Message, addr: tuple[str, int], protocol: aioice.ice.StunProtocol
    ) -> None:
        """Takes a check of the other end, which has proved who it is; called by aioice."""
        self.heard = time.monotonic()
        super().check_incoming(message, addr, protocol)

    @property
    def waiting(self) -> int:
        """Bytes that the system has not taken yet."""
        # asyncio's datagram transports tell this, though their base class does not promise it.
        ways: list[Any] = [protocol.transport for protocol in self._protocols]
        return sum(way.get_write_buffer_size() for way in ways)


class Way:
    """A connection as aiortc's DTLS wants it.

    Args:
        connection: to send and receive by.
        begins: whether this end begins with DTLS.
    """

    def __init__(self, connection: aioice.Connection, *, begins: bool) -> None:
        self._recv, self._send = connection.recv, connection.send
        # aiortc lets the controlled side of ICE begin, unless told otherwise.
        self.role = "controlled" if begins else "controlling"
