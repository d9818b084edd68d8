"""Which loop a layer's connections live on: a server's and a worker's, never a test's."""

import asyncio
from typing import Any

import pytest
from django.test import override_settings

from channels.consumer import AsyncConsumer
from channels.layers import InMemoryChannelLayer, channel_layers
from channels.worker import Worker
from tests.consumer.stubs import ForeignServer
from tests.layers.loopback import LoopbackBroker, LoopbackChannelLayer


class Quiet(AsyncConsumer):
    async def websocket_connect(self, event: dict[str, Any]) -> None:
        await self.send({"type": "websocket.accept"})


@pytest.mark.parametrize("is_served", [True, False])
async def test_a_served_connection_brings_its_loop(is_served: bool) -> None:
    layer = LoopbackChannelLayer(LoopbackBroker())
    scope: dict[str, Any] = {"type": "websocket", "path": "/"}
    if is_served:
        scope["server"] = ("127.0.0.1", 80)
    with override_settings(CHANNEL_LAYERS={}):
        channel_layers.set("default", layer)
        run = ForeignServer(Quiet.as_asgi(), scope)
        run.tell("websocket.connect")
        await run.hear()
        is_here = layer.node.link.owner.current is asyncio.get_running_loop()
        assert is_here is is_served
        await run.stop()
        channel_layers.set("default", None)
    await layer.close()


def test_a_worker_brings_its_loop_and_closes_the_layer() -> None:
    broker = LoopbackBroker()
    layer = LoopbackChannelLayer(broker)
    seen: list[bool] = []

    class Job(AsyncConsumer):
        async def job(self, message: dict[str, Any]) -> None:
            seen.append(layer.node.link.owner.current is asyncio.get_running_loop())
            worker.request_stop()

    other = LoopbackChannelLayer(broker)
    other.sync.send("jobs", {"type": "job"})
    worker = Worker(Job, ["jobs"], layer)
    worker.run()
    assert seen == [True]
    assert layer.node.id not in broker.nodes
    asyncio.run(other.close())


async def test_a_layer_without_connections_needs_no_loop() -> None:
    assert not InMemoryChannelLayer().adopt_loop()
