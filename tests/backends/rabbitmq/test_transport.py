"""What is RabbitMQ's own: URLs, names of other packages, and queues that others have changed."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from channels.backends.rabbitmq.address import parse_address
from channels.backends.rabbitmq.connection import connect
from channels.backends.rabbitmq.names import QueueRules, RabbitMQNames
from channels.backends.rabbitmq.options import RabbitMQOptions
from channels.backends.shell import Broken
from channels.exceptions import ChannelFull, InvalidChannelLayerError, InvalidOption
from channels.layers import RabbitMQChannelLayer
from channels.layers.registry import ChannelLayerManager
from tests.cluster.rabbitmq import delete, messages_in
from tests.cluster.servers import OwnServer
from tests.cluster.traffic import until
from tests.processes import free_port

MakeLayer = Callable[..., RabbitMQChannelLayer]


@pytest.fixture
async def make_layer(rabbitmq: OwnServer) -> AsyncIterator[MakeLayer]:
    made: list[RabbitMQChannelLayer] = []
    url, prefix = f"amqp://guest:guest@127.0.0.1:{rabbitmq.port}/", f"own-{uuid.uuid4().hex[:8]}"

    def make(**config: Any) -> RabbitMQChannelLayer:
        made.append(RabbitMQChannelLayer(url, prefix, **config))
        made[-1].adopt_loop()
        return made[-1]

    yield make
    for layer in made:
        await layer.close()


@pytest.mark.parametrize(
    ("url", "host", "port", "user", "vhost"),
    [
        ("amqp://", "127.0.0.1", 5672, "guest", "/"),
        ("amqp://h/%2F", "h", 5672, "guest", "/"),
        ("amqp://me:p%40ss@h:1/asgi", "h", 1, "me", "asgi"),
        ("amqps://h", "h", 5671, "guest", "/"),
    ],
)
def test_urls(url: str, host: str, port: int, user: str, vhost: str) -> None:
    address = parse_address(url)
    assert (address.host, address.port, address.user, address.vhost) == (host, port, user, vhost)
    assert (address.tls is not None) == url.startswith("amqps")


@pytest.mark.parametrize("url", ["redis://h", "h:5672", None, "amqp://h:port/"])
def test_what_is_no_url_is_refused_and_a_password_is_not_shown(url: Any) -> None:
    with pytest.raises(InvalidChannelLayerError, match="amqp://"):
        RabbitMQChannelLayer(url)
    address = parse_address("amqp://me:secret@h")
    assert "secret" not in repr(address) + str(address)


def test_unknown_and_impossible_settings_are_refused() -> None:
    with pytest.raises(InvalidChannelLayerError, match="hosts"):
        RabbitMQChannelLayer(hosts=["h"])
    with pytest.raises(InvalidChannelLayerError, match="24 letters"):
        RabbitMQChannelLayer(prefix="a" * 25)
    with pytest.raises(InvalidOption, match="heartbeat"):
        RabbitMQChannelLayer(heartbeat=0)


@pytest.mark.parametrize(
    ("backend", "config"),
    [
        (
            "channels_rabbitmq.core.RabbitmqChannelLayer",
            {
                "host": "amqp://h/asgi",
                "local_capacity": 7,
                "remote_capacity": 70,
                "local_expiry": 5,
                "groups_exchange": "groups",
            },
        ),
        (
            "asgi_rabbitmq.RabbitmqChannelLayer",
            {"url": "amqp://h/asgi", "capacity": 7, "node_capacity": 70},
        ),
    ],
)
def test_settings_of_other_packages_are_understood(backend: str, config: dict[str, Any]) -> None:
    manager = ChannelLayerManager(lambda: {"default": {"BACKEND": backend, "CONFIG": config}})
    layer = manager["default"]
    assert isinstance(layer, RabbitMQChannelLayer)
    assert (str(layer.addresses[0]), layer.capacity) == ("h:5672asgi", 7)
    assert layer.rabbitmq_options.node_capacity == 70


async def test_a_queue_made_with_another_capacity_is_used_as_it_is(
    make_layer: MakeLayer, caplog: pytest.LogCaptureFixture
) -> None:
    old, new = make_layer(capacity=2), make_layer(capacity=50)
    await old.send("work", {"type": "one"})
    await new.send("work", {"type": "two"})
    with pytest.raises(ChannelFull):
        await new.send("work", {"type": "three"})
    assert [(await new.receive("work"))["type"] for _ in range(2)] == ["one", "two"]
    lines = [each for each in caplog.messages if "another capacity" in each]
    assert len(lines) == 1


async def test_an_inbox_that_was_deleted_is_made_again_and_its_process_is_told(
    make_layer: MakeLayer,
) -> None:
    layer = make_layer()
    gaps: list[Any] = []
    layer.add_gap_listener(gaps.append)
    channel = await layer.new_channel()
    await layer.group_add("room", channel)
    await delete(layer, f"node.{layer.node.id}")
    await until(lambda: gaps == [None], "the notice")
    await layer.group_send("room", {"type": "x"})
    async with asyncio.timeout(5):
        assert await layer.receive(channel) == {"type": "x"}


async def test_a_queue_that_was_deleted_under_its_reader_and_its_sender_is_made_again(
    make_layer: MakeLayer,
) -> None:
    layer = make_layer()
    reader = asyncio.create_task(layer.receive("work"))
    await layer.send("work", {"type": "one"})
    assert await reader == {"type": "one"}
    await delete(layer, "q.work")
    await layer.send("work", {"type": "two"})
    assert await layer.receive("work") == {"type": "two"}
    reader = asyncio.create_task(layer.receive("work"))
    await asyncio.sleep(0.05)
    await delete(layer, "q.work")
    await layer.send("work", {"type": "three"})
    async with asyncio.timeout(5):
        assert await reader == {"type": "three"}


async def test_a_process_that_ends_in_order_leaves_nothing_behind(make_layer: MakeLayer) -> None:
    layer, other = make_layer(), make_layer()
    await layer.group_add("room", await layer.new_channel())
    await other.new_channel()
    await layer.close()
    assert "transport_closed_rudely" not in layer.statistics()
    assert await messages_in(other, f"node.{other.node.id}") is not None
    assert await messages_in(other, f"node.{layer.node.id}") is None


async def test_what_second_tier_has_not_is_refused_by_name(make_layer: MakeLayer) -> None:
    layer = make_layer()
    with pytest.raises(InvalidChannelLayerError, match="RabbitMQChannelLayer cannot delay"):
        await layer.send("work", {"type": "x"}, delay=1)
    with pytest.raises(InvalidChannelLayerError, match="RabbitMQChannelLayer"):
        await layer.group_add("room", "work")


async def test_where_nobody_listens_the_place_and_what_to_do_are_told() -> None:
    port = free_port()
    names = RabbitMQNames("test", RabbitMQOptions(), lambda _: QueueRules(1, None))
    with pytest.raises(Broken) as raised:
        await connect(parse_address(f"amqp://me:secret@127.0.0.1:{port}/"), "test", names)
    said = str(raised.value)
    assert said.startswith(f"RabbitMQ at 127.0.0.1:{port}: [Errno ")
    assert said.endswith(". Start it there, or correct url")
