"""How the layer reaches RabbitMQ: over TLS, at several addresses, and while that takes nothing."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from channels.exceptions import ChannelLayerUnavailable, InvalidChannelLayerError
from channels.layers import RabbitMQChannelLayer
from tests.cluster.authority import Authority
from tests.cluster.rabbitmq import messages_in
from tests.cluster.servers import OwnServer, free_port, rabbitmqctl
from tests.cluster.traffic import until

MakeLayer = Callable[..., RabbitMQChannelLayer]


@pytest.fixture
async def make_layer(rabbitmq: OwnServer) -> AsyncIterator[MakeLayer]:
    made: list[RabbitMQChannelLayer] = []
    prefix = f"test-{uuid.uuid4().hex[:8]}"

    def make(url: Any, **config: Any) -> RabbitMQChannelLayer:
        made.append(RabbitMQChannelLayer(url, prefix, **config))
        made[-1].adopt_loop()
        return made[-1]

    yield make
    for layer in made:
        await layer.close()


async def exercise(layer: RabbitMQChannelLayer) -> None:
    channel = await layer.new_channel()
    await layer.group_add("room", channel)
    # Larger than a record of TLS and than a frame.
    for message in ({"type": "x"}, {"type": "y", "bytes": bytes(300_000)}):
        await layer.group_send("room", message)
        async with asyncio.timeout(20):
            assert await layer.receive(channel) == message
    await layer.send("work", {"type": "z"})
    async with asyncio.timeout(20):
        assert await layer.receive("work") == {"type": "z"}


async def fails(layer: RabbitMQChannelLayer, caplog: pytest.LogCaptureFixture, cause: str) -> None:
    """The layer cannot connect, and its log says why."""
    with pytest.raises(ChannelLayerUnavailable):
        await layer.send("work", {"type": "x"})
    await until(lambda: any(cause in line for line in caplog.messages), f"{cause} in the log")


async def test_tls_with_files_that_the_url_names(
    make_layer: MakeLayer, amqps_port: int, authority: Authority
) -> None:
    own = authority.sign("client")
    files = f"cacertfile={authority.certificate}&certfile={own.certificate}&keyfile={own.key}"
    await exercise(make_layer(f"amqps://guest:guest@127.0.0.1:{amqps_port}/?{files}"))


async def test_tls_with_a_context(
    make_layer: MakeLayer, amqps_port: int, authority: Authority
) -> None:
    own = authority.sign("client")
    context = ssl.create_default_context(cafile=authority.certificate)
    context.load_cert_chain(own.certificate, own.key)
    await exercise(make_layer(f"amqps://127.0.0.1:{amqps_port}", ssl_context=context))


async def test_a_broker_that_is_not_trusted(
    make_layer: MakeLayer, amqps_port: int, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    other = Authority(tmp_path, "other")
    url = f"amqps://127.0.0.1:{amqps_port}/?cacertfile={other.certificate}"
    await fails(make_layer(url, send_timeout=1.0), caplog, "is not accepted")
    assert any("cacertfile" in line for line in caplog.messages)


async def test_a_certificate_for_another_host(
    make_layer: MakeLayer,
    amqps_port: int,
    authority: Authority,
    caplog: pytest.LogCaptureFixture,
) -> None:
    url = f"amqps://localhost:{amqps_port}/?cacertfile={authority.certificate}"
    await fails(make_layer(url, send_timeout=1.0), caplog, "localhost")


async def test_a_broker_that_wants_our_certificate(
    make_layer: MakeLayer,
    amqps_port: int,
    authority: Authority,
    caplog: pytest.LogCaptureFixture,
) -> None:
    url = f"amqps://127.0.0.1:{amqps_port}/?cacertfile={authority.certificate}"
    await fails(make_layer(url, send_timeout=1.0), caplog, "certfile and keyfile")


async def test_tls_where_there_is_none(
    make_layer: MakeLayer, rabbitmq: OwnServer, caplog: pytest.LogCaptureFixture
) -> None:
    layer = make_layer(f"amqps://127.0.0.1:{rabbitmq.port}", send_timeout=1.0)
    await fails(layer, caplog, "needs the broker's port for TLS")


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_text("")
    for query in ("cacertfile=/no/such.pem", f"certfile={tmp_path}/empty.pem"):
        with pytest.raises(InvalidChannelLayerError, match=query.split("=", maxsplit=1)[1]):
            RabbitMQChannelLayer(f"amqps://h/?{query}")
    with pytest.raises(InvalidChannelLayerError, match="certfile"):
        RabbitMQChannelLayer("amqps://h/?keyfile=/x")


async def test_the_next_address_is_tried(make_layer: MakeLayer, rabbitmq: OwnServer) -> None:
    nowhere, here = free_port(), rabbitmq.port
    layer = make_layer([f"amqp://127.0.0.1:{port}" for port in (nowhere, here)], send_timeout=20.0)
    await exercise(layer)


async def send_until_blocked(layer: RabbitMQChannelLayer) -> int:
    """How many messages for "vain" the broker has taken before it took none."""
    taken = 0
    with contextlib.suppress(ChannelLayerUnavailable):
        while True:
            await layer.send("vain", {"type": "x"})
            taken += 1
    return taken


@pytest.mark.timeout(180)  # RabbitMQ's administration takes its time
async def test_a_broker_that_is_short_of_memory(
    make_layer: MakeLayer, rabbitmq: OwnServer, caplog: pytest.LogCaptureFixture
) -> None:
    url = f"amqp://127.0.0.1:{rabbitmq.port}"
    patient, hasty = make_layer(url, send_timeout=120.0), make_layer(url, send_timeout=0.3)
    for layer in (patient, hasty):
        await layer.send("work", {"type": "before"})

    def blocked() -> int:
        return sum("takes no messages" in line for line in caplog.messages)

    await asyncio.to_thread(rabbitmqctl, rabbitmq, "set_vm_memory_high_watermark", "0")
    try:
        # RabbitMQ blocks a connection with the first message that it sends.
        waiting = [asyncio.create_task(patient.send("work", {"type": "first"}))]
        taken = await send_until_blocked(hasty)
        for _ in range(3):
            with pytest.raises(ChannelLayerUnavailable, match="send_timeout"):
                await hasty.send("vain", {"type": "x"})
        waiting.append(asyncio.create_task(patient.send("work", {"type": "second"})))
        await until(lambda: blocked() == 2, "it is told, once for each connection")
        await asyncio.sleep(0.1)
        assert not waiting[1].done()
    finally:
        await asyncio.to_thread(rabbitmqctl, rabbitmq, "set_vm_memory_high_watermark", "0.4")
    await asyncio.gather(*waiting)
    async with asyncio.timeout(20):
        got = [(await hasty.receive("work"))["type"] for _ in range(4)]
    assert got == ["before", "before", "first", "second"]
    # One had been written when the broker said so; what was to follow never was.
    assert (await messages_in(hasty, "q.vain") or 0) <= taken + 1
    assert blocked() == 2
    assert sum("takes messages again" in line for line in caplog.messages) == 2
    for layer in (patient, hasty):
        assert "transport_disconnected" not in layer.statistics()
