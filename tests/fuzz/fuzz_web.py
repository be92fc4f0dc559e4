"""What viewers send to the web output: requests, offers of WebRTC; and where it listens."""

from __future__ import annotations

import re
from collections.abc import MutableMapping
from typing import Any
from urllib.parse import unquote_to_bytes

from fuzz_target import Run, Target, check_message, text_of

TOKEN = "a-token-of-some-length"

OFFER = b"""v=0\r
o=- 4611 2 IN IP4 127.0.0.1\r
s=-\r
t=0 0\r
a=group:BUNDLE 0 1\r
m=audio 9 UDP/TLS/RTP/SAVPF 111 0\r
c=IN IP4 0.0.0.0\r
a=ice-ufrag:abcd\r
a=ice-pwd:abcdefghijklmnopqrstuvwx\r
a=fingerprint:sha-256 00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF:00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF\r
a=setup:actpass\r
a=mid:0\r
a=recvonly\r
a=rtcp-mux\r
a=rtpmap:111 opus/48000/2\r
m=video 9 UDP/TLS/RTP/SAVPF 102\r
c=IN IP4 0.0.0.0\r
a=ice-ufrag:abcd\r
a=ice-pwd:abcdefghijklmnopqrstuvwx\r
a=fingerprint:sha-256 00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF:00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF\r
a=setup:actpass\r
a=mid:1\r
a=recvonly\r
a=rtcp-mux\r
a=rtpmap:102 H264/90000\r
a=rtcp-fb:102 nack pli\r
a=fmtp:102 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f\r
"""  # noqa: E501

REQUESTS = [
    b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /stream.ts?token=wrong&n=1 HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nOrigin: null\r\n\r\n",
    b"GET /%2e%2e/x?%74oken=b HTTP/1.1\r\nHost: [::1]\r\nAuthorization: Bearer abc\r\n\r\n",
    b"POST /whep HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nv=0\n",
    b"POST /whep HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nv=0\n\r\n0\r\n\r\n",
    b"OPTIONS * HTTP/1.0\r\n\r\n",
]
REQUEST_WORDS = (
    b"GET ", b"POST ", b"DELETE ", b"/whep", b"/whep/x", b"/stream.mjpeg", b"/snapshot.jpg",
    b" HTTP/1.1\r\n", b" HTTP/1.0\r\n", b"Host: ", b"localhost", b"[::1", b"]", b"127.0.0.1",
    b"Origin: http://localhost", b"Authorization: Bearer ", b"?token=", b"&", b"%", b"\r\n",
    b"Sec-Fetch-Site: cross-site", b"Content-Length: ", b"99999999999999999999", b"-1", b"\0",
    b"Transfer-Encoding: chunked", b"Connection: upgrade", b"Upgrade: websocket", b"\xff",
    b"Expect: 100-continue", b"HTTP/9.9", b"//", b"..", b"#", b"@",
)  # fmt: skip
_TOKEN_AT_ALL = re.compile(re.escape(TOKEN).encode())


def _guard() -> Run:
    import h11

    from nodes.web.guard import Guard

    reached: list[bool] = []

    async def inside(scope: Any, receive: Any, send: Any) -> None:
        reached.append(True)

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.disconnect"}

    statuses: list[int] = []

    async def send(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    guards = [
        (Guard(inside, names=["studio.example"], token=token), token) for token in (None, TOKEN)
    ]

    def run(data: bytes) -> None:
        connection = h11.Connection(h11.SERVER)
        try:
            connection.receive_data(data)
            request = connection.next_event()
        except h11.RemoteProtocolError:
            return  # answered with 400 by the server
        if not isinstance(request, h11.Request):
            return
        path, _, query = request.target.partition(b"?")
        for guard, token in guards:
            scope = {
                "type": "http",
                "method": request.method.decode("ascii"),
                "path": unquote_to_bytes(path).decode("utf-8", errors="replace"),
                "raw_path": path,
                "query_string": query,
                "headers": [(name.lower(), value) for name, value in request.headers],
            }
            reached.clear()
            statuses.clear()
            call = guard(scope, receive, send)
            try:
                call.send(None)
            except StopIteration:
                pass
            else:
                raise AssertionError("the guard waits for something")
            assert bool(reached) != bool(statuses)
            assert all(status in (401, 403, 421) for status in statuses)
            if reached and token is not None:
                whole = data + unquote_to_bytes(query)
                assert _TOKEN_AT_ALL.search(whole), "let in without the token"

    return run


def _offer() -> Run:
    from nodes.web import sdp

    local = sdp.Local(
        credentials=sdp.Credentials("abcd", "p" * 22, (("sha-256", "00:11"),), "passive"),
        candidates=[("127.0.0.1", 40000, 1, "f")],
        ssrcs={"video": 1, "audio": 2},
        name="streamer",
    )

    def run(data: bytes) -> None:
        try:
            offer = sdp.parse_offer(text_of(data))
        except sdp.OfferError as error:
            check_message(error)
            return
        for sound in (True, False):
            answer = sdp.answer(offer, local, sound=sound)
            assert answer.startswith("v=0\r\n")
            sections = [line for line in answer.split("\r\n") if line.startswith("m=")]
            assert len(sections) == len(offer.sections)
            # Nothing of the offer makes a line of its own.
            assert "\n" not in answer.replace("\r\n", "")
            assert answer.isascii()

    return run


def _listen() -> Run:
    from nodes.web.address import parse_listen

    def run(data: bytes) -> None:
        text = text_of(data)
        try:
            address = parse_listen(text)
        except ValueError as error:
            check_message(error)
            return
        assert 0 <= address.port <= 65535
        assert address.family in (4, 6)
        assert parse_listen(str(address)) == address
        assert not (address.loopback and address.everywhere)

    return run


TARGETS = (
    Target("http", "requests, as far as the guard", _guard, lambda: REQUESTS, 512, REQUEST_WORDS),
    Target(
        "offer",
        "offers of WebRTC",
        _offer,
        lambda: [OFFER, OFFER.replace(b"\r\n", b"\n"), b"v=0\r\nm=video 0 a b\r\na=mid:0"],
        2048,
        tuple(line + b"\r\n" for line in OFFER.split(b"\r\n") if line),
    ),
    Target(
        "listen",
        "addresses to listen on",
        _listen,
        lambda: [b"127.0.0.1:8080", b"localhost:0", b"[::]:80", b"[fe80::1%eth0]:1"],
        128,
        (b"[", b"]", b":", b"::", b"%", b"0", b"65536", b"127.", b"localhost"),
    ),
)
