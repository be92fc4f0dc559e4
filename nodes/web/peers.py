"""All viewers by WebRTC of one server."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from nodes.web.address import Address
from nodes.web.hub import Hub

if TYPE_CHECKING:
    from aiortc import RTCCertificate

    from nodes.web.peer import Peer
    from nodes.web.sdp import Offer

_RENEWAL: Final = timedelta(days=7)  # a certificate is replaced so long before it expires


@dataclass(frozen=True, slots=True)
class Answered:
    """A viewer whose offer was answered.

    Attributes:
        id: by which it can be ended; nobody else can guess it.
        answer: a session description.
    """

    id: str
    answer: str


class Peers:
    """Answers offers and ends viewers.

    Args:
        hub: for viewers to join.
        address: where the server listens; viewers are sent to from the same address.
        origin: wall-clock seconds, since 1970, that the stream's time 0 stands for.
        sound: whether there is sound to send.
        log: for a viewer's coming and going.
    """

    def __init__(
        self,
        *,
        hub: Hub,
        address: Address,
        origin: float,
        sound: Callable[[], bool],
        log: logging.Logger,
    ) -> None:
        self._hub, self._address, self._log = hub, address, log
        self._origin, self._sound = origin, sound
        self._certificate: RTCCertificate | None = None
        self._peers: dict[str, Peer] = {}

    async def answer(self, offer: Offer, viewer: str) -> Answered:
        """Answers an offer; the viewer connects afterwards.

        Args:
            offer: of the viewer.
            viewer: its address, for the log.

        Raises:
            FullError: there are as many viewers as there may be.
            OSError: no address can be bound.
        """
        from aiortc import RTCCertificate

        from nodes.web.peer import Peer

        soon = datetime.now(UTC) + _RENEWAL
        if self._certificate is None or self._certificate.expires < soon:
            self._certificate = RTCCertificate.generateCertificate()
        self._forget_done()
        peer = Peer(
            offer,
            hub=self._hub,
            addresses=_addresses(self._address),
            certificate=self._certificate,
            origin=self._origin,
            address=viewer,
            log=self._log,
        )
        text = await peer.begin(sound=self._sound())
        self._peers[peer.id] = peer
        return Answered(peer.id, text)

    def end(self, name: str) -> bool:
        """Ends a viewer by its id; False if there is none."""
        self._forget_done()
        peer = self._peers.get(name)
        if peer is None:
            return False
        peer.end()
        return True

    async def end_all(self) -> None:
        """Ends all viewers and waits until nothing of them is left."""
        peers, self._peers = list(self._peers.values()), {}
        for peer in peers:
            peer.end()
        await asyncio.gather(*(peer.ended() for peer in peers))

    def _forget_done(self) -> None:
        self._peers = {name: peer for name, peer in self._peers.items() if not peer.done}


def _addresses(address: Address) -> Sequence[str]:
    """Where viewers by WebRTC can reach this machine: where the server listens, no further."""
    if not address.everywhere:
        return [address.host]
    from aioice.ice import get_host_addresses

    found = get_host_addresses(use_ipv4=True, use_ipv6=address.family == 6)
    return ["127.0.0.1", *(["::1"] if address.family == 6 else []), *found]
