"""The layer on RabbitMQ while connections break and the broker dies."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from channels.exceptions import ChannelLayerUnavailable
from channels.layers import RabbitMQChannelLayer
from tests.cluster.history import Outcome, PublisherLog, judge_group, judge_queue
from tests.cluster.member import Member
from tests.cluster.proxy import ChaosProxy
from tests.cluster.servers import OwnServer, free_port
from tests.cluster.traffic import Reader, beside, cut, every, publish, quiet, until

BACKEND = "channels_rabbitmq.core.RabbitmqChannelLayer"
MakeLayer = Callable[..., RabbitMQChannelLayer]


def url(port: int) -> str:
    return f"amqp://guest:guest@127.0.0.1:{port}/%2F"


@pytest.fixture
def prefix() -> str:
    return f"test-{uuid.uuid4().hex[:8]}"


@pytest.fixture
async def make_layer(prefix: str) -> AsyncIterator[MakeLayer]:
    made: list[RabbitMQChannelLayer] = []

    def make(port: int, **config: Any) -> RabbitMQChannelLayer:
        config = {"capacity": 10_000, "prefix": prefix, **config}
        made.append(RabbitMQChannelLayer(url(port), **config))
        return made[-1]

    yield make
    for layer in made:
        await layer.close()


@pytest.fixture
async def proxy(rabbitmq: OwnServer) -> AsyncIterator[ChaosProxy]:
    async with ChaosProxy(("127.0.0.1", rabbitmq.port)) as proxy:
        yield proxy


async def test_three_processes_on_one_channel_get_each_message_once(
    rabbitmq: OwnServer, make_layer: MakeLayer, prefix: str
) -> None:
    layer, log = make_layer(rabbitmq.port), PublisherLog("p")
    config = {"host": url(rabbitmq.port), "prefix": prefix, "local_capacity": 10_000}
    async with (
        Member(BACKEND, config, "queue", "work") as first,
        Member(BACKEND, config, "queue", "work") as second,
        Member(BACKEND, config, "queue", "work") as third,
    ):
        await publish(layer, log, 1000, channel="work")
        readers = {"1": first.marks, "2": second.marks, "3": third.marks}
        await until(lambda: sum(map(len, readers.values())) >= 1000, "all messages")
        await quiet(list(readers.values()), 0.2)
    verdict = judge_queue([log], readers)
    assert verdict.is_clean, verdict
    assert all(len(marks) > 100 for marks in readers.values()), "the work is shared"


async def test_connections_cut_all_the_time_lose_nothing_of_a_group(
    proxy: ChaosProxy, make_layer: MakeLayer
) -> None:
    near, far = make_layer(proxy.port), make_layer(proxy.port)
    log, other = PublisherLog("near"), PublisherLog("far")
    async with Reader(near, group="room") as first, Reader(far, group="room") as second:
        async with beside(cut(proxy, 0.2)):
            await asyncio.gather(
                publish(near, log, 1000, group="room", pause=every(20, 0.02)),
                publish(far, other, 1000, group="room", pause=every(20, 0.02)),
            )
        readers = {"near": first.marks, "far": second.marks}
        await until(lambda: min(map(len, readers.values())) >= 2000, "all messages")
        await quiet(list(readers.values()), 0.2)
    verdict = judge_group([log, other], readers)
    assert verdict.is_clean, verdict
    assert near.statistics()["transport_disconnected"] >= 3
    assert near.statistics().get("gaps", 0) == 0


async def test_connections_cut_all_the_time_lose_and_double_nothing_of_a_queue(
    proxy: ChaosProxy, make_layer: MakeLayer
) -> None:
    sender, log = make_layer(proxy.port), PublisherLog("p")
    workers = [make_layer(proxy.port) for _ in range(2)]
    async with (
        Reader(workers[0], channel="work") as first,
        Reader(workers[1], channel="work") as second,
    ):
        async with beside(cut(proxy, 0.15)):
            await publish(sender, log, 1000, channel="work", pause=every(20, 0.02))
        readers = {"1": first.marks, "2": second.marks}
        await until(lambda: sum(map(len, readers.values())) >= 1000, "all messages")
        await quiet(list(readers.values()))
    verdict = judge_queue([log], readers)
    assert [verdict.lost, verdict.doubled, verdict.strange] == [[], [], []], verdict
    assert workers[0].statistics()["transport_disconnected"] >= 3


async def test_a_process_that_was_away_gets_what_was_sent_meanwhile(
    rabbitmq: OwnServer, proxy: ChaosProxy, make_layer: MakeLayer
) -> None:
    direct, away = make_layer(rabbitmq.port), make_layer(proxy.port)
    log = PublisherLog("p")
    async with Reader(away, group="room") as reader:
        channel = await away.new_channel()
        proxy.refuse()
        proxy.cut()
        await until(lambda: away.statistics().get("disconnected", 0) > 0, "the break")
        await publish(direct, log, 50, group="room")
        await direct.send(channel, {"type": "direct"})
        await proxy.accept()
        await until(lambda: len(reader.marks) == 50, "what waited")
        assert await away.receive(channel) == {"type": "direct"}
    assert judge_group([log], {"away": reader.marks}).is_clean


@pytest.mark.parametrize("fault", ["swallow", "stall"])
async def test_a_connection_that_is_silently_dead_is_found_out(
    rabbitmq: OwnServer, proxy: ChaosProxy, make_layer: MakeLayer, fault: str
) -> None:
    layer, direct = make_layer(proxy.port, heartbeat=1), make_layer(rabbitmq.port)
    log = PublisherLog("p")
    async with Reader(layer, group="room") as reader, Reader(direct, group="room") as other:
        await publish(layer, log, 10, group="room")
        getattr(proxy, fault)()
        await until(lambda: layer.statistics().get("disconnected", 0) > 0, "the discovery")
        await publish(direct, log, 10, group="room")
        proxy.heal()
        proxy.cut()
        await until(lambda: len(reader.marks) >= 20, "the rest")
        await publish(layer, log, 10, group="room")
        await until(lambda: len(reader.marks) >= 30 and len(other.marks) >= 30, "all")
    assert judge_group([log], {"far": reader.marks, "near": other.marks}).is_clean


async def test_a_broker_that_is_not_there_at_first(make_layer: MakeLayer) -> None:
    layer = make_layer(free_port(), send_timeout=0.2)
    worker = asyncio.create_task(layer.receive("work"))
    channel = await layer.new_channel()
    await layer.group_add("room", channel)
    with pytest.raises(ChannelLayerUnavailable, match="send_timeout"):
        await layer.group_send("room", {"type": "x"})
    with pytest.raises(ChannelLayerUnavailable, match="send_timeout"):
        await layer.send("work", {"type": "x"})
    assert not worker.done()
    worker.cancel()


async def test_a_flood_for_a_process_that_does_not_read_is_bounded(
    rabbitmq: OwnServer, proxy: ChaosProxy, make_layer: MakeLayer
) -> None:
    sender = make_layer(rabbitmq.port)
    slow = make_layer(proxy.port, node_capacity=100)
    channel = await slow.new_channel()
    await slow.group_add("room", channel)
    proxy.refuse()
    proxy.cut()
    await until(lambda: slow.statistics().get("disconnected", 0) > 0, "the break")
    for number in range(300):
        await sender.group_send("room", {"type": "x", "number": number})
    assert sender.statistics()["transport_group_sends_with_full_inbox"] == 200
    await proxy.accept()
    got = [(await slow.receive(channel))["number"] for _ in range(100)]
    assert got == list(range(100))


async def test_a_killed_process_is_gone_and_its_work_goes_to_others(
    rabbitmq: OwnServer, make_layer: MakeLayer, prefix: str
) -> None:
    layer, log = make_layer(rabbitmq.port), PublisherLog("p")
    config = {"url": url(rabbitmq.port), "prefix": prefix, "capacity": 10_000}
    async with Member(BACKEND, config, "queue", "work") as dying:
        await publish(layer, log, 1, channel="work")
        await until(lambda: len(dying.marks) == 1, "the first")
        dying.kill()
    async with Reader(layer, channel="work") as reader:
        await publish(layer, log, 100, channel="work")
        await until(lambda: len(reader.marks) + len(dying.marks) >= 101, "the others")
    assert judge_queue([log], {"dead": dying.marks, "alive": reader.marks}).is_clean


async def restart(server: OwnServer) -> None:
    server.kill()
    await asyncio.to_thread(server.start)


async def test_a_broker_killed_and_started_again_keeps_groups_and_persistent_queues(
    rabbitmq: OwnServer, make_layer: MakeLayer
) -> None:
    near = make_layer(rabbitmq.port, send_timeout=25.0, window=60.0, persistent=True)
    far = make_layer(rabbitmq.port, send_timeout=25.0, window=60.0, persistent=True)
    log, work = PublisherLog("p"), PublisherLog("w")
    gaps: list[Any] = []
    far.add_gap_listener(gaps.append)
    unread = 0

    async def kill_and_restart() -> None:
        nonlocal unread
        await until(lambda: len(log.outcomes) > 200, "traffic")
        unread = len(log.outcomes) - min(len(first.marks), len(second.marks))
        await restart(rabbitmq)

    await publish(near, work, 20, channel="work")
    async with Reader(near, group="room") as first, Reader(far, group="room") as second:
        await asyncio.gather(
            publish(near, log, 400, group="room", pause=every(20, 0.02)), kill_and_restart()
        )
        await quiet([first.marks, second.marks])
    verdict = judge_group([log], {"near": first.marks, "far": second.marks})
    assert [verdict.doubled, verdict.reordered, verdict.strange] == [[], [], []], verdict
    assert len(verdict.lost) <= 2 * unread, f"{verdict}; {unread} lay unread"
    assert not log.marks(Outcome.UNKNOWN), "no send has failed"
    assert gaps == [None]
    async with Reader(far, channel="work") as reader:
        await until(lambda: len(reader.marks) == 20, "what was on disk")
    assert judge_queue([work], {"": reader.marks}).is_clean
