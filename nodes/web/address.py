"""The address to listen on, and who can reach it."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

_LISTEN = re.compile(r"(?P<host>\[[^\[\]]*\]|[^:\[\]]*):(?P<port>\d{1,5})")


@dataclass(frozen=True, slots=True)
class Address:
    """Where the server listens.

    Attributes:
        host: an IP address.
        port: 0 lets the system choose.
    """

    host: str
    port: int

    @property
    def loopback(self) -> bool:
        """Whether only programs of this machine can reach it."""
        return ipaddress.ip_address(self.host).is_loopback

    @property
    def everywhere(self) -> bool:
        """Whether it stands for all addresses of this machine."""
        return ipaddress.ip_address(self.host).is_unspecified

    @property
    def family(self) -> int:
        """4 or 6."""
        return ipaddress.ip_address(self.host).version

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def parse_listen(text: str) -> Address:
    """The address that a text such as `127.0.0.1:8080`, `localhost:8080` or `[::]:80` names.

    Raises:
        ValueError: it is none; the message says what one looks like.
    """
    found = _LISTEN.fullmatch(text)
    if found is None:
        raise ValueError(
            f"{text!r:.100} is no address to listen on; give IP:PORT, 127.0.0.1:8080 say"
        )
    port = int(found["port"])
    if port > 65535:
        raise ValueError(f"the port {port} is outside of 0 to 65535")
    host = found["host"].strip("[]")
    if host == "localhost":
        host = "127.0.0.1"
    try:
        return Address(str(ipaddress.ip_address(host)), port)
    except ValueError:
        raise ValueError(
            f"{host!r:.80} in {text!r:.100} is no IP address of this machine; 127.0.0.1 "
            "is for this machine alone, 0.0.0.0 for everyone who reaches it"
        ) from None
