"""A process's lease in Redis: what a connection that was given up still brings is void."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from channels.backends.redis import lua, scripts
from tests.cluster.history import PublisherLog
from tests.cluster.sites import Site, redis_command
from tests.cluster.traffic import Reader, publish, until

MakeLayer = Callable[..., Any]
pytestmark = pytest.mark.parametrize("site", ["redis"], indirect=True)


async def test_a_command_of_a_former_connection_is_refused(
    site: Site, make_layer: MakeLayer
) -> None:
    layer = make_layer(linger=60.0)
    client: Any = Redis(port=site.server.port)
    async with Reader(layer, group="room") as reader, client as redis:
        transport, node = layer.transport, layer.node.id
        former = transport.token
        assert redis_command(site.server.port, "CLIENT KILL TYPE normal SKIPME yes")
        await until(lambda: transport.token != former, "another connection")
        await publish(layer, PublisherLog("p"), 1, group="room")
        base = f"{layer.prefix}:"
        for script in set(scripts.ALL) - {scripts.OPEN}:
            command = scripts.evaluation(script, f"{base}al:{node}", former, base, node)
            with pytest.raises(ResponseError, match=lua.STALE):
                await redis.execute_command(*command)
        await publish(layer, PublisherLog("q"), 1, group="room")
        await until(lambda: len(reader.marks) == 2, "both messages")


async def test_a_lease_that_was_lost_is_noticed_and_told(site: Site, make_layer: MakeLayer) -> None:
    """As after a pause of the process, of Redis, or of the machine."""
    near, far = make_layer(), make_layer()
    gaps: list[Any] = []
    near.add_gap_listener(gaps.append)
    async with Reader(near, group="room") as reader:
        await publish(far, PublisherLog("before"), 1, group="room")
        transport = near.transport
        lease = f"{near.prefix}:al:{near.node.id}"
        assert redis_command(site.server.port, "DEL", lease) == b":1\r\n"
        # This one finds no lease, and takes the process out of the group.
        await publish(far, PublisherLog("lost"), 1, group="room")
        await until(lambda: gaps, "the gap")
        await until(lambda: transport.joined, "the groups again")
        await publish(far, PublisherLog("after"), 1, group="room")
        await until(lambda: ("after", 0) in reader.marks, "the last")


async def test_a_broken_connection_is_no_loss(site: Site, make_layer: MakeLayer) -> None:
    near, far = make_layer(), make_layer()
    gaps: list[Any] = []
    near.add_gap_listener(gaps.append)
    async with Reader(near, group="room") as reader:
        transport = near.transport
        for _ in range(3):
            former = transport.token
            assert redis_command(site.server.port, "CLIENT KILL TYPE normal SKIPME yes")
            await publish(far, PublisherLog("p"), 1, group="room")
            await until(lambda former=former: transport.token != former, "another connection")  # type: ignore[misc]
        await until(lambda: len(reader.marks) == 3, "all messages")
        assert not gaps
