"""As installed, without an option: how long a connection may be dead before that is noticed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, Final

import pytest

from channels.testing.proxy import ChaosProxy
from tests.cluster.member import make_layer
from tests.cluster.sites import BROKERS, site_on
from tests.cluster.traffic import until

#: Seconds; a busy machine has a few more.
BOUND: Final = 15.0
MERCY: Final = 5.0


async def test_every_layer_notices_within_fifteen_seconds(
    request: pytest.FixtureRequest, alias: Callable[..., str]
) -> None:
    loop, waits = asyncio.get_running_loop(), {}
    async with contextlib.AsyncExitStack() as stack:
        layers: dict[str, tuple[Any, ChaosProxy]] = {}
        servers = {row.server: request.getfixturevalue(row.server) for row in BROKERS.values()}
        sites = [site_on(name, servers[row.server], alias) for name, row in BROKERS.items()]
        for site in sites:
            target = "127.0.0.1", site.server.port
            proxy = await stack.enter_async_context(ChaosProxy(target))
            layer = make_layer(site.backend, site.config(proxy.port))
            stack.push_async_callback(layer.close)
            stack.callback(proxy.heal)
            channel = await layer.new_channel()
            await layer.group_add("room", channel)
            layers[site.name] = layer, proxy

        async def notice(name: str) -> None:
            layer, proxy = layers[name]
            proxy.swallow()
            began = loop.time()
            await until(lambda: layer.statistics().get("disconnected"), name, BOUND + MERCY)
            waits[name] = loop.time() - began

        await asyncio.gather(*map(notice, layers))
    assert waits.keys() == BROKERS.keys()
    # The machine's own delays are the same for all; the designs' are not.
    assert min(waits.values()) > 1.0, "a connection that is alive was given up"
