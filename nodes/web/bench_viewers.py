"""Viewers for measuring: they take everything that comes, count it, and do little else.

They run in a process of their own: `python -m nodes.web.bench_viewers PORT TS MJPEG WEBRTC`, end
when their standard input does, and then print what they have counted as JSON.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import resource
import secrets
import socket
import sys
import time
from dataclasses import dataclass
from typing import Any, Final

import aioice
from aiortc import (
    RTCCertificate,
    RTCDtlsFingerprint,
    RTCDtlsParameters,
    RTCDtlsTransport,
)
from aiortc.rtp import RtcpReceiverInfo, RtcpRrPacket

from nodes.web.ice import BoundConnection, Way

_PICTURE: Final = {
    # The first packet of a picture in MPEG-TS: sync byte, start bit, PID 0x100.
    "ts": b"\x47\x41\x00",
    "mjpeg": b"Content-Type: image/jpeg",
}
_REPORT: Final = 1.0


@dataclass(slots=True)
class Seen:
    """What one viewer got.

    Attributes:
        kind: of the viewer.
        pictures: how many.
        octets: how many.
        first: `time.monotonic()` of the first picture.
        last: `time.monotonic()` of the latest one.
    """

    kind: str
    pictures: int = 0
    octets: int = 0
    first: float = 0.0
    last: float = 0.0

    def count(self, pictures: int, octets: int) -> None:
        """Adds what has come."""
        self.octets += octets
        if pictures:
            self.last = time.monotonic()
            self.first = self.first or self.last
            self.pictures += pictures

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        lasted = self.last - self.first
        return {
            "kind": self.kind,
            "pictures": self.pictures,
            "octets": self.octets,
            "fps": round((self.pictures - 1) / lasted, 2) if lasted > 0 else 0.0,
        }


class _Http(asyncio.Protocol):
    def __init__(self, path: str, seen: Seen) -> None:
        self._path, self._seen = path, seen
        self._mark = _PICTURE[seen.kind]
        self.gone = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(f"GET {self._path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())

    def data_received(self, data: bytes) -> None:
        self._seen.count(data.count(self._mark), len(data))

    def connection_lost(self, error: Exception | None) -> None:
        if not self.gone.done():
            self.gone.set_result(None)


async def _http(port: int, seen: Seen) -> None:
    loop = asyncio.get_running_loop()
    _, protocol = await loop.create_connection(
        lambda: _Http(f"/stream.{seen.kind}", seen), "127.0.0.1", port
    )
    await protocol.gone


def _offer(connection: aioice.Connection, dtls: RTCDtlsTransport) -> str:
    prints = [p for p in dtls.getLocalParameters().fingerprints if p.algorithm == "sha-256"]
    lines = ["v=0", "o=- 1 1 IN IP4 0.0.0.0", "s=-", "t=0 0", "a=group:BUNDLE 0"]
    lines += ["m=video 9 UDP/TLS/RTP/SAVPF 97", "c=IN IP4 0.0.0.0", "a=mid:0", "a=recvonly"]
    lines += ["a=rtcp-mux", "a=rtpmap:97 H264/90000"]
    lines += ["a=fmtp:97 packetization-mode=1;profile-level-id=42e01f"]
    lines += [f"a=ice-ufrag:{connection.local_username}", f"a=ice-pwd:{connection.local_password}"]
    lines += [f"a=fingerprint:sha-256 {prints[0].value}", "a=setup:actpass"]
    return "\r\n".join(lines) + "\r\n"


def _post(port: int, offer: str) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("POST", "/whep", offer, {"content-type": "application/sdp"})
        answer = connection.getresponse()
        body = answer.read().decode()
        if answer.status != 201:
            raise ConnectionError(body)
        return body
    finally:
        connection.close()


async def _webrtc(port: int, seen: Seen) -> None:
    connection = BoundConnection(["127.0.0.1"], ice_controlling=True)
    dtls = RTCDtlsTransport(
        Way(connection, begins=False),  # type: ignore[arg-type]
        [RTCCertificate.generateCertificate()],
    )
    await connection.gather_candidates()
    answer = await asyncio.to_thread(_post, port, _offer(connection, dtls))
    said = dict(
        line[2:].partition(":")[::2] for line in answer.splitlines() if line.startswith("a=")
    )
    connection.remote_username, connection.remote_password = said["ice-ufrag"], said["ice-pwd"]
    await connection.add_remote_candidate(aioice.Candidate.from_sdp(said["candidate"]))
    await connection.add_remote_candidate(None)
    await connection.connect()
    name, _, value = said["fingerprint"].partition(" ")
    await dtls.start(RTCDtlsParameters([RTCDtlsFingerprint(name, value)]))
    if dtls.state != "connected":
        raise ConnectionError("DTLS failed")
    _count_packets(connection, seen)
    ssrc = int(said["ssrc"].split()[0])
    report = RtcpRrPacket(
        ssrc=secrets.randbits(32),
        reports=[RtcpReceiverInfo(ssrc, 0, 0, 0, 0, 0, 0)],
    )
    while dtls.state == "connected":
        await dtls._send_rtp(bytes(report))
        await asyncio.sleep(_REPORT)


def _count_packets(connection: aioice.Connection, seen: Seen) -> None:
    """Takes pictures off the socket without decrypting them: what is measured is the server."""
    loop = asyncio.get_running_loop()
    protocol = connection._nominated[1].protocol
    transport: Any = protocol.transport
    # The transport goes on to send; reading is done here.
    transport.pause_reading()
    taken = socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno()))

    def read() -> None:
        for _ in range(64):
            try:
                data, address = taken.recvfrom(2048)
            except BlockingIOError:
                return
            if data[0] & 0xC0 == 0x80 and not 192 <= data[1] <= 223:
                seen.count(data[1] >> 7, len(data))  # the marker is on a picture's last packet
            else:
                protocol.datagram_received(data, address)

    loop.add_reader(taken.fileno(), read)


async def _until_served(port: int) -> None:
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except ConnectionError:
            await asyncio.sleep(0.1)
            continue
        writer.close()
        await writer.wait_closed()
        return


async def _main(port: int, ts: int, mjpeg: int, webrtc: int) -> None:
    all_seen = [Seen("ts") for _ in range(ts)] + [Seen("mjpeg") for _ in range(mjpeg)]
    all_seen += [Seen("webrtc") for _ in range(webrtc)]
    await _until_served(port)
    tasks = [
        asyncio.create_task(_webrtc(port, seen) if seen.kind == "webrtc" else _http(port, seen))
        for seen in all_seen
    ]
    await asyncio.to_thread(sys.stdin.read)
    for task in tasks:
        task.cancel()
    errors = [
        str(error)
        for error in await asyncio.gather(*tasks, return_exceptions=True)
        if isinstance(error, Exception)
    ]
    used = resource.getrusage(resource.RUSAGE_SELF)
    result = {
        "viewers": [seen.to_dict() for seen in all_seen],
        "cpu_s": round(used.ru_utime + used.ru_stime, 2),
        "errors": errors,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    asyncio.run(_main(*map(int, sys.argv[1:5])))
