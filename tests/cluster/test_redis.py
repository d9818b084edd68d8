"""What only the Redis layers do: sends that wait for the processes that were there, few sockets."""

from __future__ import annotations

import asyncio
import signal
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
    await until(lambda: layer.transport.nodes == nodes, f"{nodes} processes")


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
        await until(lambda: near.transport.is_settling, "the knowledge of it")
        held = asyncio.get_running_loop().time()
        await publish(near, PublisherLog("p"), 1, group="room")
        assert asyncio.get_running_loop().time() - held > 1.2


async def test_hundreds_of_calls_from_threads_share_two_connections(
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
        assert int(connected.split()[0]) - 2 <= 2
        await layer.close()


async def test_members_hear_again_after_redis_forgot_everything(
    site: Site, make_layer: MakeLayer
) -> None:
    """FLUSHALL: nobody is told, and every connection stays."""
    near, far = make_layer(send_timeout=30.0), make_layer(send_timeout=30.0)
    gaps: list[Any] = []
    near.add_gap_listener(gaps.append)
    async with Reader(near, group="room") as first, Reader(far, group="room") as second:
        await counted(near, 2)
        assert redis_command(site.server.port, "FLUSHALL").startswith(b"+OK")
        if site.row.has_window:
            # The sender finds out by its next command, and waits for the others.
            await publish(far, PublisherLog("p"), 5, group="room")
            await until(lambda: len(first.marks) == len(second.marks) == 5, "all messages")
        await until(lambda: gaps, "that something may have been lost")
        await publish(far, PublisherLog("later"), 1, group="room")
        await until(lambda: first.marks[-1:] == second.marks[-1:] == [("later", 0)], "a later one")
        await counted(near, 2)
        async with Reader(near, group="another") as third:
            redis_command(site.server.port, "FLUSHALL")
            late = await near.new_channel()
            await near.group_add("late", late)
            await publish(near, PublisherLog("q"), 1, group="late")
            assert (await near.receive(late))["publisher"] == "q"
            await publish(near, PublisherLog("q"), 1, group="another")
            await until(lambda: third.marks, "a member from before")


async def test_members_hear_again_after_redis_hung_for_longer_than_the_lease(
    site: Site, make_layer: MakeLayer
) -> None:
    """What given-up connections left in their sockets is carried out late, in any order."""
    quick = {"lease": 1.0, "answer_timeout": 0.5, "send_timeout": 0.5}
    near, far = make_layer(**quick), make_layer(**quick)
    gaps: list[Any] = []
    near.add_gap_listener(gaps.append)
    async with Reader(near, group="room") as reader:
        await publish(far, PublisherLog("before"), 1, group="room")
        site.server.pause()
        try:
            await publish(far, PublisherLog("during"), 6, group="room")
        finally:
            site.server.resume()
        log = PublisherLog("after")
        loop = asyncio.get_running_loop()
        until_then = loop.time() + 3.0
        await publish(far, log, 1, group="room", enough=lambda: loop.time() > until_then)
        await publish(far, PublisherLog("last"), 20, group="room")
        await until(
            lambda: sum(publisher == "last" for publisher, _ in reader.marks) == 20, "the last"
        )
        assert gaps, "what may have been lost was not told"


async def test_a_process_that_was_paused_for_longer_than_its_lease_hears_again(
    site: Site, make_layer: MakeLayer
) -> None:
    far = make_layer(lease=1.0)
    async with Member(site.backend, site.config(lease=1.0), "group", "room") as other:
        await publish(far, PublisherLog("before"), 1, group="room")
        await until(lambda: other.marks, "the first")
        await other.halt()
        loop = asyncio.get_running_loop()
        resumes_at = loop.time() + 2.5
        await publish(
            far,
            PublisherLog("during"),
            1,
            group="room",
            pause=lambda _: 0.05,
            enough=lambda: loop.time() > resumes_at,
        )
        other.signal(signal.SIGCONT)
        await publish(
            far,
            PublisherLog("after"),
            1,
            group="room",
            pause=lambda _: 0.05,
            enough=lambda: any(publisher == "after" for publisher, _ in other.marks),
        )
