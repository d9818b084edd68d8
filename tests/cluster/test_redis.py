"""What only the Redis layers do: sends that wait for the processes that were there, few sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import async_to_sync

from tests.cluster.history import PublisherLog
from tests.cluster.member import Member
from tests.cluster.servers import OwnServer, redis_server
from tests.cluster.sites import Site, redis_command, site_on
from tests.cluster.traffic import Reader, publish, until

MakeLayer = Callable[..., Any]
pytestmark = pytest.mark.parametrize("site", ["redis", "redis-pubsub"], indirect=True)


async def counted(layer: Any, nodes: int) -> None:
    """Until a layer has found so many processes on its server."""
    await until(lambda: layer.transport.shards[0].nodes == nodes, f"{nodes} processes")


async def restart(server: OwnServer) -> None:
    """Lose all that Redis had."""
    server.kill()
    await asyncio.to_thread(server.start)


async def test_sends_go_on_as_soon_as_all_processes_are_back(
    site: Site, make_layer: MakeLayer
) -> None:
    patient = {"settle": 45.0, "send_timeout": 60.0}
    near, far = make_layer(**patient), make_layer(**patient)
    async with Reader(near, group="room") as first, Reader(far, group="room") as second:
        await counted(near, 2)
        await restart(site.server)
        async with asyncio.timeout(30):
            await publish(near, PublisherLog("p"), 5, group="room")
        await until(lambda: len(first.marks) == len(second.marks) == 5, "all messages")


async def test_sends_wait_for_a_process_that_is_not_back(site: Site, make_layer: MakeLayer) -> None:
    near = make_layer(settle=1.5, send_timeout=60.0)
    async with (
        Reader(near, group="room"),
        Member(site.backend, site.config(), "group", "room") as other,
    ):
        await counted(near, 2)
        other.kill()
        await restart(site.server)
        await until(lambda: near.transport.shards[0].line.is_held, "the knowledge of it")
        held = asyncio.get_running_loop().time()
        await publish(near, PublisherLog("p"), 1, group="room")
        assert asyncio.get_running_loop().time() - held > 1.2


async def test_hundreds_of_calls_from_threads_share_three_connections(
    site: Site, tmp_path: Path, alias: Callable[..., str]
) -> None:
    with redis_server(tmp_path) as server:
        layer = site_on(site.name, server, alias).make()
        channel = await layer.new_channel()
        await layer.group_add("room", channel)
        with ThreadPoolExecutor(8) as pool:
            loop, send = asyncio.get_running_loop(), async_to_sync(layer.group_send)
            sends = (
                loop.run_in_executor(pool, send, "room", {"type": "x", "number": number})
                for number in range(500)
            )
            await asyncio.gather(*sends)
        got = {(await layer.receive(channel))["number"] for _ in range(500)}
        assert got == set(range(500))
        connected = redis_command(server.port, "INFO stats")
        connected = connected.split(b"total_connections_received:")[1]
        # One of them asks this; the first probe of the server was one, too.
        assert int(connected.split()[0]) - 2 <= 3
        await layer.close()
