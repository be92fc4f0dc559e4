"""Who may come in: the right name, the right origin, and the token where one is needed."""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from starlette.responses import PlainTextResponse

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_HEADERS: Final = {
    "cache-control": "no-store",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


class Guard:
    """Stands before an application and turns away who has no business there.

    A page of another site must not reach a server of this machine through its visitor's browser:
    neither by a name that it has pointed here (DNS rebinding; such a request carries that name)
    nor from its own origin.

    Args:
        app: to be guarded.
        names: by which the server may be called, beside `localhost` and IP addresses.
        token: to demand; None for none.
    """

    def __init__(self, app: App, *, names: Iterable[str], token: str | None) -> None:
        self._app = app
        self._names = {"localhost", *(name.lower().rstrip(".") for name in names)}
        self._token = token.encode() if token is not None else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on, or refuses it with one sentence."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers: dict[bytes, list[bytes]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name, []).append(value)
        refusal = self._refusal(scope, headers)
        if refusal is not None:
            await refusal(scope, receive, send)
            return

        async def send_guarded(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                known = {name.lower() for name, _ in message["headers"]}
                message["headers"] = [
                    *message["headers"],
                    *(
                        (name.encode(), value.encode())
                        for name, value in _HEADERS.items()
                        if name.encode() not in known
                    ),
                ]
            await send(message)

        await self._app(scope, receive, send_guarded)

    def _refusal(self, scope: Scope, headers: dict[bytes, list[bytes]]) -> PlainTextResponse | None:
        hosts = headers.get(b"host", [])
        host = hosts[0].decode("latin-1") if len(hosts) == 1 else ""
        if not self._known(host):
            return _said(
                421, "this server is not called by that name; use its IP address, or list the "
                "name in the node's hosts"
            )  # fmt: skip
        for origin in headers.get(b"origin", []):
            if origin.decode("latin-1").lower() not in (
                f"http://{host.lower()}",
                f"https://{host.lower()}",
            ):
                return _said(403, "pages of other origins may not use this server")
        # An element of a page elsewhere (an image, say) sends no origin, but browsers tell.
        foreign = headers.get(b"sec-fetch-site", [b""])[0] in (b"cross-site", b"same-site")
        if foreign and headers.get(b"sec-fetch-mode", [b""])[0] != b"navigate":
            return _said(403, "pages of other origins may not use this server")
        if self._token is not None and not self._admitted(scope, headers):
            return _said(
                401,
                "a token is needed: add ?token=... to the address, or send it as a bearer header",
                {"www-authenticate": "Bearer"},
            )
        return None

    def _known(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        name = name.lower().rstrip(".")
        if name in self._names:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        # Nobody can point an address elsewhere.
        return True

    def _admitted(self, scope: Scope, headers: dict[bytes, list[bytes]]) -> bool:
        assert self._token is not None
        try:
            fields = parse_qsl(scope["query_string"].decode("latin-1"), max_num_fields=32)
        except ValueError:
            fields = []
        given = [value.encode() for name, value in fields if name == "token"]
        for header in headers.get(b"authorization", []):
            scheme, _, value = header.partition(b" ")
            if scheme.lower() == b"bearer":
                given.append(value.strip())
        admitted = False
        for value in given[:4]:
            admitted |= hmac.compare_digest(value, self._token)
        return admitted


def _said(status: int, text: str, headers: dict[str, str] | None = None) -> PlainTextResponse:
    return PlainTextResponse(f"{text}\n", status, {**_HEADERS, **(headers or {})})
