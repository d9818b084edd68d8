"""The layers on Redis, as settings name them."""

from __future__ import annotations

import binascii
import contextlib
from collections.abc import Callable, Mapping, Sequence, Set
from functools import cached_property
from inspect import isawaitable
from typing import Any, ClassVar, cast

from channels.backends.redis.clients import Clients, create_pool
from channels.backends.redis.cluster import SlotServer, spread_tags
from channels.backends.redis.hosts import decode_hosts, make_host
from channels.backends.redis.inbox import StreamInbox, SubscriptionInbox
from channels.backends.redis.operations import key_base
from channels.backends.redis.options import RedisOptions
from channels.backends.redis.sharded import ShardedTransport
from channels.backends.redis.transport import Availability, RedisServer, RedisTransport
from channels.exceptions import ChannelFull, ChannelLayerUnavailable, InvalidChannelLayerError
from channels.kit.printable import printable
from channels.kit.types import Message
from channels.layers.fernet import make_fernets
from channels.layers.options import split_options
from channels.layers.process.layer import NodeChannelLayer

#: A message's type, a function, or nothing.
Hook = str | Callable[[], Any] | None

#: Asked for by upstream's CONFIG and not needed: equal messages differ by their envelope.
_NOT_NEEDED = ("random_prefix_length",)


class BaseRedisChannelLayer(NodeChannelLayer):
    """What both layers on Redis are.

    Args:
        hosts: A list of URLs, (host, port) pairs or dicts (`channels.backends.redis.hosts`);
            several share the keys among them.
        prefix: What all keys begin with.
        connection_kwargs: For connections to all hosts.
        config: `RedisOptions` and `LayerOptions`.

    Raises:
        InvalidChannelLayerError: If an entry of `hosts` or another key cannot be understood.
        InvalidOption: If an option is out of bounds.
    """

    inbox: ClassVar[type[StreamInbox | SubscriptionInbox]]

    transport: RedisTransport | ShardedTransport

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
        own, options = split_options(RedisOptions, config, layer=type(self))
        self.hosts = entries
        self.prefix = check_prefix(prefix)
        servers = make_servers(entries, connection_kwargs, own.cluster_shards)
        availability = Availability(len(servers))
        shards = [
            RedisTransport(server, self.prefix, own, self.inbox, availability) for server in servers
        ]
        self.transport = shards[0] if len(shards) == 1 else ShardedTransport(shards)
        self._clients = Clients(entries)
        super().__init__(self.transport, options)

    @property
    def ring_size(self) -> int:
        """How many hosts there are."""
        return len(self.hosts)

    @property
    def client_prefix(self) -> str:
        """This process's word in the names of its channels."""
        return self.node.id

    def consistent_hash(self, value: str | bytes) -> int:
        """A host for a name of the application's own; the layer shares out its keys otherwise."""
        return shard_of(value, self.ring_size)

    def _group_key(self, group: str) -> bytes:
        """The key of a group on its host: a set of the processes with members."""
        return f"{key_base(self.prefix)}g:{group}".encode()

    def connection(self, index: int) -> Any:
        """redis-py's client on a host, for what the application itself keeps there.

        Of the running loop, and the same at each call; `close` on that loop closes it.

        Raises:
            ValueError: If there is no such host.
        """
        return self._clients.client(index)

    def create_pool(self, index: int) -> Any:
        """A pool of redis-py on a host; it is the caller's to close."""
        return create_pool(self.hosts[index])

    async def close(self) -> None:
        await self._clients.close()
        await super().close()

    async def close_pools(self) -> None:
        """`close`, by the name that it has elsewhere."""
        await self.close()

    async def wait_received(self) -> None:
        """Returns at once: a cancelled `receive` leaves nothing to be cleaned up."""

    async def receive_single(self, channel: str) -> Message:
        """`receive`, by the name that it has elsewhere."""
        return await self.receive(channel)

    @cached_property
    def _fernets(self) -> Any:
        # For `serialize` alone, which few call: not at each start.
        keys = self.options.symmetric_encryption_keys
        return make_fernets(keys) if keys else None

    def serialize(self, message: Message) -> bytes:
        """A message as bytes, sealed if there are keys.

        As today's layer sends it; this one seals each message to its address.
        """
        data = self.node.codec.encode(message)
        return data if self._fernets is None else bytes(self._fernets.encrypt(data))

    def deserialize(self, message: bytes) -> Message:
        """The reverse."""
        data = message if self._fernets is None else self._fernets.decrypt(message)
        return self.node.codec.decode(data)


class RedisChannelLayer(BaseRedisChannelLayer):
    """Channels and groups over Redis, Valkey, or anything that speaks as they do."""

    inbox = StreamInbox


class RedisPubSubChannelLayer(BaseRedisChannelLayer):
    """The cheap variant: what is sent to groups while a process is not connected is lost to it.

    Args:
        on_disconnect: Told when the connection is lost: the type of a message without content for
            every channel of this process, as with today's layer; or a function without parameters,
            sync or async, which is called on the layer's own loop.
        on_reconnect: The same, when it is back.
    """

    inbox = SubscriptionInbox
    #: Octets of a group's name in UTF-8.
    MAX_GROUP_NAME_BYTES: ClassVar[int] = 1000

    def __init__(
        self,
        hosts: Sequence[Any] | None = None,
        prefix: str = "asgi",
        *,
        on_disconnect: Hook = None,
        on_reconnect: Hook = None,
        **config: Any,
    ) -> None:
        # A reference to itself, which today's layer hands to its parts.
        config.pop("channel_layer", None)
        super().__init__(hosts, prefix, **config)
        self.on_disconnect = check_hook("on_disconnect", on_disconnect)
        self.on_reconnect = check_hook("on_reconnect", on_reconnect)
        availability = self.transport.availability
        availability.on_disconnect = lambda: self._tell(self.on_disconnect)
        availability.on_reconnect = lambda: self._tell(self.on_reconnect)

    def require_valid_group_name(self, name: str) -> bool:
        """True for any text: programs for today's layer name groups by e-mail addresses and URLs.

        Raises:
            TypeError: If `name` is none, is empty, or has more than `MAX_GROUP_NAME_BYTES`.
        """
        try:
            size = len(name.encode())
        except (AttributeError, UnicodeEncodeError):
            size = 0
        if not 0 < size <= self.MAX_GROUP_NAME_BYTES:
            raise TypeError(
                "Group name must be a valid unicode string of at most "
                f"{self.MAX_GROUP_NAME_BYTES} bytes. Found {printable(repr(name))}."
            )
        return True

    @property
    def groups(self) -> Mapping[str, Set[str]]:
        """Group -> its channels of this process, at the moment."""
        with self.node.local.lock:
            groups = self.node.local.hub.groups
            return {
                name: frozenset(entry.members) for name, entry in groups.items() if entry.members
            }

    @property
    def channels(self) -> Set[str]:
        """The channels of this process, at the moment."""
        with self.node.local.lock:
            return frozenset(self.node.local.hub.channels)

    def _tell(self, hook: Hook) -> None:
        if hook is not None:
            self.node.link.owner.spawn(self._call(hook), "channel layer hook")

    async def _call(self, hook: Hook) -> None:
        if callable(hook):
            result = hook()
            if isawaitable(result):
                await result
            return
        with self.node.local.lock:
            channels = list(self.node.local.hub.channels)
        for channel in channels:
            # A full one has its loss counted; a gone one needs none.
            with contextlib.suppress(ChannelFull, ChannelLayerUnavailable):
                await self.send(channel, {"type": hook})


def shard_of(value: str | bytes, ring_size: int) -> int:
    """Which of `ring_size` servers today's layer, and who shares its rule, take for a name."""
    if ring_size == 1:
        return 0
    data = value.encode() if isinstance(value, str) else value
    return int((binascii.crc32(data) & 0xFFF) / (4096 / ring_size))


def check_hook(name: str, hook: Any) -> Hook:
    """The hook.

    Raises:
        InvalidChannelLayerError: If it is neither a message's type nor a function.
    """
    if hook is None or callable(hook) or (isinstance(hook, str) and hook):
        return cast(Hook, hook)
    raise InvalidChannelLayerError(
        f"{name}={hook!r}: expected a message type such as 'redis.disconnect', or a function."
    )


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
) -> list[RedisServer]:
    """The shards: each host, or slots of the cluster that the hosts belong to."""
    hosts = [make_host(entry, common) for entry in entries]
    if cluster_shards:
        return [SlotServer(hosts, tag) for tag in spread_tags(cluster_shards)]
    return [*hosts]
