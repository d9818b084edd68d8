"""The Redis layer while connections break and Redis dies."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import async_to_sync

from channels.exceptions import ChannelLayerUnavailable
from channels.layers import RedisChannelLayer, RedisPubSubChannelLayer
from tests.cluster.history import Outcome, PublisherLog, judge_group, judge_queue
from tests.cluster.member import Member
from tests.cluster.proxy import ChaosProxy
from tests.cluster.servers import OwnServer, free_port, redis_server
from tests.cluster.traffic import Reader, every, publish, quiet, until

BACKEND = "channels_redis.core.RedisChannelLayer"
MakeLayer = Callable[..., Any]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[OwnServer]:
    with redis_server(tmp_path) as server:
        yield server


@pytest.fixture
async def make_layer() -> AsyncIterator[MakeLayer]:
    made: list[RedisChannelLayer] = []

    def make(*ports: int, **config: Any) -> RedisChannelLayer:
        urls = [f"redis://127.0.0.1:{port}" for port in ports]
        made.append(RedisChannelLayer(urls, **{"capacity": 10_000, **config}))
        return made[-1]

    yield make
    for layer in made:
        await layer.close()


def command(port: int, *words: str) -> bytes:
    """One command on a connection of its own."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(" ".join(words).encode() + b"\r\n")
        return connection.recv(65536)


async def kill_connections(port: int, every_seconds: float) -> None:
    """Have the server end all connections, again and again."""
    while True:
        await asyncio.sleep(every_seconds)
        assert command(port, "CLIENT KILL TYPE normal SKIPME yes").startswith(b":")


@contextlib.asynccontextmanager
async def beside(work: Any) -> AsyncIterator[None]:
    """Run something while the body runs."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled(), task.exception()


async def test_three_processes_on_one_channel_get_each_message_once(
    server: OwnServer, make_layer: MakeLayer
) -> None:
    layer, log = make_layer(server.port), PublisherLog("p")
    config = {"hosts": [("127.0.0.1", server.port)]}
    async with (
        Member(BACKEND, config, "queue", "work") as first,
        Member(BACKEND, config, "queue", "work") as second,
        Member(BACKEND, config, "queue", "work") as third,
    ):
        await publish(layer, log, 2000, channel="work")
        readers = {"1": first.marks, "2": second.marks, "3": third.marks}
        await until(lambda: sum(map(len, readers.values())) >= 2000, "all messages")
        await quiet(list(readers.values()), 0.2)
    verdict = judge_queue([log], readers)
    assert verdict.is_clean, verdict
    assert all(len(marks) > 200 for marks in readers.values()), "the work is shared"


async def test_a_killed_worker_loses_nothing_that_comes_later(
    server: OwnServer, make_layer: MakeLayer
) -> None:
    layer, log = make_layer(server.port), PublisherLog("p")
    config = {"hosts": [f"redis://127.0.0.1:{server.port}"]}
    async with Member(BACKEND, config, "queue", "work") as dying:
        await publish(layer, log, 1, channel="work")
        await until(lambda: len(dying.marks) == 1, "the first")
        dying.kill()
    async with Reader(layer, channel="work") as reader:
        await publish(layer, log, 200, channel="work")
        await until(lambda: len(reader.marks) == 200, "the others")
    assert judge_queue([log], {"dead": dying.marks, "alive": reader.marks}).is_clean


async def test_connections_killed_all_the_time_lose_nothing(
    server: OwnServer, make_layer: MakeLayer
) -> None:
    near, far = make_layer(server.port), make_layer(server.port)
    log, other = PublisherLog("near"), PublisherLog("far")
    config = {"hosts": [f"redis://127.0.0.1:{server.port}"], "capacity": 10_000}
    async with (
        Reader(near, group="room") as first,
        Reader(far, group="room") as second,
        Member(BACKEND, config, "group", "room") as third,
    ):
        async with beside(kill_connections(server.port, 0.15)):
            await asyncio.gather(
                publish(near, log, 3000, group="room", pause=every(20, 0.008)),
                publish(far, other, 3000, group="room", pause=every(20, 0.008)),
            )
        readers = {"near": first.marks, "far": second.marks, "process": third.marks}
        await until(lambda: min(map(len, readers.values())) >= 6000, "all messages")
        await quiet(list(readers.values()), 0.2)
    verdict = judge_group([log, other], readers)
    assert verdict.is_clean, verdict
    assert first.marks == second.marks == third.marks, "one order for all"
    assert near.statistics()["transport_disconnected"] >= 5


async def test_queues_double_nothing_when_connections_are_killed(
    server: OwnServer, make_layer: MakeLayer
) -> None:
    sender, log = make_layer(server.port), PublisherLog("p")
    workers = [make_layer(server.port) for _ in range(2)]
    kills = 0

    async def kill() -> None:
        nonlocal kills
        while True:
            await asyncio.sleep(0.1)
            command(server.port, "CLIENT KILL TYPE normal SKIPME yes")
            kills += 1

    async with (
        Reader(workers[0], channel="work") as first,
        Reader(workers[1], channel="work") as second,
    ):
        async with beside(kill()):
            await publish(sender, log, 2000, channel="work", pause=every(20, 0.005))
        readers = {"1": first.marks, "2": second.marks}
        await quiet(list(readers.values()))
    verdict = judge_queue([log], readers)
    assert not verdict.doubled, verdict
    assert not verdict.strange, verdict
    assert not verdict.reordered, verdict
    # What was in an answer to a reader when its connection went.
    assert len(verdict.lost) <= kills * len(workers), verdict


async def test_a_redis_killed_and_started_again_loses_only_what_lay_unread(
    server: OwnServer, make_layer: MakeLayer
) -> None:
    near, far = make_layer(server.port), make_layer(server.port)
    log = PublisherLog("p")
    gaps: list[Any] = []
    far.add_gap_listener(gaps.append)
    unread = 0

    async def kill_and_restart() -> None:
        nonlocal unread
        await until(lambda: len(log.outcomes) > 1500, "traffic")
        unread = len(log.outcomes) - min(len(first.marks), len(second.marks))
        server.kill()
        await asyncio.sleep(0.3)
        await asyncio.to_thread(server.start)

    async with (
        Reader(near, group="room") as first,
        Reader(far, group="room") as second,
    ):
        await asyncio.gather(
            publish(near, log, 4000, group="room", pause=every(20, 0.004)), kill_and_restart()
        )
        await quiet([first.marks, second.marks])
    verdict = judge_group([log], {"near": first.marks, "far": second.marks})
    assert [verdict.doubled, verdict.reordered, verdict.strange] == [[], [], []], verdict
    assert len(verdict.lost) <= 2 * unread, f"{verdict}; {unread} lay unread"
    assert not log.marks(Outcome.UNKNOWN)
    assert gaps == [None]
    assert near.statistics()["given_up"] == 0, "no send has failed"


async def test_a_redis_that_is_not_there_at_first(make_layer: MakeLayer, tmp_path: Path) -> None:
    port = free_port()
    layer = make_layer(port, send_timeout=0.2)
    worker = asyncio.create_task(layer.receive("work"))
    channel = await layer.new_channel()
    await layer.group_add("room", channel)
    with pytest.raises(ChannelLayerUnavailable, match="send_timeout"):
        await layer.group_send("room", {"type": "x"})
    assert not worker.done()
    with redis_server(tmp_path, port=port):
        await until(lambda: layer.node.link.outbox.is_open, "the connection")
        await layer.group_send("room", {"type": "y"})
        await layer.send("work", {"type": "z"})
        async with asyncio.timeout(5):
            assert await layer.receive(channel) == {"type": "y"}
            assert await worker == {"type": "z"}
        await layer.close()


async def counted(layer: RedisChannelLayer | RedisPubSubChannelLayer, nodes: int) -> None:
    """Until a layer has found so many processes on its server."""
    await until(lambda: layer.transport.shards[0].nodes == nodes, f"{nodes} processes")


async def restart(server: OwnServer) -> None:
    """Lose all that Redis had."""
    server.kill()
    await asyncio.to_thread(server.start)


async def test_sends_go_on_as_soon_as_all_processes_are_back(
    server: OwnServer, make_layer: MakeLayer
) -> None:
    patient = {"settle": 45.0, "send_timeout": 60.0}
    near, far = make_layer(server.port, **patient), make_layer(server.port, **patient)
    async with Reader(near, group="room") as first, Reader(far, group="room") as second:
        await counted(near, 2)
        log = PublisherLog("p")
        await restart(server)
        async with asyncio.timeout(30):
            await publish(near, log, 5, group="room")
        await until(lambda: len(first.marks) == len(second.marks) == 5, "all messages")


async def test_sends_wait_for_a_process_that_is_not_back(
    server: OwnServer, make_layer: MakeLayer
) -> None:
    near = make_layer(server.port, settle=1.5, send_timeout=60.0)
    config = {"hosts": [f"redis://127.0.0.1:{server.port}"]}
    async with Reader(near, group="room"), Member(BACKEND, config, "group", "room") as other:
        await counted(near, 2)
        other.kill()
        await restart(server)
        await until(lambda: near.transport.shards[0].line.is_held, "the knowledge of it")
        held = asyncio.get_running_loop().time()
        await publish(near, PublisherLog("p"), 1, group="room")
        assert asyncio.get_running_loop().time() - held > 1.2


@pytest.mark.parametrize("fault", ["swallow", "stall"])
async def test_a_connection_that_is_silently_dead_is_found_out(
    server: OwnServer, make_layer: MakeLayer, fault: str
) -> None:
    direct = make_layer(server.port)
    async with ChaosProxy(("127.0.0.1", server.port)) as proxy:
        layer = make_layer(proxy.port, answer_timeout=0.4, lease=3.0)
        log, before = PublisherLog("p"), proxy.accepted
        async with Reader(layer, group="room") as reader, Reader(direct, group="room") as other:
            await publish(layer, log, 10, group="room")
            getattr(proxy, fault)()
            await until(lambda: layer.statistics().get("disconnected", 0) > 0, "the discovery")
            # What is sent meanwhile waits in the inbox.
            await publish(direct, log, 10, group="room")
            proxy.heal()
            proxy.cut()
            await until(lambda: proxy.accepted > before and len(reader.marks) >= 20, "the rest")
            await publish(layer, log, 10, group="room")
            await until(lambda: len(reader.marks) >= 30 and len(other.marks) >= 30, "all")
        assert judge_group([log], {"far": reader.marks, "near": other.marks}).is_clean
        await layer.close()


async def test_a_paused_redis_loses_nothing(server: OwnServer, make_layer: MakeLayer) -> None:
    layer, log = make_layer(server.port), PublisherLog("p")

    async def pause_once() -> None:
        await until(lambda: len(log.outcomes) > 300, "traffic")
        server.pause()
        await asyncio.sleep(1.0)
        server.resume()

    async with Reader(layer, group="room") as reader:
        await asyncio.gather(
            publish(layer, log, 1000, group="room", pause=every(10, 0.002)), pause_once()
        )
        await until(lambda: len(reader.marks) == 1000, "all")
    assert judge_group([log], {"r": reader.marks}).is_clean


async def test_a_flood_for_a_process_that_does_not_read_is_bounded_and_told(
    server: OwnServer, make_layer: MakeLayer
) -> None:
    sender = make_layer(server.port, node_capacity=100)
    async with ChaosProxy(("127.0.0.1", server.port)) as proxy:
        slow = make_layer(proxy.port, node_capacity=100, lease=3.0)
        gaps: list[Any] = []
        slow.add_gap_listener(gaps.append)
        channel = await slow.new_channel()
        await slow.group_add("room", channel)
        proxy.stall()
        for number in range(400):
            await sender.group_send("room", {"type": "x", "number": number})
        assert command(server.port, f"XLEN asgi:in:{slow.node.id}") == b":100\r\n"
        proxy.heal()
        async with asyncio.timeout(10):
            got = [(await slow.receive(channel))["number"] for _ in range(100)]
        assert got == list(range(100))
        await until(lambda: gaps == [["room"]], "the notice")
        assert sender.statistics()["transport_inboxes_full"] == 300
        await slow.close()


async def test_hundreds_of_calls_from_threads_share_three_connections(
    server: OwnServer, make_layer: MakeLayer
) -> None:
    layer = make_layer(server.port)
    channel = await layer.new_channel()
    await layer.group_add("room", channel)
    with ThreadPoolExecutor(8) as pool:
        loop = asyncio.get_running_loop()
        await asyncio.gather(
            *(
                loop.run_in_executor(
                    pool, async_to_sync(layer.group_send), "room", {"type": "x", "number": number}
                )
                for number in range(500)
            )
        )
    got = {(await layer.receive(channel))["number"] for _ in range(500)}
    assert got == set(range(500))
    connected = command(server.port, "INFO stats").split(b"total_connections_received:")[1]
    # One of them asks this; the first probe of the server was one, too.
    assert int(connected.split()[0]) - 2 <= 3
