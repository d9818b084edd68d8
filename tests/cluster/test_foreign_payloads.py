"""What another program puts where a layer reads: octets that no layer has made.

The contract's forgeries go through a layer's own transport; here a plain client of the broker
writes to inboxes, groups and queues.  Each payload is dropped without a traceback, and what is
genuine comes through behind it.
"""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from channels.layers import (
    NatsChannelLayer,
    RabbitMQChannelLayer,
    RedisChannelLayer,
    RedisPubSubChannelLayer,
)
from channels.layers.envelope import Envelope, Kind
from channels.testing.layers.base import soon
from tests.cluster.rabbitmq import operating
from tests.cluster.servers import OwnServer, nats_server, redis_server

COUNT = 300
CONFIG: dict[str, Any] = {"capacity": 10_000, "delivery": {"jobs": "at-least-once"}}
#: Characters of the log that all of them may cost.
MOST_LOGGED = 20_000


def payloads() -> list[bytes]:
    """Noise, parts of envelopes, and envelopes with noise in them."""
    dice = random.Random(7)
    good = Envelope(Kind.GROUP, "room", b"\x81\xa4type\xa1x", b"sender--", 1).encoded
    found = [b"", b"\0", b"\xff" * 100, b"{}", b"PING\r\n", good[:-1], good[:29], b"\x02" + good]
    for _ in range(COUNT):
        noise = dice.randbytes(dice.randrange(1, 300))
        changed = bytearray(good)
        changed[dice.randrange(len(good) - 8)] = dice.randrange(256)
        found += [noise, good[:29] + noise, bytes(changed)]
    return found


@pytest.fixture
def prefix() -> str:
    return f"test-{uuid.uuid4().hex[:8]}"


@pytest.fixture(scope="module")
def redis_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server.port


@pytest.fixture(scope="module")
def nats_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with nats_server(tmp_path_factory.mktemp("nats")) as server:
        yield server.port


async def survives(layer: Any, caplog: pytest.LogCaptureFixture, attack: Any) -> None:
    """Attack the layer's group, inbox and queue; then it must work as before."""
    member = await layer.new_channel()
    await layer.group_add("room", member)
    reader = asyncio.create_task(layer.receive("worker"))
    # With a delay, so that the reader of what is delayed is there to be attacked as well.
    delay = 0.01 if layer.capabilities.delays else 0.0
    await layer.send("worker", {"type": "first"}, delay=delay)
    assert await soon(reader) == {"type": "first"}
    reader = asyncio.create_task(layer.receive("worker"))
    await asyncio.sleep(0)
    leased = asyncio.create_task(layer.receive_leased("jobs"))
    await asyncio.sleep(0)
    await attack(layer.node.id, member)
    await layer.group_send("room", {"type": "genuine"})
    while (got := await soon(layer.receive(member)))["type"] != "genuine":
        assert got == {"type": "x"}, "an envelope that was changed where nothing is decided"
    await layer.send("worker", {"type": "genuine"})
    while (await soon(reader))["type"] != "genuine":
        reader = asyncio.create_task(layer.receive("worker"))
    await layer.send("jobs", {"type": "genuine"})
    while True:
        message, lease = await soon(leased)
        await lease.ack()
        if message["type"] == "genuine":
            break
        leased = asyncio.create_task(layer.receive_leased("jobs"))
    counts = layer.statistics()
    assert counts["dropped_malformed"] > COUNT
    assert [record.getMessage() for record in caplog.records if record.exc_info] == []
    assert sum(len(record.getMessage()) for record in caplog.records) < MOST_LOGGED


@pytest.mark.parametrize("kind", [RedisChannelLayer, RedisPubSubChannelLayer])
async def test_redis(
    kind: Any, redis_port: int, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    plain = redis.Redis(port=redis_port)

    async def attack(node: str, member: str) -> None:
        pipe = plain.pipeline(transaction=False)
        for payload in payloads():
            for queue in ("worker", "jobs"):
                pipe.rpush(f"{prefix}:q:{queue}", payload)
            token = uuid.uuid4().hex
            pipe.hset(f"{prefix}:hb", token, payload)
            pipe.zadd(f"{prefix}:hd", {token: 1})
            pipe.zadd(f"{prefix}:hl", {payload: 1})
            if kind is RedisChannelLayer:
                pipe.xadd(f"{prefix}:in:{node}", {"e": payload})
                pipe.xadd(f"{prefix}:in:{node}", {"other": payload, "more": payload})
            else:
                pipe.publish(f"{prefix}:n:{node}", payload)
                pipe.publish(f"{prefix}:c:room", payload)
        await asyncio.to_thread(pipe.execute)

    layer = kind([f"redis://127.0.0.1:{redis_port}"], prefix, **CONFIG)
    try:
        await survives(layer, caplog, attack)
    finally:
        await layer.close()
        plain.close()


async def test_nats(nats_port: int, prefix: str, caplog: pytest.LogCaptureFixture) -> None:
    async def attack(node: str, member: str) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", nats_port)
        writer.write(b'CONNECT {"verbose":false}\r\n')
        for payload in payloads():
            queues = (f"{prefix}.q.10000.worker", f"{prefix}.q.10000-kept.jobs")
            for subject in (f"{prefix}.n.{node}", f"{prefix}.g.room", *queues):
                writer.write(f"PUB {subject} {len(payload)}\r\n".encode() + payload + b"\r\n")
        writer.write(b"PING\r\n")
        await writer.drain()
        await reader.readuntil(b"PONG\r\n")
        writer.close()

    layer = NatsChannelLayer(f"nats://127.0.0.1:{nats_port}", prefix, **CONFIG)
    try:
        await survives(layer, caplog, attack)
    finally:
        await layer.close()


async def test_rabbitmq(rabbitmq: OwnServer, prefix: str, caplog: pytest.LogCaptureFixture) -> None:
    url = f"amqp://guest:guest@127.0.0.1:{rabbitmq.port}/"

    async def attack(node: str, member: str) -> None:
        async with operating(rabbitmq.port) as channel:
            for payload in payloads():
                for queue in (f"node.{node}", "q.worker", "k.jobs"):
                    await channel.basic_publish(payload, routing_key=f"{prefix}.{queue}")
                await channel.basic_publish(
                    payload, exchange=f"{prefix}.groups", routing_key="room"
                )

    layer = RabbitMQChannelLayer(url, prefix, **CONFIG)
    try:
        await survives(layer, caplog, attack)
    finally:
        await layer.close()
