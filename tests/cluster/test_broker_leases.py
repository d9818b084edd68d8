"""Leases and delays of every layer with a server while connections, processes and brokers die.

Each case runs over all rows of `sites.BROKERS` that have queues of their own.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from tests.cluster.proxy import ChaosProxy
from tests.cluster.sites import BROKERS, Restart, Site
from tests.cluster.traffic import Breaker, beside, finish, until

MakeLayer = Callable[..., Any]
RESTARTS = [
    pytest.param(name, restart, id="-".join([name, *restart.options]))
    for name in BROKERS
    for restart in BROKERS[name].restarts
]


def delivery(site: Site, patience: float = 1.0) -> dict[str, Any]:
    """Of "jobs": what was in hand comes again after so long, and as often as it takes."""
    patience = max(patience, site.row.visibility_timeout)
    return {"jobs": {"visibility_timeout": patience, "max_attempts": 50, "retry_delay": 0.05}}


@pytest.mark.parametrize("site", BROKERS, indirect=True)
async def test_connections_that_break_all_the_time_lose_no_lease_and_no_delayed_message(
    site: Site, proxy: ChaosProxy, make_layer: MakeLayer
) -> None:
    breaker, done, sent = Breaker(site, proxy), Counter[int](), 0
    layers = [make_layer(breaker.port, delivery=delivery(site)) for _ in range(3)]
    sender, *workers = layers
    async with beside(*(finish(layer, done) for layer in workers for _ in range(4))):
        async with breaker.cutting(*layers):
            while sent < site.row.many // 2 or not breaker.is_enough():
                message = {"type": "x", "number": sent}
                await sender.send("jobs", message, delay=sent % 3 * 0.3 * site.row.delays)
                sent += 1
                await asyncio.sleep(0.002)
        await until(lambda: len(done) == sent, "all are done", 40)
    assert sender.statistics()["disconnected"] > 2
    # Doubled: what was in hand, and what was done when the word of it was lost.
    assert sum(done.values()) - sent <= 8 * breaker.cuts


@pytest.mark.parametrize("site", BROKERS, indirect=True)
async def test_what_a_vanished_process_had_comes_to_another(
    site: Site, proxy: ChaosProxy, make_layer: MakeLayer
) -> None:
    # As long as the one that vanished takes to connect again.
    options = {"delivery": delivery(site, 3.0)}
    steady, vanished = make_layer(**options), make_layer(proxy.port, **options)
    for number in range(3):
        await steady.send("jobs", {"type": "x", "number": number})
    lost = [await asyncio.wait_for(vanished.receive_leased("jobs"), 10) for _ in range(2)]
    assert [message["number"] for message, _ in lost] == [0, 1]
    proxy.refuse()
    proxy.cut()
    found: dict[int, Any] = {}
    for _ in range(3):
        message, lease = await asyncio.wait_for(steady.receive_leased("jobs"), 20)
        found[message["number"]] = lease
        if message["number"] == 2:
            assert await lease.ack()
    assert {number: lease.attempts for number, lease in found.items()} == {0: 2, 1: 2, 2: 1}
    await proxy.accept()
    for _, lease in lost:
        assert not await lease.ack(), "it was too late, and is known to be"
    for number in range(2):
        assert await found[number].ack(), "the late word took nothing away"


@pytest.mark.parametrize(("site", "restart"), RESTARTS, indirect=["site"])
async def test_a_broker_killed_and_started_again(
    site: Site, make_layer: MakeLayer, restart: Restart
) -> None:
    options = {**restart.options, "delivery": delivery(site)}
    layer, other = make_layer(**options), make_layer(**options)
    await layer.send("jobs", {"type": "x", "number": 0})
    _, lease = await asyncio.wait_for(layer.receive_leased("jobs"), 10)
    await layer.send("jobs", {"type": "x", "number": 1}, delay=0.5 * site.row.delays)
    await layer.send("jobs", {"type": "x", "number": 2})
    await asyncio.to_thread(site.server.kill)
    await asyncio.to_thread(site.server.start)
    await layer.send("jobs", {"type": "x", "number": 3})
    done, kept = Counter[int](), {0, 1, 2, 3} if restart.keeps_queues else {3}
    async with beside(finish(other, done)):
        await until(lambda: done.keys() >= kept, "what must come", 40)
        assert not await lease.ack(), "it was over"
    assert done.keys() == kept, "the others went with the broker"
