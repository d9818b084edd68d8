"""What other packages take from channels_redis.utils."""

import pytest
from redis.asyncio import ConnectionPool
from redis.asyncio.connection import SSLConnection, UnixDomainSocketConnection
from redis.asyncio.sentinel import SentinelConnectionPool

from channels_redis.core import RedisChannelLayer
from channels_redis.pubsub import RedisPubSubChannelLayer
from channels_redis.utils import _consistent_hash, create_pool, decode_hosts


def test_hosts_in_all_forms() -> None:
    assert decode_hosts(None) == [{"address": "redis://localhost:6379"}]
    assert decode_hosts(["redis://a:1", ("b", 2), {"host": "c", "db": 1}]) == [
        {"address": "redis://a:1"},
        {"host": "b", "port": 2},
        {"host": "c", "db": 1},
    ]
    with pytest.raises(ValueError, match="list"):
        decode_hosts("redis://localhost")


def test_pools() -> None:
    pool = create_pool({"address": "rediss://:secret@a:1/2"})
    assert pool.connection_class is SSLConnection
    assert pool.connection_kwargs["db"] == 2
    assert create_pool({"address": "unix:///tmp/x"}).connection_class is UnixDomainSocketConnection
    assert create_pool({"host": "b", "port": 2}).connection_kwargs["host"] == "b"
    pair = create_pool({"address": ("b", 2), "db": 1})
    assert type(pair) is ConnectionPool
    assert pair.connection_kwargs["port"] == 2
    watched = create_pool({"sentinels": [("s", 26379)], "master_name": "m", "db": 1})
    assert isinstance(watched, SentinelConnectionPool)
    assert watched.service_name == "m"


def test_the_hash_of_names() -> None:
    assert _consistent_hash("anything", 1) == 0
    found = [_consistent_hash(f"channel-{number}", 4) for number in range(400)]
    assert set(found) == {0, 1, 2, 3}
    assert _consistent_hash("name", 4) == _consistent_hash(b"name", 4)


def test_layers_by_these_names() -> None:
    for kind in (RedisChannelLayer, RedisPubSubChannelLayer):
        layer = kind(hosts=[("localhost", 6379)], prefix="p")
        assert (layer.prefix, layer.expiry, layer.capacity) == ("p", 60, 100)
        assert layer.hosts == [{"host": "localhost", "port": 6379}]
        assert layer.deserialize(layer.serialize({"type": "x"})) == {"type": "x"}
