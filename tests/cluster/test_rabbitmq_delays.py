"""A process that hangs with delayed messages in its hand: another sees to them in time."""

from __future__ import annotations

import asyncio
import signal
import time
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import pytest
from pamqp import commands

from channels.backends.rabbitmq.transport import RabbitMQTransport
from channels.layers import RabbitMQChannelLayer
from tests.cluster.member import Member
from tests.cluster.proxy import ChaosProxy
from tests.cluster.servers import OwnServer

BACKEND: Final = "channels.layers.RabbitMQChannelLayer"
#: The bound that the documentation states.
BOUND_SECONDS: Final = 5.0
#: Less than that is no sign of a hung process.
PROMPT_SECONDS: Final = 1.0
COUNT: Final = 40


@pytest.fixture
def config(rabbitmq: OwnServer) -> dict[str, Any]:
    url = f"amqp://guest:guest@127.0.0.1:{rabbitmq.port}/"
    return {"url": url, "prefix": f"test-{uuid.uuid4().hex[:8]}"}


@pytest.fixture
async def layer(config: dict[str, Any]) -> AsyncIterator[RabbitMQChannelLayer]:
    layer = RabbitMQChannelLayer(**config)
    layer.adopt_loop()
    yield layer
    await layer.flush()
    await layer.close()


async def look_at(layer: RabbitMQChannelLayer, queue: str) -> Any:
    """What the broker says of a queue."""
    transport = layer.node.transport
    assert isinstance(transport, RabbitMQTransport)
    look = commands.Queue.Declare(0, f"{layer.prefix}.{queue}", passive=True)
    return await transport._require_session().declarer.call(look)


async def until_reading(layer: RabbitMQChannelLayer, processes: int) -> None:
    """Wait until so many processes take delayed messages from the broker."""
    async with asyncio.timeout(20):
        while True:
            if (await look_at(layer, "due")).consumer_count == processes:
                return
            await asyncio.sleep(0.02)


async def send_delayed(layer: RabbitMQChannelLayer, delay: float) -> None:
    for number in range(COUNT):
        message = {"type": "x", "number": number, "due": time.time() + delay}
        await layer.send("work", message, delay=delay)


async def receive_delayed(layer: RabbitMQChannelLayer) -> dict[int, float]:
    """Number of each message -> seconds that it came after its time."""
    late: dict[int, float] = {}
    for _ in range(COUNT):
        message = await asyncio.wait_for(layer.receive("work"), 30)
        late[message["number"]] = time.time() - message["due"]
    return late


async def hang_first(member: Member, layer: RabbitMQChannelLayer) -> None:
    """The broker gives them to a process that has hung already, and so does not read them."""
    await member.halt()
    await send_delayed(layer, 0.5)


async def hang_with_them(member: Member, layer: RabbitMQChannelLayer) -> None:
    """What is due within a second is in the process's hand when it hangs."""
    await send_delayed(layer, 0.9)
    await member.halt()


@pytest.mark.parametrize("hang", [hang_first, hang_with_them])
async def test_what_a_hung_process_has_in_hand_is_seen_to_by_another(
    layer: RabbitMQChannelLayer, config: dict[str, Any], hang: Callable[..., Any]
) -> None:
    await layer.new_channel()
    async with Member(BACKEND, config, "queue", "other") as member:
        await until_reading(layer, 2)
        await hang(member, layer)
        late = await receive_delayed(layer)
    assert sorted(late) == list(range(COUNT)), "none is lost, none comes twice"
    assert max(late.values()) > PROMPT_SECONDS, "the hung process had some of them"
    assert max(late.values()) < BOUND_SECONDS


@pytest.mark.parametrize("hang", [hang_first, hang_with_them])
async def test_a_process_that_goes_on_leaves_to_others_what_they_have_seen_to(
    layer: RabbitMQChannelLayer, config: dict[str, Any], hang: Callable[..., Any]
) -> None:
    await layer.new_channel()
    async with Member(BACKEND, config, "queue", "other") as member:
        await until_reading(layer, 2)
        await hang(member, layer)
        assert sorted(await receive_delayed(layer)) == list(range(COUNT))
        await until_reading(layer, 1)
        member.signal(signal.SIGCONT)
        # Connected again, it has dealt with all that it had in hand before.
        await until_reading(layer, 2)
        assert (await look_at(layer, "q.work")).message_count == 0


async def test_two_connections_for_a_process(
    rabbitmq: OwnServer, config: dict[str, Any], layer: RabbitMQChannelLayer
) -> None:
    await layer.new_channel()
    async with ChaosProxy(("127.0.0.1", rabbitmq.port)) as proxy:
        url = f"amqp://guest:guest@127.0.0.1:{proxy.port}/"
        other = RabbitMQChannelLayer(**{**config, "url": url})
        other.adopt_loop()
        await other.new_channel()
        await until_reading(layer, 2)
        await asyncio.gather(*(other.group_send("room", {"type": "x"}) for _ in range(100)))
        assert proxy.accepted == 2
        await other.close()
