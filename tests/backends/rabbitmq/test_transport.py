"""What is RabbitMQ's own: URLs, names of other packages, and queues that others have changed."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from pamqp import commands

from channels.backends.rabbitmq.address import parse_address
from channels.backends.rabbitmq.channel import Broken
from channels.backends.rabbitmq.desk import Desk
from channels.backends.rabbitmq.names import Names
from channels.backends.rabbitmq.options import RabbitMQOptions
from channels.backends.rabbitmq.transport import RabbitMQTransport
from channels.exceptions import ChannelFull, InvalidChannelLayerError, InvalidOption
from channels.layers import RabbitMQChannelLayer
from channels.layers.registry import ChannelLayerManager
from tests.cluster.servers import OwnServer
from tests.cluster.traffic import until

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


async def delete(layer: RabbitMQChannelLayer, queue: str) -> None:
    """As an operator would."""
    transport = layer.node.transport
    assert isinstance(transport, RabbitMQTransport)
    session = transport._session
    assert session is not None
    with contextlib.suppress(Broken):
        await session.declarer.call(commands.Queue.Delete(0, queue))


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
    await delete(layer, f"{layer.prefix}.node.{layer.node.id}")
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
    await delete(layer, f"{layer.prefix}.q.work")
    await layer.send("work", {"type": "two"})
    assert await layer.receive("work") == {"type": "two"}
    reader = asyncio.create_task(layer.receive("work"))
    await asyncio.sleep(0.05)
    await delete(layer, f"{layer.prefix}.q.work")
    await layer.send("work", {"type": "three"})
    async with asyncio.timeout(5):
        assert await reader == {"type": "three"}


async def test_a_process_that_ends_in_order_leaves_nothing_behind(make_layer: MakeLayer) -> None:
    layer, other = make_layer(), make_layer()
    await layer.group_add("room", await layer.new_channel())
    await other.new_channel()
    await layer.close()
    assert "transport_closed_rudely" not in layer.statistics()
    transport = other.node.transport
    assert isinstance(transport, RabbitMQTransport)
    declarer = transport._require_session().declarer
    for kind in ("node", "hand"):
        assert await declarer.exists(f"{layer.prefix}.{kind}.{other.node.id}")
        assert not await declarer.exists(f"{layer.prefix}.{kind}.{layer.node.id}")


def test_a_receipt_counts_once_and_only_for_what_was_unsure() -> None:
    options = RabbitMQOptions()
    desk = Desk(Names("asgi", options, lambda: 60.0, lambda: 60.0), "node")
    mark = ("queue", "1")
    desk.take_receipt(mark)
    assert not desk.was_stored(mark)
    desk.note_unsure([mark])
    assert not desk.was_stored(mark)
    desk.take_receipt(mark)
    assert desk.was_stored(mark)
    assert not desk.was_stored(mark)


async def fill_two_of_three(layer: RabbitMQChannelLayer) -> None:
    """Two members of `room` have no room left, one has."""
    for channel in ("full", "also-full", "free"):
        await layer.group_add("room", channel)
    for channel in ("full", "also-full"):
        await layer.send(channel, {"type": "x"})


def dropped(*layers: RabbitMQChannelLayer) -> int:
    return sum(layer.statistics().get("dropped_full_queue", 0) for layer in layers)


async def test_one_line_tells_how_many_of_a_groups_queues_were_full(
    make_layer: MakeLayer, caplog: pytest.LogCaptureFixture
) -> None:
    layer, other = make_layer(capacity=1), make_layer(capacity=1)
    await fill_two_of_three(layer)
    with caplog.at_level("INFO"):
        await other.group_send("room", {"type": "x"})
        await until(lambda: dropped(layer, other) == 2, "the count")
    assert [line for line in caplog.messages if "over capacity" in line] == [
        "2 of 3 channels over capacity in group room"
    ]


async def test_members_that_have_left_are_not_counted(
    make_layer: MakeLayer, caplog: pytest.LogCaptureFixture
) -> None:
    layer = make_layer(capacity=1)
    await fill_two_of_three(layer)
    await layer.group_discard("room", "free")
    with caplog.at_level("INFO"):
        await layer.group_send("room", {"type": "x"})
        await until(lambda: dropped(layer) == 2, "the count")
    assert "2 of 2 channels over capacity in group room" in caplog.messages


async def test_every_message_that_full_queues_miss_is_counted_once(make_layer: MakeLayer) -> None:
    layers = [make_layer(capacity=1) for _ in range(3)]
    await fill_two_of_three(layers[0])
    for _ in range(50):
        await asyncio.gather(*(layer.group_send("room", {"type": "x"}) for layer in layers * 4))
    # The queue with room took the first.
    wanted = 50 * 12 * 3 - 1
    await until(lambda: dropped(*layers) >= wanted, "all are counted")
    assert dropped(*layers) == wanted


async def test_what_a_sender_was_refused_is_not_counted_as_a_groups(make_layer: MakeLayer) -> None:
    layer = make_layer(capacity=1)
    await layer.group_add("room", "full")
    await layer.send("full", {"type": "x"})
    for _ in range(20):
        with pytest.raises(ChannelFull):
            await layer.send("full", {"type": "x"})
    await layer.group_send("room", {"type": "x"})
    await until(lambda: dropped(layer) > 0, "the group's is counted")
    assert dropped(layer) == 1


async def test_a_groups_message_that_expires_unread_is_not_counted_as_refused(
    make_layer: MakeLayer,
) -> None:
    layer = make_layer(capacity=1, expiry=1.0)
    await layer.group_add("room", "work")
    await layer.group_send("room", {"type": "old"})
    # There is room again when the first has expired.
    async with asyncio.timeout(10):
        while True:
            try:
                await layer.send("work", {"type": "x"})
            except ChannelFull:
                await asyncio.sleep(0.05)
            else:
                break
    await layer.group_send("room", {"type": "x"})
    await until(lambda: dropped(layer) > 0, "the refused one is counted, and it came later")
    assert dropped(layer) == 1


async def test_processes_with_different_bounds_count_together(make_layer: MakeLayer) -> None:
    layers = [make_layer(capacity=1, node_capacity=bound) for bound in (100, 200)]
    await fill_two_of_three(layers[0])
    await layers[1].group_send("room", {"type": "x"})
    await until(lambda: dropped(*layers) == 2, "the count")


async def test_another_process_counts_when_the_one_that_did_has_gone(make_layer: MakeLayer) -> None:
    first, second = make_layer(capacity=1), make_layer(capacity=1)
    await fill_two_of_three(first)
    await first.group_send("room", {"type": "x"})
    await until(lambda: dropped(first) == 2, "the first reads the reports")
    await second.new_channel()
    await first.close()
    await second.group_send("room", {"type": "x"})
    await until(lambda: dropped(second) == 3, "the second does")


async def test_reports_are_read_on_when_their_queue_was_deleted(make_layer: MakeLayer) -> None:
    layer = make_layer(capacity=1)
    await fill_two_of_three(layer)
    await delete(layer, f"{layer.prefix}.full")
    transport = layer.node.transport
    assert isinstance(transport, RabbitMQTransport)
    declarer = transport._require_session().declarer
    async with asyncio.timeout(10):
        while True:
            # Its binding is said in the same breath.
            if await declarer.exists(f"{layer.prefix}.full"):
                break
            await asyncio.sleep(0.02)
    await layer.group_send("room", {"type": "x"})
    await until(lambda: dropped(layer) == 2, "the count")
