"""The layer on NATS while connections break and the server dies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from channels.exceptions import ChannelLayerUnavailable
from channels.layers import NatsChannelLayer
from channels.layers.nats.connection import Broken, Message
from channels.layers.nats.transport import NatsTransport
from tests.cluster.history import PublisherLog, judge_group, judge_queue
from tests.cluster.member import Member
from tests.cluster.proxy import ChaosProxy
from tests.cluster.servers import OwnServer, free_port, nats_server
from tests.cluster.traffic import Reader, beside, cut, every, publish, quiet, until

BACKEND = "channels.layers.NatsChannelLayer"
MakeLayer = Callable[..., NatsChannelLayer]


def url(port: int) -> str:
    return f"nats://127.0.0.1:{port}"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[OwnServer]:
    with nats_server(tmp_path) as server:
        yield server


@pytest.fixture
async def proxy(server: OwnServer) -> AsyncIterator[ChaosProxy]:
    async with ChaosProxy(("127.0.0.1", server.port)) as proxy:
        yield proxy


@pytest.fixture
async def make_layer() -> AsyncIterator[MakeLayer]:
    made: list[NatsChannelLayer] = []

    def make(port: int, **config: Any) -> NatsChannelLayer:
        made.append(NatsChannelLayer(url(port), **{"capacity": 10_000, **config}))
        return made[-1]

    yield make
    for layer in made:
        await layer.close()


async def test_three_processes_on_one_channel_get_each_message_once(
    server: OwnServer, make_layer: MakeLayer
) -> None:
    layer, log = make_layer(server.port), PublisherLog("p")
    config = {"servers": [url(server.port)], "capacity": 10_000}
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


def cutting(proxy: ChaosProxy, messages: int) -> Callable[[int], float]:
    """Cuts all connections before every so many messages: by progress, so a slow machine has it."""

    def pause(number: int) -> float:
        if number % messages == messages - 1:
            proxy.cut()
        return 0.02 if number % 20 == 0 else 0.0

    return pause


async def test_connections_cut_all_the_time_lose_and_double_nothing_of_a_queue(
    proxy: ChaosProxy, make_layer: MakeLayer
) -> None:
    sender, log = make_layer(proxy.port, send_timeout=20.0), PublisherLog("p")
    workers = [make_layer(proxy.port) for _ in range(2)]
    async with (
        Reader(workers[0], channel="work") as first,
        Reader(workers[1], channel="work") as second,
    ):
        await publish(sender, log, 600, channel="work", pause=cutting(proxy, 40))
        readers = {"1": first.marks, "2": second.marks}
        await until(lambda: sum(map(len, readers.values())) >= 600, "all messages", 40)
        await quiet(list(readers.values()))
    verdict = judge_queue([log], readers)
    assert [verdict.lost, verdict.doubled, verdict.strange] == [[], [], []], verdict
    assert workers[0].statistics()["transport_disconnected"] >= 3


@pytest.mark.parametrize(
    ("is_heard", "others"), [(True, True), (False, True), (False, False)], ids=str
)
async def test_a_reader_away_for_longer_than_ack_wait_loses_and_doubles_nothing(
    server: OwnServer, proxy: ChaosProxy, make_layer: MakeLayer, is_heard: bool, others: bool
) -> None:
    sender, away = make_layer(server.port, ack_wait=1.0), make_layer(proxy.port, ack_wait=1.0)
    log = PublisherLog("p")
    transport = away.node.transport
    assert isinstance(transport, NatsTransport)
    async with Reader(away, channel="work") as far:
        await until(lambda: transport._stream is not None, "its connection")
        connection = transport._connection
        assert connection is not None
        request = connection.request

        def interrupted(subject: str, data: bytes, *more: Any) -> asyncio.Future[Message]:
            """It ends when the server has heard an acknowledgement, or just before."""
            if data != b"+ACK":
                return request(subject, data, *more)
            if is_heard:
                request(subject, data)
                connection.barrier().add_done_callback(lambda _: connection.fail(Broken("test")))
            else:
                connection.fail(Broken("test"))
            proxy.refuse()
            lost: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
            connection.ended.add_done_callback(lambda _: lost.set_exception(Broken("test")))
            return lost

        connection.request = interrupted  # type: ignore[method-assign,assignment]
        await publish(sender, log, 1, channel="work")
        await until(connection.ended.done, "the cut")
        async with Reader(sender, channel="work" if others else "other") as near:
            await asyncio.sleep(1.5)
            await proxy.accept()
            await until(lambda: len(far.marks) + len(near.marks) == 1, "the message")
            await quiet([far.marks, near.marks], 1.5)
        assert len(near.marks) == (others and not is_heard)
    assert judge_queue([log], {"far": far.marks, "near": near.marks}).is_clean


async def test_a_member_that_is_cut_off_misses_messages_and_is_told(
    server: OwnServer, proxy: ChaosProxy, make_layer: MakeLayer
) -> None:
    direct, away = make_layer(server.port), make_layer(proxy.port)
    log = PublisherLog("p")
    gaps: list[Any] = []
    away.add_gap_listener(gaps.append)
    async with Reader(direct, group="room") as near, Reader(away, group="room") as far:
        async with beside(cut(proxy, 0.2)):
            await publish(direct, log, 500, group="room", pause=every(20, 0.02))
        await until(lambda: len(near.marks) == 500, "the one that stayed")
        await quiet([far.marks], 0.3)
    assert judge_group([log], {"near": near.marks}).is_clean
    verdict = judge_group([log], {"far": far.marks})
    assert [verdict.doubled, verdict.reordered, verdict.strange] == [[], [], []], verdict
    assert gaps
    assert set(gaps) == {None}


async def test_a_reliable_member_that_is_cut_off_misses_nothing(
    proxy: ChaosProxy, make_layer: MakeLayer
) -> None:
    layers = [make_layer(proxy.port, reliable=True, send_timeout=20.0) for _ in range(3)]
    log, gaps = PublisherLog("p"), list[Any]()
    for layer in layers:
        layer.add_gap_listener(gaps.append)
    async with Reader(layers[1], group="room") as one, Reader(layers[2], group="room") as two:
        await publish(layers[0], log, 600, group="room", pause=cutting(proxy, 40))
        await until(lambda: len(one.marks) >= 600 and len(two.marks) >= 600, "all", 40)
        await quiet([one.marks, two.marks], 0.3)
    verdict = judge_group([log], {"one": one.marks, "two": two.marks})
    assert verdict.is_clean, verdict
    assert gaps == []
    assert layers[1].statistics()["transport_disconnected"] >= 3


async def test_a_reliable_member_gets_what_was_sent_while_it_was_away_or_is_told(
    server: OwnServer, proxy: ChaosProxy, make_layer: MakeLayer
) -> None:
    config = {"reliable": True, "window": 3.0, "ping_interval": 0.5}
    sender, away = make_layer(server.port, **config), make_layer(proxy.port, **config)
    log, gaps = PublisherLog("p"), list[Any]()
    away.add_gap_listener(gaps.append)
    async with Reader(away, group="room") as reader:
        channel = await away.new_channel()
        proxy.refuse()
        proxy.cut()
        await publish(sender, log, 300, group="room")
        await sender.send(channel, {"type": "direct"})
        await proxy.accept()
        await until(lambda: len(reader.marks) == 300, "what was sent meanwhile")
        assert await away.receive(channel) == {"type": "direct"}
        assert judge_group([log], {"r": reader.marks}).is_clean
        assert gaps == []
        proxy.refuse()
        proxy.cut()
        await publish(sender, log, 1, group="room")
        # Longer than it is kept: the window, and twice the interval of marks.
        await asyncio.sleep(5.0)
        await proxy.accept()
        await until(lambda: bool(gaps), "the gap is told")
        await publish(sender, log, 1, group="room")
        await until(lambda: len(reader.marks) == 301, "what comes later")
    assert gaps == [None]


async def test_a_sender_that_is_cut_off_loses_and_doubles_nothing(
    server: OwnServer, proxy: ChaosProxy, make_layer: MakeLayer
) -> None:
    sender, log = make_layer(proxy.port), PublisherLog("p")
    async with Reader(make_layer(server.port), group="room") as reader:
        async with beside(cut(proxy, 0.15)):
            await publish(sender, log, 1000, group="room", pause=every(20, 0.02))
        await until(lambda: len(reader.marks) >= 1000, "all")
        await quiet([reader.marks], 0.2)
    assert judge_group([log], {"r": reader.marks}).is_clean
    assert sender.statistics()["transport_disconnected"] >= 3


@pytest.mark.parametrize("fault", ["swallow", "stall"])
async def test_a_connection_that_is_silently_dead_is_found_out(
    proxy: ChaosProxy, make_layer: MakeLayer, fault: str
) -> None:
    layer, log = make_layer(proxy.port, ping_interval=0.4, send_timeout=10.0), PublisherLog("p")
    async with Reader(layer, group="room") as reader:
        await publish(layer, log, 10, group="room")
        getattr(proxy, fault)()
        await until(lambda: layer.statistics().get("disconnected", 0) > 0, "the discovery")
        proxy.heal()
        proxy.cut()
        await publish(layer, log, 10, group="room")
        await until(lambda: len(reader.marks) >= 20, "all")
    assert judge_group([log], {"r": reader.marks}).is_clean


async def test_a_server_killed_and_started_again_keeps_persistent_queues(
    server: OwnServer, make_layer: MakeLayer
) -> None:
    layer = make_layer(server.port, persistent=True, send_timeout=10.0)
    log, work = PublisherLog("p"), PublisherLog("w")
    gaps: list[Any] = []
    layer.add_gap_listener(gaps.append)
    await publish(layer, work, 50, channel="work")
    async with Reader(layer, group="room") as reader:
        await publish(layer, log, 50, group="room")
        await until(lambda: len(reader.marks) == 50, "the first half")
        server.kill()
        later = asyncio.create_task(publish(layer, log, 50, group="room"))
        await asyncio.to_thread(server.start)
        await later
        await until(lambda: len(reader.marks) == 100, "the second half")
    assert judge_group([log], {"r": reader.marks}).is_clean
    async with Reader(layer, channel="work") as worker:
        await until(lambda: len(worker.marks) == 50, "what was on disk")
    assert judge_queue([work], {"": worker.marks}).is_clean
    assert gaps == [None]


async def test_a_server_killed_and_started_again_keeps_the_window(
    server: OwnServer, make_layer: MakeLayer
) -> None:
    layer = make_layer(server.port, reliable=True, send_timeout=20.0)
    log, gaps = PublisherLog("p"), list[Any]()
    layer.add_gap_listener(gaps.append)
    async with Reader(layer, group="room") as reader:
        await publish(layer, log, 50, group="room")
        server.kill()
        later = asyncio.create_task(publish(layer, log, 50, group="room"))
        await asyncio.to_thread(server.start)
        await later
        await until(lambda: len(reader.marks) == 100, "all")
    assert judge_group([log], {"r": reader.marks}).is_clean
    assert gaps == []


async def test_a_server_that_is_not_there_at_first(make_layer: MakeLayer) -> None:
    layer = make_layer(free_port(), send_timeout=0.2)
    worker = asyncio.create_task(layer.receive("work"))
    channel = await layer.new_channel()
    await layer.group_add("room", channel)
    for sending in (
        layer.group_send("room", {"type": "x"}),
        layer.send("work", {"type": "x"}),
    ):
        with pytest.raises(ChannelLayerUnavailable, match="send_timeout"):
            await sending
    assert not worker.done()
    worker.cancel()


async def test_a_killed_worker_loses_nothing_that_comes_later(
    server: OwnServer, make_layer: MakeLayer
) -> None:
    layer, log = make_layer(server.port), PublisherLog("p")
    config = {"servers": url(server.port), "capacity": 10_000}
    async with Member(BACKEND, config, "queue", "work") as dying:
        await publish(layer, log, 1, channel="work")
        await until(lambda: len(dying.marks) == 1, "the first")
        dying.kill()
    async with Reader(layer, channel="work") as reader:
        await publish(layer, log, 100, channel="work")
        await until(lambda: len(reader.marks) >= 100, "the others")
    assert judge_queue([log], {"dead": dying.marks, "alive": reader.marks}).is_clean
