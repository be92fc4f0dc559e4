"""What the server answers: the page, streams, a picture, its health, and WebRTC's offers."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from nodes.web import sdp
from nodes.web.backlog import Backlog, Newest
from nodes.web.connections import BODY, REQUEST, Connections
from nodes.web.guard import Receive, Scope, Send
from nodes.web.hub import FullError, Hub, Kind
from nodes.web.peers import Peers

_PAGE: Final = Path(__file__).with_name("page.html")
_SNAPSHOT: Final = 5.0  # seconds to wait for a picture
_BOUNDARY: Final = b"streamer-frame"
_CSP: Final = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "connect-src 'self'; img-src blob: data:; media-src blob:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'self'"
)


class Site:
    """The answers.

    Args:
        hub: for viewers to join.
        connections: of the server.
        peers: viewers by WebRTC.
        health: called for `/health`; JSON types.
        log: for a viewer's coming and going.
    """

    def __init__(
        self,
        *,
        hub: Hub,
        connections: Connections,
        peers: Peers,
        health: Callable[[], dict[str, Any]],
        log: logging.Logger,
    ) -> None:
        self._hub, self._connections, self._peers = hub, connections, peers
        self._health, self._log = health, log
        self._page = _PAGE.read_text(encoding="utf-8")

    def app(self) -> Starlette:
        """The application."""
        return Starlette(
            routes=[
                Route("/", self._index, methods=["GET"]),
                Route("/stream.ts", _Streaming(self, Kind.TS)),
                Route("/stream.mjpeg", _Streaming(self, Kind.MJPEG)),
                Route("/snapshot.jpg", self._snapshot, methods=["GET"]),
                Route("/health", self._healthy, methods=["GET"]),
                Route("/whep", self._offer, methods=["POST"]),
                Route("/whep/{name}", self._leave, methods=["DELETE"]),
            ]
        )

    async def _index(self, request: Request) -> Response:
        return HTMLResponse(self._page, headers={"content-security-policy": _CSP})

    async def _healthy(self, request: Request) -> Response:
        return JSONResponse(self._health())

    async def _snapshot(self, request: Request) -> Response:
        data = await self._hub.snapshot(_SNAPSHOT)
        if data is None:
            return _said(503, "no picture has come yet", {"retry-after": "1"})
        return Response(data, media_type="image/jpeg")

    async def _offer(self, request: Request) -> Response:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/sdp":
            return _said(415, "an offer has the content type application/sdp")
        try:
            async with asyncio.timeout(REQUEST):
                body = await _body(request)
            offer = sdp.parse_offer(body.decode("utf-8"))
            peer = await self._peers.answer(offer, _client(request.scope))
        except TimeoutError:
            return _said(408, "the offer did not come in time", {"connection": "close"})
        except ClientDisconnect:
            return _said(400, "the offer did not come")
        except _TooLargeError:
            return _said(413, f"an offer has {BODY} bytes at most", {"connection": "close"})
        except UnicodeDecodeError:
            return _said(400, "the offer is not UTF-8")
        except sdp.OfferError as error:
            return _said(400, str(error))
        except FullError as error:
            return _said(503, str(error), {"retry-after": "5"})
        except OSError as error:
            self._log.warning("a viewer by WebRTC cannot be served: %s", error)
            return _said(503, "no address can be bound for WebRTC", {"retry-after": "5"})
        return Response(
            peer.answer,
            201,
            {"location": f"/whep/{peer.id}"},
            media_type="application/sdp",
        )

    async def _leave(self, request: Request) -> Response:
        if not self._peers.end(request.path_params["name"]):
            return _said(404, "there is no such viewer")
        return Response(status_code=200)

    async def stream(self, kind: Kind, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends a stream to one viewer until either side ends it."""
        client = scope.get("client")
        backlog: Any
        if kind is Kind.TS:
            backlog = Backlog(behind=self._hub.ask_keyframe, skipped=self._hub.skipped)
        else:
            backlog = Newest(skipped=self._hub.skipped)

        def end() -> None:
            backlog.close()
            self._connections.cut(client)

        try:
            viewer = self._hub.join(kind, _client(scope), backlog, end=end)
        except FullError as error:
            await _said(503, str(error), {"retry-after": "5"})(scope, receive, send)
            return
        viewer.unsent = lambda: self._connections.unsent(client)
        self._log.debug("viewer %s watches %s", viewer.address, kind.value)
        gone = asyncio.create_task(_gone(receive, backlog))
        media = (
            b"video/mp2t"
            if kind is Kind.TS
            else b"multipart/x-mixed-replace; boundary=" + _BOUNDARY
        )
        try:
            headers = [(b"content-type", media), (b"connection", b"close")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            while pieces := await backlog.get():
                viewer.since = time.monotonic()
                body = b"".join(_wrapped(kind, piece.data) for piece in pieces)
                await send({"type": "http.response.body", "body": body, "more_body": True})
                viewer.since = None
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            gone.cancel()
            self._hub.leave(viewer)
            self._log.debug("viewer %s of %s has gone", viewer.address, kind.value)


class _Streaming:
    """An endpoint that sends by itself: a response that never ends must know who takes it."""

    def __init__(self, site: Site, kind: Kind) -> None:
        self._site, self._kind = site, kind

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] != "GET":
            await _said(405, "a stream is got by GET", {"allow": "GET"})(scope, receive, send)
            return
        await self._site.stream(self._kind, scope, receive, send)


class _TooLargeError(Exception):
    """A request's body is larger than it may be."""


async def _body(request: Request) -> bytes:
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > BODY:
            raise _TooLargeError
    return body


async def _gone(receive: Receive, backlog: Backlog[Any] | Newest) -> None:
    """Closes what waits for a viewer once it has hung up."""
    while (await receive())["type"] != "http.disconnect":
        pass
    backlog.close()


def _wrapped(kind: Kind, data: bytes) -> bytes:
    if kind is not Kind.MJPEG:
        return data
    return b"--%s\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%s\r\n" % (
        _BOUNDARY,
        len(data),
        data,
    )


def _client(scope: Scope) -> str:
    client = scope.get("client")
    return f"{client[0]}:{client[1]}" if client else "unknown"


def _said(status: int, text: str, headers: dict[str, str] | None = None) -> PlainTextResponse:
    return PlainTextResponse(f"{text}\n", status, headers)
