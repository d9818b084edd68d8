"""Whoever may publish to the broker can write bodies and headers that no process writes."""

from __future__ import annotations

import asyncio
import logging
import random
import struct
import time
import uuid
from typing import Any

import pytest

from channels.layers.envelope import Envelope, Kind
from channels.testing.layers.base import soon, until
from tests.cluster.servers import OwnServer

pytest.importorskip("aiormq")

from aiormq import spec
from aiormq.abc import AbstractChannel
from pamqp.frame import marshal

from channels.backends.rabbitmq import RabbitMQChannelLayer
from tests.cluster.rabbitmq import operating

#: For each queue of the broker.
FORGERIES = 400
QUEUES = ("q.worker", "k.jobs", "names")
NAMES = ("", "room", "worker", "jobs", "x" * 300, "\x1b[2J\n", "un-owned!x")


def body(chance: random.Random, payload: bytes) -> bytes:
    # All kinds but FLUSH, which a layer without keys obeys.
    kind = chance.choice([kind for kind in Kind if kind is not Kind.FLUSH])
    content = chance.choice([b"", chance.randbytes(30), payload[: chance.randrange(9)]])
    deadline = chance.choice([0, int(time.time() + 60) * 1000, 2**64 - 1])
    sender, name = chance.randbytes(8), chance.choice(NAMES)
    data = Envelope(kind, name, content, sender, chance.randrange(1000), deadline).encoded
    cut = data[: chance.randrange(len(data))]
    return chance.choice([data, cut, b"\xe0" + chance.randbytes(40), b""])


def properties(chance: random.Random) -> spec.Basic.Properties:
    odd: Any = ("x", -1, 2**62, True, None, ["x"], {"reason": "maxlen"}, 1.5)
    names = ("channel", "attempts", "due", "x-death", "x-first-death-exchange")
    return spec.Basic.Properties(
        message_type=chance.choice([None, "marker"]),
        message_id=chance.choice(["x", "-1", "\u0663", "9" * 200]),
        reply_to=chance.choice([None, *NAMES[:4]]),
        headers={name: chance.choice(odd) for name in names if chance.random() < 0.5} or None,
        delivery_mode=1,
    )


async def forge(forger: AbstractChannel, queue: str, chance: random.Random, payload: bytes) -> None:
    await forger.basic_publish(
        body(chance, payload), routing_key=queue, properties=properties(chance)
    )


@pytest.mark.parametrize(
    "keys", [None, ["a key of the site, of 32 characters"]], ids=["open", "sealed"]
)
async def test_what_nobody_of_the_layer_wrote_is_counted_and_stops_nothing(
    rabbitmq: OwnServer,
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
    for channel in ("worker", "jobs"):
        # Their queues are there.
        await layer.send(channel, {"type": "first"})
    assert await soon(worker) == {"type": "first"}
    await (await soon(job))[1].ack()
    worker = asyncio.create_task(layer.receive("worker"))
    job = asyncio.create_task(layer.receive_leased("jobs"))
    chance = random.Random(9)
    queues = [f"{layer.prefix}.{name}" for name in (f"node.{layer.node.id}", *QUEUES)]
    payload = layer.node.codec.encode({"type": "genuine"})
    async with operating(rabbitmq.port) as forger:
        for _ in range(FORGERIES):
            await asyncio.gather(*(forge(forger, queue, chance, payload) for queue in queues))

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


#: Tables of headers that RabbitMQ passes on and the library cannot read.
UNREADABLE = {
    "a name that is not UTF-8": b"\x02\xff\xfeV",
    "a time beyond all years": b"\x01tT" + b"\xff" * 8,
}


@pytest.mark.parametrize("table", UNREADABLE.values(), ids=list(UNREADABLE))
async def test_headers_that_cannot_be_read_stop_nothing(
    rabbitmq: OwnServer, table: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    url, prefix = f"amqp://guest:guest@127.0.0.1:{rabbitmq.port}/", f"bad-{uuid.uuid4().hex[:8]}"
    layer = RabbitMQChannelLayer(url, prefix, delivery={"jobs": "at-least-once"})
    layer.adopt_loop()
    for channel in ("worker", "jobs"):
        await layer.send(channel, {"type": "first"})
    await layer.new_channel()
    for queue in (f"node.{layer.node.id}", "q.worker", "k.jobs"):
        await publish_raw(rabbitmq.port, f"{prefix}.{queue}", table)
    for channel in ("worker", "jobs"):
        await layer.send(channel, {"type": "last"})
    assert [(await soon(layer.receive("worker")))["type"] for _ in range(2)] == ["first", "last"]
    for expected in ("first", "last"):
        message, lease = await soon(layer.receive_leased("jobs"))
        assert message["type"] == expected
        await lease.ack()
    await until(lambda: layer.statistics()["dropped_malformed"] == 3, "all three are counted")
    assert layer.statistics().get("disconnected", 0) == 0
    assert sum("alformed" in line for line in caplog.messages) <= 1, "logged once"
    await layer.flush()
    await layer.close()


async def publish_raw(port: int, queue: str, table: bytes) -> None:
    """Publish a message with a table of headers that no library would write."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)

    def method(channel: int, frame: Any) -> None:
        writer.write(marshal(frame, channel))

    async def answered() -> None:
        head = await reader.readexactly(7)
        await reader.readexactly(int.from_bytes(head[3:]) + 1)

    writer.write(b"AMQP\0\0\x09\x01")
    await answered()
    method(0, spec.Connection.StartOk({}, "PLAIN", "\0guest\0guest"))
    await answered()
    method(0, spec.Connection.TuneOk(2047, 131_072, 0))
    for channel, frame in ((0, spec.Connection.Open("/")), (1, spec.Channel.Open())):
        method(channel, frame)
        await answered()
    method(1, spec.Confirm.Select())
    await answered()
    method(1, spec.Basic.Publish(0, "", queue))
    body = b"no envelope"
    header = struct.pack("!HHQHI", 60, 0, len(body), 1 << 13, len(table)) + table
    for kind, payload in ((2, header), (3, body)):
        writer.write(struct.pack("!BHI", kind, 1, len(payload)) + payload + b"\xce")
    await answered()
    writer.close()
    await writer.wait_closed()
