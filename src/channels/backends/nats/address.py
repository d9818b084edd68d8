"""Where the servers are and how to log in: from URLs."""

from __future__ import annotations

import re
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

from channels.exceptions import InvalidChannelLayerError
from channels.layers.redaction import split_url

#: The seed of a user's key, in a file of its own or in one as `nsc` writes it.
_SEED: Final = re.compile(r"^\s*SU[A-Z2-7]{56}\s*$", re.MULTILINE)
_JWT: Final = "BEGIN NATS USER JWT"


@dataclass(frozen=True, slots=True)
class NatsAddress:
    """One server."""

    host: str
    port: int
    user: str = ""
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    tls: ssl.SSLContext | None = None
    #: Words for `nats.connect`: a file's path.
    login: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def arguments(self) -> dict[str, Any]:
        """What `nats.connect` is told."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        said: dict[str, Any] = {
            "servers": [f"{'tls' if self.tls else 'nats'}://{host}:{self.port}"],
            **self.login,
        }
        if self.tls is not None:
            said |= {"tls": self.tls, "tls_hostname": self.host}
        if self.password:
            said |= {"user": self.user, "password": self.password}
        elif self.token:
            said["token"] = self.token
        return said


def parse_addresses(
    servers: Any, tls: ssl.SSLContext | None = None, credentials: str = ""
) -> list[NatsAddress]:
    """The addresses that a URL, or a list of URLs of one cluster, gives.

    `nats://host:port`, `nats://user:password@host`, `nats://token@host`; `tls://` for TLS.

    Raises:
        InvalidChannelLayerError: If they are none, or the file of credentials holds none.
    """
    urls: Sequence[Any] = [servers] if isinstance(servers, str) else servers
    if not isinstance(urls, Sequence) or not urls:
        raise InvalidChannelLayerError(
            f"servers is of type {type(servers).__name__} or empty: expected a URL or a list of "
            "URLs, nats://host:port."
        )
    login = _login(credentials) if credentials else {}
    return [_parse(url, tls, login) for url in urls]


def _parse(url: Any, tls: ssl.SSLContext | None, login: dict[str, str]) -> NatsAddress:
    parts = split_url(url, ("nats", "tls"), option="servers", expected="expected nats://host:port")
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    if parts.scheme == "tls" and tls is None:
        tls = ssl.create_default_context()
    return NatsAddress(
        host=parts.hostname or "127.0.0.1",
        port=parts.port or 4222,
        user=user if password else "",
        password=password,
        token="" if password else user,
        tls=tls,
        login=login,
    )


def _login(path: str) -> dict[str, str]:
    """What to say to `nats.connect` of a file with a user's JWT and seed, or a seed alone."""
    try:
        text = Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidChannelLayerError(f"credentials={path!r} cannot be read: {error}") from error
    if _SEED.search(text) is None:
        raise InvalidChannelLayerError(
            f"credentials={path!r} holds no seed of a user's key: expected a file as nsc writes "
            "it, or one with a seed SU... alone."
        )
    return {"user_credentials" if _JWT in text else "nkeys_seed": path}
