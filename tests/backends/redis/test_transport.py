"""The Redis layers' settings, how they connect, and how keys are shared out."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio.connection import SSLConnection, UnixDomainSocketConnection
from redis.crc import key_slot

from channels.backends.redis import RedisSentinelChannelLayer
from channels.backends.redis.cluster import spread_tags
from channels.backends.redis.hosts import make_host
from channels.backends.redis.operations import key_base
from channels.backends.redis.sharded import rendezvous
from channels.backends.shell import Broken
from channels.exceptions import InvalidChannelLayerError, InvalidOption, TransportDown
from channels.layers import RedisChannelLayer, RedisPubSubChannelLayer
from channels.layers.registry import ChannelLayerManager
from tests.cluster.servers import redis_server
from tests.processes import free_port


def layer_for(backend: str, **config: Any) -> Any:
    manager = ChannelLayerManager(lambda: {"default": {"BACKEND": backend, "TEST_CONFIG": config}})
    return manager["default"]


# Settings.


def test_every_form_of_a_host() -> None:
    assert make_host({"address": "redis://a:1/2"}).keywords["db"] == 2
    assert make_host({"address": ("a", 1), "db": 3}).keywords["host"] == "a"
    assert make_host({"address": "rediss://a"}).kind is SSLConnection
    assert make_host({"host": "a", "ssl": True}).kind is SSLConnection
    assert make_host({"address": "unix:///x/y"}).keywords["path"] == "/x/y"
    assert make_host({"unix_socket_path": "/x"}).kind is UnixDomainSocketConnection
    watched = make_host({"sentinels": [("s", 1)], "master_name": "m", "password": "p"})
    assert (watched.sentinels, watched.master_name) == ((("s", 1),), "m")
    assert make_host({"host": "a"}, {"password": "p"}).keywords["password"] == "p"


def test_our_own_rules_hold_whatever_is_configured() -> None:
    host = make_host({"host": "a", "decode_responses": True, "socket_timeout": 1, "protocol": 3})
    assert host.keywords == {"host": "a"}


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"hosts": "redis://localhost"}, "expected a list"),
        ({"hosts": {"host": "a"}}, "expected a list"),
        ({"hosts": [17]}, "hosts has an entry of type int"),
        ({"hosts": ["http://localhost"]}, "redis://"),
        ({"hosts": [{"host": "a", "passwort": "x"}]}, "passwort"),
        ({"hosts": [{"sentinels": [("a", 1)]}]}, "master_name"),
        ({"hosts": [{"sentinels": [], "master_name": "m"}]}, "Sentinels"),
        ({"hosts": [{"host": "a", "redis_connect_func": print}]}, "credential_provider"),
        ({"hosts": [{"host": "a", "connection_class": int}]}, "credential_provider"),
        ({"prefix": "a{b}"}, "prefix"),
        ({"capacitty": 1}, "capacitty"),
        ({"symmetric_encryption_keys": "secret"}, "list"),
        ({"serializer_format": "unheard"}, "unheard"),
    ],
)
def test_settings_that_cannot_work_say_so(config: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidChannelLayerError, match=words):
        RedisChannelLayer(**config)


def test_a_password_is_not_shown() -> None:
    with pytest.raises(InvalidChannelLayerError) as caught:
        RedisChannelLayer([{"host": "a", "password": "hunter2", "passwort": "x"}])
    assert "hunter2" not in str(caught.value)


def test_options_have_bounds() -> None:
    with pytest.raises(InvalidOption, match="lease"):
        RedisChannelLayer(lease=0.1)
    with pytest.raises(InvalidChannelLayerError, match="on_disconnect"):
        RedisPubSubChannelLayer(on_disconnect=17)  # type: ignore[arg-type]


def test_an_unknown_key_is_answered_with_all_that_there_are() -> None:
    with pytest.raises(InvalidChannelLayerError) as caught:
        RedisPubSubChannelLayer(colour=1)
    own, general = str(caught.value).split("; those of every layer are ")
    assert own == (
        "RedisPubSubChannelLayer does not know colour. Its own options are answer_timeout, "
        "cluster_shards, connection_kwargs, hosts, lease, node_capacity, on_disconnect, "
        "on_reconnect, prefix, settle"
    )
    assert general.startswith("capacity, ")


def test_settings_of_other_releases() -> None:
    config = {
        "hosts": [("localhost", 6379)],
        "prefix": "x",
        "expiry": 10,
        "group_expiry": 20,
        "capacity": 5,
        "channel_capacity": {"http.*": 7},
        "symmetric_encryption_keys": ["secret"],
        "random_prefix_length": 12,
        "serializer_format": "json",
    }
    layer = layer_for("channels_redis.core.RedisChannelLayer", **config)
    assert type(layer) is RedisChannelLayer
    assert (layer.expiry, layer.get_capacity("http.x"), layer.get_capacity("y")) == (10, 7, 5)
    pubsub = layer_for("channels_redis.pubsub.RedisPubSubChannelLayer", on_reconnect="x.y")
    assert type(pubsub) is RedisPubSubChannelLayer
    first = layer_for(
        "asgi_redis.RedisChannelLayer",
        hosts=["redis://a:1"],
        prefix="asgi:",
        stats_prefix="asgi-meta:",
        connection_kwargs={"db": 4},
    )
    assert first.prefix == "asgi"
    watched = layer_for(
        "asgi_redis.RedisSentinelChannelLayer",
        hosts=[("s", 26379)],
        services=["a", "b"],
        sentinel_refresh_interval=3,
    )
    assert type(watched) is RedisSentinelChannelLayer
    assert [host["master_name"] for host in watched.hosts] == ["a", "b"]


# Sharing out.


def test_keys_are_spread_and_stay_when_a_server_comes() -> None:
    names = [f"key-{number}" for number in range(3000)]
    three = {name: rendezvous(name, ["a", "b", "c"]) for name in names}
    assert min(Counter(three.values()).values()) > 800
    four = {name: rendezvous(name, ["a", "b", "c", "d"]) for name in names}
    assert all(four[name] in {three[name], 3} for name in names)


@pytest.mark.parametrize("count", [1, 3, 16])
def test_a_clusters_tags_lie_in_equal_parts(count: int) -> None:
    parts = [key_slot(tag.encode()) * count // 16384 for tag in spread_tags(count)]
    assert parts == list(range(count))


def test_all_keys_of_a_tag_are_in_one_slot() -> None:
    base = key_base("asgi", "7")
    found = [f"{base}{name}" for name in ("hd", "in:n", "q:q{x}")]
    assert {key_slot(key.encode()) for key in found} == {key_slot(b"7")}


# Connections.


async def test_a_server_that_does_not_greet_is_given_up() -> None:
    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    silent = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    host = make_host(
        {"host": "127.0.0.1", "port": port, "password": "x", "socket_connect_timeout": 0.05}
    )
    with pytest.raises(
        Broken, match=rf"^Redis at 127\.0\.0\.1:{port} did not answer within 0\.05 s$"
    ):
        await host.open()
    silent.close()
    await asyncio.sleep(0.01)


async def test_where_nobody_listens_the_place_and_what_to_do_are_told() -> None:
    port = free_port()
    host = make_host({"address": f"redis://:secret@127.0.0.1:{port}/1"})
    with pytest.raises(Broken) as raised:
        await host.open()
    place = rf"Redis at 127\.0\.0\.1:{port}: \[Errno \d+\] "
    assert re.fullmatch(rf"{place}.*\. Start it there, or correct hosts", str(raised.value))
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("redis://:wrong@{}", r"WRONGPASS .*\. Compare it with the password in hosts\."),
        ("redis://{}", r"NOAUTH .*\. Give its password in hosts\."),
    ],
)
async def test_a_password_that_is_refused_is_told_without_it(
    tmp_path: Path, address: str, said: str
) -> None:
    with redis_server(tmp_path) as server:
        place = f"127.0.0.1:{server.port}"
        first = await make_host({"address": f"redis://{place}"}).open()
        await first.call("CONFIG", "SET", "requirepass", "right")
        first.close()
        with pytest.raises(Broken) as raised:
            # A database is selected in the greeting, so that its error is one of opening.
            await make_host({"address": address.format(place), "db": 1}).open()
    assert re.fullmatch(f"Redis at {place}: {said}", str(raised.value))
    assert "wrong@" not in str(raised.value)


async def test_what_ends_after_a_layer_was_closed_does_no_harm() -> None:
    transport = RedisChannelLayer().transport
    transport.demand("work", 0, 1.0, lambda _: None)
    with pytest.raises(TransportDown):
        await transport.join(["room"])
