"""The web output under nonsense on real sockets: it answers what is meant, and goes on."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import pytest
from fuzz_web import OFFER, REQUEST_WORDS, REQUESTS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nodes.web import Web
from streamer import Frame
from streamer.testing import SoloContext, solo

PATIENCE = 20.0


@pytest.fixture(scope="module")
def web() -> Iterator[Web]:
    node = solo(Web, context=SoloContext(live=True), listen="127.0.0.1:0", codec="libx264")
    with Frame.of(np.zeros((64, 64, 3), np.uint8), time_base=Fraction(1, 30)) as frame:
        node.process(frame)
    yield node
    node.close()


@pytest.fixture
def port(web: Web) -> int:
    assert isinstance(web.context, SoloContext)
    return int(web.context.statuses[-1][1].rstrip("/").rpartition(":")[2])


def exchange(port: int, parts: list[bytes]) -> bytes:
    """What comes back for bytes that are sent in parts; the beginning of it."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
        try:
            for part in parts:
                connection.sendall(part)
            connection.shutdown(socket.SHUT_WR)
            return connection.recv(65_536)
        except OSError:
            return b""  # nonsense is answered and hung up on, or hung up on at once


def healthy(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request("GET", "/health")
        answer = connection.getresponse()
        return answer.status == 200 and json.loads(answer.read())["frames"] == 1
    finally:
        connection.close()


quick = settings(
    max_examples=120,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def fits(answer: bytes) -> None:
    """Asserts that an answer is one of HTTP, tells nothing of the inside, and no server failed."""
    if answer:
        assert answer.startswith(b"HTTP/1."), answer[:80]
        assert not answer.startswith(b"HTTP/1.1 500"), answer[:300]
        assert b"Traceback" not in answer


@given(parts=st.lists(st.binary(max_size=200), max_size=4))
@quick
def test_any_bytes(web: Web, port: int, parts: list[bytes]) -> None:
    fits(exchange(port, parts))
    assert healthy(port)
    web._server.check()  # type: ignore[union-attr]


@given(data=st.data())
@quick
def test_requests_in_pieces_and_out_of_order(web: Web, port: int, data: st.DataObject) -> None:
    words = [*REQUEST_WORDS, *REQUESTS, OFFER[:200], b"\r\n\r\n", b" "]
    # Streams never end by themselves: what is asked of them is in other tests.
    parts = [
        part.replace(b"stream.", b"streams.")
        for part in data.draw(st.lists(st.sampled_from(words), max_size=8))
    ]
    fits(exchange(port, parts))
    assert healthy(port)
    web._server.check()  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "request_",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 1_000_000,
        b"GET /" + b"a" * 1_000_000 + b" HTTP/1.1\r\n",
        b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 100_000,
        b"POST /whep HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n"
        + b"v" * 300_000,
        b"POST /whep HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        + b"ffff\r\n" + b"v" * 65_535 + b"\r\n" + b"ffffff\r\n" + b"v" * 300_000,
        b"\0" * 1_000_000,
    ],
    ids=["long header", "long path", "many headers", "long body", "long chunks", "zeros"],
)  # fmt: skip
def test_what_is_too_large_is_refused(web: Web, port: int, request_: bytes) -> None:
    answer = exchange(port, [request_])
    fits(answer)
    assert answer == b"" or answer.split(b" ")[1][:1] == b"4", answer[:200]
    assert healthy(port)
