"""Where Redis is: the forms that `hosts` takes, and the connections opened from them.

    "redis://user:secret@host:6379/1"               also rediss:// and unix://
    ("host", 6379)
    {"address": <either of these>, ...}             with keywords of redis-py's connections
    {"host": ..., "port": ..., ...}
    {"sentinels": [("host", 26379), ...], "master_name": "mymaster", "sentinel_kwargs": {...}, ...}

redis-py reads URLs, credentials and what is said of TLS, and asks Sentinels.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, cast

from redis.asyncio.connection import (
    Connection,
    SSLConnection,
    UnixDomainSocketConnection,
    parse_url,
)
from redis.asyncio.sentinel import MasterNotFoundError, Sentinel
from redis.exceptions import ConnectionError as RedisConnectionError

from channels.backends.redis.connection import RedisConnection, Settings, connect
from channels.backends.shell import Broken, unreachable
from channels.exceptions import InvalidChannelLayerError
from channels.layers.redaction import split_url, without_secrets

DEFAULT_URL: Final = "redis://localhost:6379"
CONNECT_SECONDS: Final = 5.0
_FORMS: Final = (
    'a URL such as "redis://localhost:6379/0", a ("host", port) pair, or a dict with "address", '
    'with "host" and "port", or with "sentinels" and "master_name"'
)
_SCHEMES: Final = ("redis", "rediss", "unix")
#: What the layer decides: a response is bytes in RESP2, which all servers speak; a wait is bounded
#: by the line, a retry is the node's.
_OURS: Final = (
    *("decode_responses", "encoding", "protocol"),
    *("retry", "retry_on_timeout", "retry_on_error", "socket_timeout"),
)


@dataclass(frozen=True, repr=False)
class Host:
    """One server, or the one that Sentinels name at the moment.

    Attributes:
        keywords: For the connection.
        sentinels: (host, port) of each Sentinel; empty without them.
    """

    kind: type[Settings] = Connection
    keywords: Mapping[str, Any] = field(default_factory=dict)
    sentinels: tuple[tuple[str, int], ...] = ()
    master_name: str = ""
    sentinel_keywords: Mapping[str, Any] | None = None
    #: It is a shard as a whole.
    tag: ClassVar[None] = None

    @property
    def name(self) -> str:
        """What keys are shared out by."""
        return str(self)

    async def open(self) -> RedisConnection:
        """A connection that is authenticated and has its database selected.

        Raises:
            Broken, redis.exceptions.RedisError: If that fails; the former names the server.
        """
        keywords = dict(self.keywords)
        if self.sentinels:
            keywords["host"], keywords["port"] = await self._find_master()
        seconds = keywords.get("socket_connect_timeout", CONNECT_SECONDS)
        try:
            # The greeting included.
            async with asyncio.timeout(seconds):
                return await connect(self.kind(**keywords))
        except TimeoutError:
            raise Broken(f"Redis at {self} did not answer within {seconds:g} s") from None
        except OSError as error:
            raise unreachable(f"Redis at {self}", error, "hosts") from error
        except Broken as error:
            raise Broken(f"Redis at {self}: {str(error).removeprefix('Redis: ')}") from error

    async def _find_master(self) -> tuple[str, int]:
        bounds = {"socket_connect_timeout": CONNECT_SECONDS, "socket_timeout": CONNECT_SECONDS}
        keywords = {**bounds, **(self.sentinel_keywords or {})}
        sentinel = Sentinel(self.sentinels, sentinel_kwargs=keywords)
        try:
            host, port = await sentinel.discover_master(self.master_name)
            return str(host), int(port)
        except MasterNotFoundError:
            # Its text has the repr of clients: up to redis-py 6 the passwords are in that.
            pass
        finally:
            clients: list[Any] = sentinel.sentinels
            for each in clients:
                await each.aclose()
        raise RedisConnectionError(
            f"none of {len(self.sentinels)} Sentinels can be reached and knows a master by the "
            f"name {self.master_name!r}"
        )

    def __repr__(self) -> str:
        return f"<Host {self}>"

    def __str__(self) -> str:
        if self.sentinels:
            return f"{self.master_name} of {len(self.sentinels)} Sentinels"
        return str(
            self.keywords.get("path")
            or f"{self.keywords.get('host', 'localhost')}:{self.keywords.get('port', 6379)}"
        )


class HostEntry(dict[str, Any]):
    """An entry of `hosts`, whose repr does not show what it holds."""

    def __repr__(self) -> str:
        return f"<HostEntry with {', '.join(map(str, self))}>"


def decode_hosts(hosts: Any) -> list[HostEntry]:
    """`hosts` as a list of dicts, each with "address", "host" or "sentinels".

    Raises:
        InvalidChannelLayerError: If it is no list, or an entry has none of the forms.
    """
    if not hosts:
        return [HostEntry(address=DEFAULT_URL)]
    if isinstance(hosts, str | bytes | Mapping) or not isinstance(hosts, Sequence):
        raise InvalidChannelLayerError(
            f"hosts is of type {type(hosts).__name__}: expected a list, also for one server. Each "
            f"entry is {_FORMS}."
        )
    return [_decode_host(entry) for entry in hosts]


def _decode_host(entry: Any) -> HostEntry:
    if isinstance(entry, Mapping):
        return HostEntry(entry)
    if isinstance(entry, str):
        return HostEntry(address=entry)
    if isinstance(entry, tuple | list) and len(entry) == 2:
        return HostEntry(host=entry[0], port=entry[1])
    count = f" with {len(entry)} items" if isinstance(entry, tuple | list) else ""
    raise InvalidChannelLayerError(
        f"hosts has an entry of type {type(entry).__name__}{count}: expected {_FORMS}."
    )


def make_host(entry: Mapping[str, Any], common: Mapping[str, Any] | None = None) -> Host:
    """The host that an entry of `decode_hosts` describes.

    Args:
        common: Keywords for its connections that the entry itself may override.

    Raises:
        InvalidChannelLayerError: If no connection can be made from it.
    """
    given = dict(entry)
    sentinels = given.pop("sentinels", None)
    master = given.pop("master_name", "")
    sentinel_keywords = given.pop("sentinel_kwargs", None)
    keywords: dict[str, Any] = {
        **(common or {}),
        **_address(given.pop("address", None)),
        **given,
    }
    kind = keywords.pop("connection_class", Connection)
    if keywords.pop("ssl", False) and kind is Connection:
        kind = SSLConnection
    if "unix_socket_path" in keywords:
        keywords["path"], kind = keywords.pop("unix_socket_path"), UnixDomainSocketConnection
    for name in _OURS:
        keywords.pop(name, None)
    if sentinels is not None and not (sentinels and master):
        raise InvalidChannelLayerError(
            f"hosts has {HostEntry(entry)!r}: Sentinels need both a list of them and master_name."
        )
    if "redis_connect_func" in keywords or not issubclass(kind, Settings):
        raise InvalidChannelLayerError(
            f"hosts has {HostEntry(entry)!r}: the layer connects by itself. For other credentials "
            "give credential_provider, in place of redis_connect_func or connection_class."
        )
    host = Host(kind, keywords, _sentinels(sentinels or ()), master, sentinel_keywords)
    _try(host, entry)
    return host


def _address(address: Any) -> Mapping[str, Any]:
    if address is None:
        return {}
    if isinstance(address, tuple | list) and len(address) == 2:
        return {"host": address[0], "port": address[1]}
    split_url(address, _SCHEMES, option="hosts", expected=f"expected {_FORMS}")
    try:
        return cast(Mapping[str, Any], parse_url(address))
    except (ValueError, TypeError, AttributeError) as error:
        said = without_secrets(error, address)
    raise InvalidChannelLayerError(f"hosts has an unreadable URL: {said} Expected {_FORMS}.")


def _sentinels(given: Any) -> tuple[tuple[str, int], ...]:
    with contextlib.suppress(TypeError, ValueError):
        return tuple((str(name), int(port)) for name, port in given)
    raise InvalidChannelLayerError('"sentinels" in hosts: expected a list of ("host", port) pairs.')


def _try(host: Host, entry: Mapping[str, Any]) -> None:
    """Make a connection, without connecting it, so that bad keywords are found at once."""
    keywords = dict(host.keywords)
    if host.sentinels:
        keywords["host"], keywords["port"] = host.sentinels[0]
    try:
        host.kind(**keywords)
    except Exception as error:
        said = without_secrets(error, entry, host.keywords)
    else:
        return
    # Not in the handler: the driver's error would be this one's context.
    raise InvalidChannelLayerError(
        f"hosts has {HostEntry(entry)!r}, of which redis-py makes no connection: {said}"
    )
