"""The publish-and-subscribe layer while connections break: what is lost is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from channels.layers import RedisPubSubChannelLayer
from tests.cluster.history import PublisherLog, judge_group, judge_queue
from tests.cluster.member import Member
from tests.cluster.proxy import ChaosProxy
from tests.cluster.servers import OwnServer, redis_server
from tests.cluster.test_redis import beside, counted, kill_connections, restart
from tests.cluster.traffic import Reader, every, publish, quiet, until

BACKEND = "channels_redis.pubsub.RedisPubSubChannelLayer"
MakeLayer = Callable[..., Any]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[OwnServer]:
    with redis_server(tmp_path) as server:
        yield server


@pytest.fixture
async def make_layer() -> AsyncIterator[MakeLayer]:
    made: list[RedisPubSubChannelLayer] = []

    def make(port: int, **config: Any) -> RedisPubSubChannelLayer:
        url = f"redis://127.0.0.1:{port}"
        made.append(RedisPubSubChannelLayer([url], **{"capacity": 10_000, **config}))
        return made[-1]

    yield make
    for layer in made:
        await layer.close()


async def test_processes_share_a_queue_and_a_group(
    server: OwnServer, make_layer: MakeLayer
) -> None:
    layer, work, talk = make_layer(server.port), PublisherLog("work"), PublisherLog("talk")
    config = {"hosts": [f"redis://127.0.0.1:{server.port}"], "capacity": 1000}
    async with (
        Member(BACKEND, config, "queue", "work") as first,
        Member(BACKEND, config, "queue", "work") as second,
        Member(BACKEND, config, "group", "room") as third,
    ):
        await asyncio.gather(
            publish(layer, work, 500, channel="work"), publish(layer, talk, 500, group="room")
        )
        await until(lambda: len(first.marks) + len(second.marks) == 500, "the work")
        await until(lambda: len(third.marks) == 500, "the talk")
    assert judge_queue([work], {"1": first.marks, "2": second.marks}).is_clean
    assert judge_group([talk], {"3": third.marks}).is_clean


async def test_killed_connections_lose_only_what_was_told(
    server: OwnServer, make_layer: MakeLayer
) -> None:
    near, far = make_layer(server.port), make_layer(server.port)
    log = PublisherLog("p")
    gaps: list[Any] = []
    far.add_gap_listener(gaps.append)
    async with Reader(far, group="room") as reader:
        async with beside(kill_connections(server.port, 0.2)):
            await publish(near, log, 1500, group="room", pause=every(10, 0.01))
        told = len(gaps)
        # From here on nothing breaks, so nothing may be lost.
        await until(lambda: far.node.link.subscriptions.is_joined("room"), "the subscription")
        await asyncio.gather(near.new_channel(), far.new_channel())
        await until(lambda: near.node.link.outbox.is_open, "the connection")
        calm = PublisherLog("calm")
        await publish(near, calm, 200, group="room")
        await quiet([reader.marks], 0.3)
    verdict = judge_group([log], {"far": [mark for mark in reader.marks if mark[0] == "p"]})
    assert [verdict.doubled, verdict.reordered, verdict.strange] == [[], [], []], verdict
    assert told >= 3
    assert len(verdict.lost) < 500, f"a reconnection takes milliseconds: {verdict}"
    assert judge_group(
        [calm], {"far": [mark for mark in reader.marks if mark[0] == "calm"]}
    ).is_clean


async def test_hooks_are_called(server: OwnServer, make_layer: MakeLayer) -> None:
    called: list[str] = []

    async def back() -> None:
        called.append("back")

    layer = make_layer(
        server.port, on_disconnect="redis.disconnect", on_reconnect=back, channel_layer=None
    )
    channel = await layer.new_channel()
    await layer.group_add("room", channel)
    assert called == [], "the first connection is none that is back"
    await asyncio.to_thread(server.kill)
    async with asyncio.timeout(10):
        assert await layer.receive(channel) == {"type": "redis.disconnect"}
    await asyncio.to_thread(server.start)
    await until(lambda: called == ["back"], "the hook")
    await layer.group_send("room", {"type": "again"})
    async with asyncio.timeout(10):
        assert await layer.receive(channel) == {"type": "again"}


async def test_a_dead_subscription_on_a_live_server_is_found_out(
    server: OwnServer, make_layer: MakeLayer
) -> None:
    async with ChaosProxy(("127.0.0.1", server.port)) as proxy:
        layer = make_layer(proxy.port, lease=1.0, answer_timeout=0.4)
        other = make_layer(server.port)
        channel = await layer.new_channel()
        await layer.group_add("room", channel)
        proxy.swallow()
        await until(lambda: layer.statistics().get("disconnected", 0) > 0, "the discovery")
        proxy.heal()
        proxy.cut()
        await until(lambda: layer.node.link.outbox.is_open, "the connection")
        await other.group_send("room", {"type": "after"})
        async with asyncio.timeout(10):
            assert await layer.receive(channel) == {"type": "after"}
        await layer.close()


async def test_sends_go_on_as_soon_as_all_processes_are_back(
    server: OwnServer, make_layer: MakeLayer
) -> None:
    patient = {"settle": 45.0, "send_timeout": 60.0}
    near, far = make_layer(server.port, **patient), make_layer(server.port, **patient)
    async with Reader(near, group="room") as first, Reader(far, group="room") as second:
        await counted(near, 2)
        await restart(server)
        async with asyncio.timeout(30):
            await publish(near, PublisherLog("p"), 5, group="room")
        await until(lambda: len(first.marks) == len(second.marks) == 5, "all messages")
