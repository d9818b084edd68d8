"""Where the broker is and how to log in: from a URL."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl, unquote

from yarl import URL

from channels.exceptions import InvalidChannelLayerError
from channels.layers.redaction import split_url

#: Names of files in a URL's query, as RabbitMQ's own clients have them.
_FILES: Final = ("cacertfile", "certfile", "keyfile")
_PORTS: Final = {"amqp": 5672, "amqps": 5671}


@dataclass(frozen=True, slots=True)
class RabbitMQAddress:
    """One broker and one virtual host of it."""

    host: str
    port: int
    user: str
    password: str = field(repr=False)
    vhost: str
    tls: ssl.SSLContext | None = None

    def url(self, heartbeat: int, name: str) -> URL:
        """As aiormq takes it; `name` is what RabbitMQ's own tools call the connection."""
        return URL.build(
            scheme="amqp",
            user=self.user,
            password=self.password,
            host=self.host,
            port=self.port,
            path=f"/{self.vhost}" if self.vhost != "/" else "/",
            query={"heartbeat": heartbeat, "name": name},
        )

    def __str__(self) -> str:
        return f"{self.host}:{self.port}{self.vhost if self.vhost != '/' else ''}"


def parse_addresses(urls: Any, tls: ssl.SSLContext | None = None) -> list[RabbitMQAddress]:
    """The addresses that a URL, or each of several, gives; as `parse_address`."""
    if isinstance(urls, Sequence) and not isinstance(urls, str) and urls:
        return [parse_address(url, tls) for url in urls]
    return [parse_address(urls, tls)]


def parse_address(url: Any, tls: ssl.SSLContext | None = None) -> RabbitMQAddress:
    """The address that a URL gives: `amqp[s]://user:password@host:port/vhost`.

    Without a path, or with "/" alone, the virtual host is "/"; "/%2F" is the same.  With amqps the
    query may name files: `cacertfile` with the authorities that are trusted, `certfile` and
    `keyfile` with a certificate of our own.  Other parameters are not read.

    Args:
        tls: For amqps; None: what the query says, or the system's certificates.

    Raises:
        InvalidChannelLayerError: If it is no such URL.
    """
    expected = "expected amqp://user:password@host:port/vhost, or amqps for TLS"
    parts = split_url(url, _PORTS, option="url", expected=expected)
    if parts.scheme == "amqps" and tls is None:
        tls = _context(dict(parse_qsl(parts.query)))
    return RabbitMQAddress(
        host=parts.hostname or "127.0.0.1",
        port=parts.port or _PORTS[parts.scheme],
        user=unquote(parts.username or "guest"),
        password=unquote(parts.password or "guest"),
        vhost=unquote(parts.path[1:]) or "/",
        tls=tls if parts.scheme == "amqps" else None,
    )


def _context(query: dict[str, str]) -> ssl.SSLContext:
    authorities, certificate, key = (query.get(name) for name in _FILES)
    if key is not None and certificate is None:
        raise InvalidChannelLayerError("url has a keyfile and no certfile: expected both.")
    try:
        context = ssl.create_default_context(cafile=authorities)
        if certificate is not None:
            context.load_cert_chain(certificate, key)
    except OSError as error:
        # An SSLError is one, and does not say which file it is about.
        named = ", ".join(f"{name}={query[name]}" for name in _FILES if name in query)
        raise InvalidChannelLayerError(
            f"url: {error} with {named}: expected files in PEM format that this process may read."
        ) from error
    return context
