"""Where the broker is and how to log in: from a URL."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from channels.exceptions import InvalidChannelLayerError

_PORTS: Final = {"amqp": 5672, "amqps": 5671}


@dataclass(frozen=True, slots=True)
class Address:
    """One broker and one virtual host of it."""

    host: str
    port: int
    user: str
    password: str = field(repr=False)
    vhost: str
    tls: ssl.SSLContext | None = None

    def __str__(self) -> str:
        return f"{self.host}:{self.port}{self.vhost if self.vhost != '/' else ''}"


def parse_address(url: Any, tls: ssl.SSLContext | None = None) -> Address:
    """The address that a URL gives: `amqp[s]://user:password@host:port/vhost`.

    Without a path, or with "/" alone, the virtual host is "/"; "/%2F" is the same.

    Args:
        tls: For amqps; None: the system's certificates are trusted.

    Raises:
        InvalidChannelLayerError: If it is no such URL.
    """
    expected = "expected amqp://user:password@host:port/vhost, or amqps for TLS"
    if not isinstance(url, str):
        raise InvalidChannelLayerError(f"url={url!r}: {expected}.")
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = -1
    # The URL is not shown whole: it holds a password.
    if parts.scheme not in _PORTS or port == -1:
        raise InvalidChannelLayerError(f"url with scheme {parts.scheme!r}: {expected}.")
    if parts.scheme == "amqps" and tls is None:
        tls = ssl.create_default_context()
    return Address(
        host=parts.hostname or "127.0.0.1",
        port=port or _PORTS[parts.scheme],
        user=unquote(parts.username or "guest"),
        password=unquote(parts.password or "guest"),
        vhost=unquote(parts.path[1:]) or "/",
        tls=tls if parts.scheme == "amqps" else None,
    )
