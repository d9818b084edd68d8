"""What applications and other packages touch of channels_redis' layers, beside the contract."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from channels.layers.registry import ChannelLayerManager
from channels_redis.core import ChannelFull, RedisChannelLayer
from channels_redis.pubsub import RedisPubSubChannelLayer
from channels_redis.utils import _close_redis
from tests.cluster.servers import redis_server

KINDS = [RedisChannelLayer, RedisPubSubChannelLayer]


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    folder: Path = tmp_path_factory.mktemp("redis")
    with redis_server(folder) as server:
        yield server.port


@pytest.fixture(params=KINDS)
async def layer(request: pytest.FixtureRequest, port: int) -> AsyncIterator[Any]:
    made = request.param(hosts=[("127.0.0.1", port), f"redis://127.0.0.1:{port}/1"], prefix="c")
    yield made
    await made.close_pools()


async def test_an_application_reaches_the_same_redis_through_the_layer(layer: Any) -> None:
    assert layer.ring_size == 2
    first, second = layer.connection(0), layer.connection(1)
    assert layer.connection(0) is first
    assert layer.connection(-1) is second
    await first.set("own", "value")
    assert await first.get("own") == b"value"
    assert await second.get("own") is None
    with pytest.raises(ValueError, match="only 2 hosts"):
        layer.connection(2)
    async with layer.connection(layer.consistent_hash("own")) as client:
        assert await client.ping()


async def test_closing_lets_go_of_those_connections_and_later_ones_are_new(layer: Any) -> None:
    before = layer.connection(0)
    number = await before.client_id()
    await layer.close_pools()
    after = layer.connection(0)
    assert after is not before
    assert str(number) not in {each["id"] for each in await after.client_list()}


async def test_the_key_of_a_group_has_the_processes_with_members(port: int) -> None:
    layer = RedisChannelLayer(hosts=[f"redis://127.0.0.1:{port}"], prefix="members")
    await layer.group_add("room", await layer.new_channel())
    key = layer._group_key("room")
    assert await layer.connection(0).smembers(key) == {layer.client_prefix.encode()}
    await layer.close_pools()


async def test_a_pool_of_ones_own(layer: Any) -> None:
    client = Redis(connection_pool=layer.create_pool(1))
    assert await client.ping()
    await _close_redis(client)


async def test_older_names_of_the_verbs(layer: Any) -> None:
    channel = await layer.new_channel()
    assert layer.client_prefix in channel
    await layer.send(channel, {"type": "x"})
    assert await layer.receive_single(channel) == {"type": "x"}
    await layer.wait_received()
    assert layer.extensions == ["groups", "flush"]
    assert layer.consistent_hash("x") in (0, 1)


async def test_capacities_by_compiled_patterns_and_the_error_by_its_name(port: int) -> None:
    config: dict[str, Any] = {"channel_capacity": {re.compile("^few"): 1}, "prefix": "capacities"}
    layer = RedisChannelLayer(hosts=[f"redis://127.0.0.1:{port}"], **config)
    await layer.send("few", {"type": "x"})
    with pytest.raises(ChannelFull):
        await layer.send("few", {"type": "x"})
    await layer.flush()
    await layer.close_pools()


async def test_groups_by_publish_and_subscribe_have_any_name(port: int) -> None:
    first, second = (
        RedisPubSubChannelLayer(hosts=[f"redis://127.0.0.1:{port}"], prefix="names")
        for _ in range(2)
    )
    for group in ("jo@example.com", "room:1", "a room", "Räume/1", "g" * 1000):
        channel = await second.new_channel()
        await first.group_add(group, channel)
        await first.group_send(group, {"type": "x", "group": group})
        assert await second.receive(channel) == {"type": "x", "group": group}
        await first.group_discard(group, channel)
    for bad in ("", "ü" * 501, "\ud800", b"bytes"):
        with pytest.raises(TypeError, match="Group name must be a valid unicode string of at most"):
            await first.group_add(bad, "channel")  # type: ignore[arg-type]
    await first.close_pools()
    await second.close_pools()


async def test_what_this_process_has_in_groups_by_publish_and_subscribe(port: int) -> None:
    layer = RedisPubSubChannelLayer(hosts=[f"redis://127.0.0.1:{port}"], prefix="groups")
    first, second = await layer.new_channel(), await layer.new_channel()
    await layer.group_add("room", first)
    await layer.group_add("room", second)
    assert layer.groups == {"room": {first, second}}
    assert {first, second} <= layer.channels
    await layer.group_discard("room", first)
    assert len(layer.groups["room"]) == 1
    await layer.group_discard("room", second)
    assert layer.groups == {}
    await layer.close()


@pytest.mark.parametrize("kind", ["core.RedisChannelLayer", "pubsub.RedisPubSubChannelLayer"])
@pytest.mark.parametrize("keys", ["secret", b"secret"])
def test_a_single_key_is_an_error_as_before(kind: str, keys: Any) -> None:
    config = {"symmetric_encryption_keys": keys}
    backend = {"BACKEND": f"channels_redis.{kind}", "CONFIG": config}
    with pytest.raises(ValueError, match="must be a list of possible keys"):
        ChannelLayerManager(lambda: {"default": backend})["default"]
