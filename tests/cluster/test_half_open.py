"""As installed, without an option: how long a connection may be dead before that is noticed."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any, Final

from channels.testing.proxy import ChaosProxy
from tests.cluster.member import make_layer
from tests.cluster.servers import OwnServer
from tests.cluster.sites import BROKERS, running, site_on
from tests.cluster.traffic import until

#: Seconds; a busy machine has a few more.
BOUND: Final = 15.0
MERCY: Final = 5.0


async def test_every_layer_notices_within_fifteen_seconds(
    rabbitmq: OwnServer, tmp_path: Path
) -> None:
    loop, waits = asyncio.get_running_loop(), {}
    async with contextlib.AsyncExitStack() as stack:
        layers: dict[str, tuple[Any, ChaosProxy]] = {}
        for name in BROKERS:
            server = rabbitmq
            if name != "rabbitmq":
                server = stack.enter_context(running(name, tmp_path / name))
            site = site_on(name, server)
            proxy = await stack.enter_async_context(ChaosProxy(("127.0.0.1", server.port)))
            layer = make_layer(site.backend, site.config(proxy.port))
            stack.push_async_callback(layer.close)
            stack.callback(proxy.heal)
            channel = await layer.new_channel()
            await layer.group_add("room", channel)
            layers[name] = layer, proxy

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
