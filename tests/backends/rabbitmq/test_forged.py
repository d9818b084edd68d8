"""Whoever may publish to the broker can write bodies and headers that no process writes."""

from __future__ import annotations

import asyncio
import logging
import random
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest

from channels.layers.envelope import Envelope, Kind
from channels.testing.layers.base import soon, until
from tests.cluster.servers import OwnServer

pytest.importorskip("pamqp")

from channels.backends.rabbitmq import RabbitMQChannelLayer
from channels.backends.rabbitmq.address import parse_address
from channels.backends.rabbitmq.channel import AmqpChannel, Properties
from channels.backends.rabbitmq.connection import connect

#: For each queue of the broker.
FORGERIES = 400
NAMES = ("", "room", "worker", "jobs", "x" * 300, "\x1b[2J\n", "un-owned!x")
KINDS = (None, "moved", "marker", "member", "pushed", "unheard")


@pytest.fixture
async def forger(rabbitmq: OwnServer) -> AsyncIterator[AmqpChannel]:
    url = f"amqp://guest:guest@127.0.0.1:{rabbitmq.port}/"
    connection = await connect(parse_address(url), 4, 10)
    yield connection.channel(1)
    await connection.close()


def body(chance: random.Random, payload: bytes) -> bytes:
    # All kinds but FLUSH, which a layer without keys obeys.
    kind = chance.choice([kind for kind in Kind if kind is not Kind.FLUSH])
    content = chance.choice([b"", chance.randbytes(30), payload[: chance.randrange(9)]])
    deadline = chance.choice([0, int(time.time() + 60) * 1000, 2**64 - 1])
    sender, name = chance.randbytes(8), chance.choice(NAMES)
    data = Envelope(kind, name, content, sender, chance.randrange(1000), deadline).encoded
    cut = data[: chance.randrange(len(data))]
    return chance.choice([data, cut, b"\xe0" + chance.randbytes(40), b""])


def properties(chance: random.Random) -> Properties:
    odd = ("x", -1, 2**62, True, None, ["x"], {"reason": "maxlen"}, 1.5)
    names = ("channel", "attempts", "due", "head", "x-death", "x-first-death-exchange")
    headers: dict[str, Any] = {name: chance.choice(odd) for name in names if chance.random() < 0.5}
    if chance.random() < 0.5:
        due = chance.choice([0, 2**62, -1])
        headers |= {"channel": chance.choice(NAMES), "attempts": 1, "due": due, "head": True}
    return Properties(
        message_type=chance.choice(KINDS),
        message_id=chance.choice([None, "", "x", "-1", "\u0663", "9" * 200]),
        reply_to=chance.choice([None, *NAMES[:4]]),
        correlation_id=chance.choice([None, "x", "7"]),
        headers=headers or None,
        delivery_mode=1,
    )


@pytest.mark.parametrize(
    "keys", [None, ["a key of the site, of 32 characters"]], ids=["open", "sealed"]
)
async def test_what_nobody_of_the_layer_wrote_is_counted_and_stops_nothing(
    rabbitmq: OwnServer,
    forger: AmqpChannel,
    caplog: pytest.LogCaptureFixture,
    keys: list[str] | None,
) -> None:
    layer = RabbitMQChannelLayer(
        f"amqp://guest:guest@127.0.0.1:{rabbitmq.port}/",
        f"forged-{uuid.uuid4().hex[:8]}",
        delivery={"jobs": "at-least-once"},
        symmetric_encryption_keys=keys,
        capacity=10_000,
        send_timeout=20,
    )
    layer.adopt_loop()
    caplog.set_level(logging.INFO)
    member = await layer.new_channel()
    await layer.group_add("room", member)
    worker = asyncio.create_task(layer.receive("worker"))
    job = asyncio.create_task(layer.receive_leased("jobs"))
    await layer.send("later", {"type": "x"}, delay=0.01)
    assert await soon(layer.receive("later")) == {"type": "x"}
    transport, chance = layer.node.transport, random.Random(9)
    names, desk = transport._names, transport._desk  # type: ignore[attr-defined]
    queues = [desk.inbox, desk.hand, names.due, names.full, names.names]
    queues += [names.queue("worker"), names.queue("jobs"), names.returned("jobs")]
    payload = layer.node.codec.encode({"type": "genuine"})
    for number in range(FORGERIES * len(queues)):
        forger.publish("", queues[number % len(queues)], properties(chance), body(chance, payload))
        if number % 50 == 0:
            await asyncio.sleep(0)

    def dropped() -> int:
        return sum(count for name, count in layer.statistics().items() if "dropped" in name)

    await until(lambda: dropped() > FORGERIES / 2, "the forged messages to be counted")
    for channel in ("worker", "jobs"):
        await layer.send(channel, {"type": "genuine"})
    assert await soon(worker) == {"type": "genuine"}
    message, lease = await soon(job)
    async with lease:
        assert message == {"type": "genuine"}
    await layer.group_send("room", {"type": "genuine"})
    assert await soon(layer.receive(member)) == {"type": "genuine"}
    await layer.flush()
    counts = layer.statistics()
    assert counts.get("disconnected", 0) == 0, "a forged message broke the connection"
    assert len(caplog.records) < 30, "lines for each message"
    assert "Traceback" not in caplog.text
    assert "\x1b" not in caplog.text
    await layer.close()
