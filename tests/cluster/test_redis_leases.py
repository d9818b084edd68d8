"""A process's lease in Redis: what a connection that was given up still brings is void."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from channels.backends.redis import scripts
from channels.backends.redis.line import STALE
from tests.cluster.history import PublisherLog
from tests.cluster.sites import Site, redis_command
from tests.cluster.traffic import Reader, publish, until

MakeLayer = Callable[..., Any]
pytestmark = pytest.mark.parametrize("site", ["redis"], indirect=True)


async def carry_out(redis: Any, script: str, keys: Sequence[str], *arguments: Any) -> Any:
    return await redis.execute_command(*scripts.evaluation(script, keys, *arguments))


async def test_a_command_of_a_former_connection_is_refused(
    site: Site, make_layer: MakeLayer
) -> None:
    layer = make_layer(linger=60.0)
    async with Reader(layer, group="room") as reader, Redis(port=site.server.port) as redis:
        calls = layer.transport.shards[0].calls
        former = calls.token
        assert redis_command(site.server.port, "CLIENT KILL TYPE normal SKIPME yes")
        await until(lambda: calls.token != former, "another connection")
        await publish(layer, PublisherLog("p"), 1, group="room")
        lease, base = calls.keys.lease(calls.node), calls.keys.base
        for script, arguments in (
            (scripts.LEAVE, (former, base, calls.node, "room")),
            (scripts.JOIN, (former, base, calls.node, 1000, "elsewhere")),
            (scripts.CLOSE, (former,)),
        ):
            with pytest.raises(ResponseError, match=STALE):
                await carry_out(redis, script, (lease,), *arguments)
        renewal = [calls.keys.epoch, lease, *["x"] * 3]
        with pytest.raises(ResponseError, match=STALE):
            await carry_out(redis, scripts.RENEW, renewal, 9000, 9000, 9000, former)
        await publish(layer, PublisherLog("q"), 1, group="room")
        await until(lambda: len(reader.marks) == 2, "both messages")


async def test_a_lease_that_was_lost_is_noticed_and_told(site: Site, make_layer: MakeLayer) -> None:
    """As after a pause of the process, of Redis, or of the machine."""
    near, far = make_layer(), make_layer()
    gaps: list[Any] = []
    near.add_gap_listener(gaps.append)
    async with Reader(near, group="room") as reader:
        await publish(far, PublisherLog("before"), 1, group="room")
        calls = near.transport.shards[0].calls
        assert redis_command(site.server.port, "DEL", calls.keys.lease(calls.node)) == b":1\r\n"
        # This one finds no lease, and takes the process out of the group.
        await publish(far, PublisherLog("lost"), 1, group="room")
        await until(lambda: gaps, "the gap")
        await until(lambda: calls.joined, "the groups again")
        await publish(far, PublisherLog("after"), 1, group="room")
        await until(lambda: ("after", 0) in reader.marks, "the last")


async def test_a_broken_connection_is_no_loss(site: Site, make_layer: MakeLayer) -> None:
    near, far = make_layer(), make_layer()
    gaps: list[Any] = []
    near.add_gap_listener(gaps.append)
    async with Reader(near, group="room") as reader:
        calls = near.transport.shards[0].calls
        for _ in range(3):
            former = calls.token
            assert redis_command(site.server.port, "CLIENT KILL TYPE normal SKIPME yes")
            await publish(far, PublisherLog("p"), 1, group="room")
            await until(lambda former=former: calls.token != former, "another connection")  # type: ignore[misc]
        await until(lambda: len(reader.marks) == 3, "all messages")
        assert not gaps
