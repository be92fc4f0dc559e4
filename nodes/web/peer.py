"""One WebRTC viewer: a connection by ICE and DTLS, and the packets sent over it."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

from aiortc import RTCCertificate, RTCDtlsFingerprint, RTCDtlsParameters, RTCDtlsTransport
from aiortc.rtcrtpparameters import RTCRtpSendParameters
from aiortc.rtp import (
    RTCP_PSFB_FIR,
    RTCP_PSFB_PLI,
    RTCP_RTPFB_NACK,
    AnyRtcpPacket,
    RtcpByePacket,
    RtcpPsfbPacket,
    RtcpRtpfbPacket,
    RtcpSenderInfo,
    RtcpSrPacket,
)

from nodes.web import rtp, sdp
from nodes.web.backlog import Backlog
from nodes.web.hub import Hub, Kind, Viewer
from nodes.web.ice import BoundConnection, Way

if TYPE_CHECKING:
    from nodes.web.rtp import Payloads

NEGOTIATION: Final = 15.0
"""seconds that a viewer has for ICE and DTLS"""

_SILENCE: Final = 15.0  # seconds without any sign of life of a viewer, after which it is gone
_REPORTS: Final = 1.0  # seconds between two reports of ours, which tie sound to pictures
_HISTORY: Final = 1024  # packets that can be sent again
_AGAIN: Final = 256  # packets that are sent again within a second, at most
_CLOCK: Final = {"video": 90000, "audio": 48000}
_NTP_EPOCH: Final = 2208988800  # seconds from 1900 to 1970


@dataclass(eq=False, slots=True)
class _Stream:
    """One stream of RTP, and the reports that come back about it.

    aiortc's transport hands RTCP to whatever is registered with these names.
    """

    media: Literal["video", "audio"]
    peer: Peer
    payload_type: int = 0
    _ssrc: int = field(default_factory=lambda: secrets.randbits(32) or 1)
    number: int = field(default_factory=lambda: secrets.randbits(15))
    shift: int = field(default_factory=lambda: secrets.randbits(32))
    packets: int = 0
    octets: int = 0
    reported: float = float("-inf")

    async def _handle_rtcp_packet(self, packet: AnyRtcpPacket) -> None:
        await self.peer.reported(self, packet)


class Peer:
    """Sends what the hub posts to one viewer, from the next keyframe on.

    Args:
        offer: of the viewer.
        hub: to join and to ask for keyframes.
        addresses: of this machine to be reached at.
        certificate: of this server.
        origin: wall-clock seconds, since 1970, that the stream's time 0 stands for.
        address: of the viewer, for the log.
        log: for a viewer's coming and going.

    Raises:
        FullError: there are as many viewers as there may be.
    """

    def __init__(
        self,
        offer: sdp.Offer,
        *,
        hub: Hub,
        addresses: Sequence[str],
        certificate: RTCCertificate,
        origin: float,
        address: str,
        log: logging.Logger,
    ) -> None:
        self.id = secrets.token_urlsafe(16)
        self._offer, self._hub, self._log = offer, hub, log
        self._origin = origin
        self._connection = BoundConnection(addresses)
        self._begins = offer.credentials.setup != "active"
        self._dtls = RTCDtlsTransport(
            Way(self._connection, begins=self._begins),  # type: ignore[arg-type]
            [certificate],
        )
        self._streams = {
            "video": _Stream("video", self, offer.video_type),
            "audio": _Stream("audio", self, offer.audio_type),
        }
        self._sent: deque[tuple[int, int, bytes]] = deque(maxlen=_HISTORY)
        self._again = 0.0
        self._again_at = time.monotonic()
        self._backlog: Backlog[Payloads] = Backlog(behind=hub.ask_keyframe, skipped=hub.skipped)
        self._task: asyncio.Task[None] | None = None
        self._ending = False
        self._viewer: Viewer = hub.join(
            Kind.WEBRTC, address, self._backlog, end=self.end, watching=False
        )

    async def begin(self, *, sound: bool) -> str:
        """Gets ready to be reached, and returns the answer; the rest happens beside.

        Raises:
            OSError: no address can be bound.
        """
        try:
            await self._connection.gather_candidates()
            if not self._connection.local_candidates:
                raise OSError("no address of this machine can be bound for WebRTC")
            self._connection.remote_username = self._offer.credentials.ufrag
            self._connection.remote_password = self._offer.credentials.password
            local = sdp.Local(
                sdp.Credentials(
                    self._connection.local_username,
                    self._connection.local_password,
                    tuple(
                        (print_.algorithm, print_.value)
                        for print_ in self._dtls.getLocalParameters().fingerprints
                        if print_.algorithm == "sha-256"
                    ),
                    "active" if self._begins else "passive",
                ),
                [
                    (found.host, found.port, found.priority, found.foundation)
                    for found in self._connection.local_candidates
                ],
                {"video": self._streams["video"]._ssrc, "audio": self._streams["audio"]._ssrc},
                "streamer",
            )
            text = sdp.answer(self._offer, local, sound=sound)
        except BaseException:
            self._hub.leave(self._viewer)
            await self._connection.close()
            raise
        self._task = asyncio.create_task(self._run(), name=f"viewer {self._viewer.address}")
        return text

    def end(self) -> None:
        """Ends the connection; further calls do nothing."""
        self._backlog.close()
        if self._task is not None and not self._ending:
            self._ending = True
            self._task.cancel()

    async def ended(self) -> None:
        """Waits until nothing of it is left."""
        if self._task is not None:
            await asyncio.wait([self._task])

    @property
    def done(self) -> bool:
        """Whether nothing of it is left."""
        return self._task is None or self._task.done()

    async def _run(self) -> None:
        viewer = self._viewer
        try:
            async with asyncio.timeout(NEGOTIATION):
                await self._connect()
            self._log.debug("viewer %s watches by WebRTC", viewer.address)
            self._connection.heard = time.monotonic()
            self._hub.watch(viewer)
            while (pieces := await self._next()) is not None:
                for piece in pieces:
                    await self._send(piece)
        except TimeoutError:
            self._log.debug("viewer %s did not connect in time", viewer.address)
        except ConnectionError as error:
            self._log.debug("viewer %s: %s", viewer.address, error or "the connection ended")
        except asyncio.CancelledError:
            pass  # asked for by `end`
        finally:
            self._hub.leave(viewer)
            await self._close()
            self._log.debug("viewer %s has gone", viewer.address)

    async def _connect(self) -> None:
        await self._connection.connect()
        prints = self._offer.credentials.fingerprints
        self._dtls.on("statechange", self._changed)
        await self._dtls.start(
            RTCDtlsParameters([RTCDtlsFingerprint(name, value) for name, value in prints])
        )
        if self._dtls.state != "connected":
            raise ConnectionError("DTLS failed")
        for stream in self._streams.values():
            self._dtls._register_rtp_sender(stream, RTCRtpSendParameters())

    def _changed(self) -> None:
        if self._dtls.state in ("closed", "failed"):
            self._backlog.close()

    async def _next(self) -> list[Payloads] | None:
        """What is to be sent next; None if the viewer has gone."""
        while True:
            try:
                async with asyncio.timeout(_REPORTS):
                    pieces = await self._backlog.get()
            except TimeoutError:
                pieces = []
            if self._dtls.state != "connected":
                return None
            if time.monotonic() - self._connection.heard > _SILENCE:
                self._log.debug("viewer %s has fallen silent", self._viewer.address)
                return None
            if pieces:
                return pieces
            if self._backlog.closed:
                return None

    async def _send(self, piece: Payloads) -> None:
        if self._connection.waiting > rtp.MOST_WAITING:
            # The way out is blocked: what is sent now would only be late.
            self._backlog.restart()
            self._hub.skipped()
            return
        stream = self._streams[piece.media]
        if not stream.payload_type:
            return
        if piece.made - stream.reported >= _REPORTS:
            await self._report(stream, piece)
        last = len(piece.parts) - 1
        for index, part in enumerate(piece.parts):
            data = (
                rtp.header(
                    marker=index == last and piece.media == "video",
                    payload_type=stream.payload_type,
                    number=stream.number,
                    ticks=piece.pts + stream.shift,
                    ssrc=stream._ssrc,
                )
                + part
            )
            self._sent.append((stream._ssrc, stream.number & 0xFFFF, data))
            stream.number += 1
            stream.packets += 1
            stream.octets += len(part)
            await self._dtls._send_rtp(data)

    async def _report(self, stream: _Stream, piece: Payloads) -> None:
        """Says which moment the stream's time stands for, the same one for pictures and sound."""
        stream.reported = piece.made
        at = self._origin + piece.pts / _CLOCK[piece.media] + _NTP_EPOCH
        report = RtcpSrPacket(
            ssrc=stream._ssrc,
            sender_info=RtcpSenderInfo(
                ntp_timestamp=int(at * (1 << 32)) & 0xFFFFFFFFFFFFFFFF,
                rtp_timestamp=(piece.pts + stream.shift) & 0xFFFFFFFF,
                packet_count=stream.packets & 0xFFFFFFFF,
                octet_count=stream.octets & 0xFFFFFFFF,
            ),
        )
        await self._dtls._send_rtp(bytes(report))

    async def reported(self, stream: _Stream, packet: AnyRtcpPacket) -> None:
        """Takes a report or a wish of the viewer."""
        self._connection.heard = time.monotonic()
        if isinstance(packet, RtcpPsfbPacket) and packet.fmt in (RTCP_PSFB_PLI, RTCP_PSFB_FIR):
            self._hub.ask_keyframe()
        elif isinstance(packet, RtcpRtpfbPacket) and packet.fmt == RTCP_RTPFB_NACK:
            await self._send_again(stream, packet.lost)

    async def _send_again(self, stream: _Stream, numbers: Sequence[int]) -> None:
        # A viewer that asks for everything again and again gets a bounded share.
        now = time.monotonic()
        self._again = min(_AGAIN, self._again + (now - self._again_at) * _AGAIN)
        self._again_at = now
        wanted = {(stream._ssrc, number) for number in numbers[: int(self._again)]}
        for ssrc, number, data in list(self._sent) if wanted else ():
            if (ssrc, number) in wanted:
                self._again -= 1
                await self._dtls._send_rtp(data)

    async def _close(self) -> None:
        try:
            if self._dtls.state == "connected":
                ssrcs = [s._ssrc for s in self._streams.values() if s.packets]
                await self._dtls._send_rtp(bytes(RtcpByePacket(sources=ssrcs)))
            await self._dtls.stop()
        except ConnectionError:
            pass
        await self._connection.close()
