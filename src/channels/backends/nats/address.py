"""Where the servers are and how to log in: from URLs."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from channels.exceptions import InvalidChannelLayerError
from channels.layers.redaction import split_url


@dataclass(frozen=True, slots=True)
class Address:
    """One server."""

    host: str
    port: int
    user: str = ""
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    tls: ssl.SSLContext | None = None
    #: Path of a file; "": none.
    credentials: str = ""

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def parse_addresses(
    servers: Any, tls: ssl.SSLContext | None = None, credentials: str = ""
) -> list[Address]:
    """The addresses that a URL, or a list of URLs of one cluster, gives.

    `nats://host:port`, `nats://user:password@host`, `nats://token@host`; `tls://` for TLS.

    Raises:
        InvalidChannelLayerError: If they are none.
    """
    urls: Sequence[Any] = [servers] if isinstance(servers, str) else servers
    if not isinstance(urls, Sequence) or not urls:
        raise InvalidChannelLayerError(
            f"servers is of type {type(servers).__name__} or empty: expected a URL or a list of "
            "URLs, nats://host:port."
        )
    return [_parse(url, tls, credentials) for url in urls]


def _parse(url: Any, tls: ssl.SSLContext | None, credentials: str) -> Address:
    parts = split_url(url, ("nats", "tls"), option="servers", expected="expected nats://host:port")
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    if parts.scheme == "tls" and tls is None:
        tls = ssl.create_default_context()
    return Address(
        host=parts.hostname or "127.0.0.1",
        port=parts.port or 4222,
        user=user if password else "",
        password=password,
        token="" if password else user,
        tls=tls,
        credentials=credentials,
    )
