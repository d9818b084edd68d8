"""The layer on Redis, as settings name it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from channels.exceptions import InvalidChannelLayerError
from channels.layers.layer import NodeChannelLayer
from channels.layers.options import layer_options
from channels.layers.redis.cluster import SlotServer, spread_tags
from channels.layers.redis.hosts import Host, OwnConnection, decode_hosts, make_host
from channels.layers.redis.options import RedisOptions, split_options
from channels.layers.redis.transport import RedisTransport, Server

#: Asked for by upstream's CONFIG and not needed: equal messages differ by their envelope.
_NOT_NEEDED = ("random_prefix_length",)


class HostServer:
    """A host that is a shard as a whole."""

    tag = None

    def __init__(self, host: Host) -> None:
        self.name = str(host)
        self._host = host

    async def open(self) -> OwnConnection:
        return await self._host.open()


class RedisChannelLayer(NodeChannelLayer):
    """Channels and groups over Redis, Valkey, or anything that speaks as they do.

    Args:
        hosts: A list of URLs, (host, port) pairs or dicts (`channels.layers.redis.hosts`); several
            share the keys among them.
        prefix: What all keys begin with.
        connection_kwargs: For connections to all hosts.
        config: `RedisOptions` and `LayerOptions`.

    Raises:
        InvalidChannelLayerError: If an entry of `hosts` or another key cannot be understood.
        InvalidOption: If an option is out of bounds.
    """

    def __init__(
        self,
        hosts: Sequence[Any] | None = None,
        prefix: str = "asgi",
        *,
        connection_kwargs: Mapping[str, Any] | None = None,
        **config: Any,
    ) -> None:
        entries = decode_hosts(hosts)
        for name in _NOT_NEEDED:
            config.pop(name, None)
        own, rest = split_options(RedisOptions, config)
        options = layer_options(rest, layer=type(self).__name__)
        self.hosts = entries
        self.prefix = check_prefix(prefix)
        self.redis_options = own
        servers = make_servers(entries, connection_kwargs, own.cluster_shards)
        transport = RedisTransport(servers, self.prefix, own, lambda: self.expiry)
        super().__init__(transport, options)

    async def close_pools(self) -> None:
        """`close`, by the name that it has elsewhere."""
        await self.close()


class RedisSentinelChannelLayer(RedisChannelLayer):
    """The same, configured as for Channels 1: `hosts` are Sentinels, `services` what they watch."""

    def __init__(self, services: Sequence[str], hosts: Sequence[Any], **config: Any) -> None:
        entries = [{"sentinels": list(hosts), "master_name": service} for service in services]
        super().__init__(entries, **config)


def check_prefix(prefix: Any) -> str:
    """The prefix without its last colon, which older settings have.

    Raises:
        InvalidChannelLayerError: If it is no text, or has braces, which are for shards.
    """
    if not isinstance(prefix, str) or not prefix.isascii() or set(prefix) & set("{}"):
        raise InvalidChannelLayerError(f"prefix={prefix!r}: expected ASCII text without braces.")
    return prefix.rstrip(":")


def make_servers(
    entries: Sequence[Mapping[str, Any]],
    common: Mapping[str, Any] | None,
    cluster_shards: int,
) -> list[Server]:
    """The shards: each host, or slots of the cluster that the hosts belong to."""
    hosts = [make_host(entry, common) for entry in entries]
    if cluster_shards:
        return [SlotServer(hosts, tag) for tag in spread_tags(cluster_shards)]
    return [HostServer(host) for host in hosts]
