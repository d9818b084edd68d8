"""Real consumers on a real server, and a real `runworker`, while the broker goes and comes back."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect

from channels.exceptions import ChannelLayerUnavailable
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.layers import LocalChannelLayer, channel_layers
from channels.server import Server, ServerOptions, parse_endpoint
from channels.testing.proxy import ChaosProxy
from tests.cluster.member import Member, make_layer
from tests.cluster.sites import BROKERS, Site, site_on
from tests.cluster.test_local import BACKEND as LOCAL
from tests.cluster.test_local import hub_pid
from tests.cluster.traffic import is_connected, until
from tests.processes import Child

PATIENCE = 30.0
SEND_TIMEOUT = 1.0


class Chat(AsyncWebsocketConsumer):
    """Says to all of a room what it is told, and to its client what it could not say."""

    groups = ("room",)

    async def receive(self, text_data: Any = None, bytes_data: Any = None) -> None:
        if text_data.startswith("alone "):
            await self.send(text_data)
            return
        try:
            await self.channel_layer.group_send("room", {"type": "said", "text": text_data})
        except ChannelLayerUnavailable:
            await self.send("unavailable")

    async def said(self, event: Any) -> None:
        await self.send(event["text"])


@pytest.fixture(params=list(BROKERS))
def site(request: pytest.FixtureRequest, alias: Callable[..., str]) -> Site:
    return site_on(request.param, request.getfixturevalue(BROKERS[request.param].server), alias)


@pytest.fixture
async def served() -> AsyncIterator[Callable[[Any], Awaitable[str]]]:
    """Serve the chat over a layer; gives its address."""
    servers: list[Server] = []
    layers: list[Any] = []

    async def serve(layer: Any) -> str:
        channel_layers.set("default", layer)
        layers.append(layer)
        endpoint = parse_endpoint("tcp:port=0:interface=127.0.0.1")
        servers.append(Server(Chat.as_asgi(), [endpoint], ServerOptions(lifespan="off")))
        await servers[-1].start()
        host, port = servers[-1].addresses[0]
        return f"ws://{host}:{port}/"

    yield serve
    for server in servers:
        await server.stop(5)
    for layer in layers:
        await layer.close()
    channel_layers.set("default", None)


async def heard(socket: ClientConnection, text: str) -> None:
    """Wait until a client has got this, whatever it got before."""
    async with asyncio.timeout(PATIENCE):
        while await socket.recv() != text:
            pass


def errors_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        record.getMessage()
        for record in caplog.records
        if record.levelno >= logging.ERROR or record.exc_info
    ]


async def live_through(
    layer: Any, url: str, down: Callable[[], Any], up: Callable[[], Awaitable[Any]]
) -> None:
    """Two clients who stay, and one who comes while the broker is away."""
    async with connect(url) as one, connect(url) as two:
        await one.send("before")
        await heard(one, "before")
        await heard(two, "before")
        await asyncio.to_thread(down) if down.__name__ == "kill" else down()
        await until(lambda: not is_connected(layer), "the outage", PATIENCE)
        # Sends wait for the stated window, then say so; what needs no layer goes on meanwhile.
        await one.send("into the void")
        await two.send("alone 1")
        await heard(two, "alone 1")
        await heard(one, "unavailable")
        async with connect(url) as late:
            await late.send("alone 2")
            await heard(late, "alone 2")
            await up()
            await until(lambda: is_connected(layer), "the broker", PATIENCE)
            for number in range(3):
                await late.send(f"after {number}")
                for each in (one, two, late):
                    await heard(each, f"after {number}")
            for each in (one, two, late):
                assert each.close_code is None


async def test_consumers_live_through_an_outage(
    site: Site, proxy: ChaosProxy, served: Any, caplog: pytest.LogCaptureFixture
) -> None:
    config = site.config(proxy.port, send_timeout=SEND_TIMEOUT)
    layer = make_layer(site.backend, config)
    url = await served(layer)

    def down() -> None:
        proxy.refuse()
        proxy.cut()

    await live_through(layer, url, down, proxy.accept)
    assert errors_of(caplog) == []
    lines = [record.getMessage() for record in caplog.records if record.name == "channels.layers"]
    assert sum("is out of reach" in line for line in lines) == 1
    assert sum("is connected" in line for line in lines) == 1
    assert layer.statistics()["disconnected"] == 1


async def test_consumers_live_through_the_brokers_death(
    site: Site, served: Any, caplog: pytest.LogCaptureFixture
) -> None:
    layer = make_layer(site.backend, site.config(send_timeout=SEND_TIMEOUT))
    url = await served(layer)

    async def up() -> None:
        await asyncio.to_thread(site.server.start)

    await live_through(layer, url, site.server.kill, up)
    assert errors_of(caplog) == []


async def test_consumers_live_through_the_hubs_death(
    short_path: Path, served: Any, caplog: pytest.LogCaptureFixture
) -> None:
    config = {"directory": str(short_path), "prefix": "consumers"}
    async with Member(LOCAL, config, "group", "bystanders") as hub:
        url = await served(LocalChannelLayer(**config))
        async with connect(url) as one, connect(url) as two:
            await one.send("before")
            await heard(two, "before")
            assert hub_pid(config) == hub.pid
            hub.kill()
            for number in range(20):
                await one.send(f"after {number}")
                await heard(one, f"after {number}")
                await heard(two, f"after {number}")
            assert (one.close_code, two.close_code) == (None, None)
    assert errors_of(caplog) == []


PROJECT = """
import json, os, sys
from channels.consumer import AsyncConsumer
from channels.routing import ChannelNameRouter, ProtocolTypeRouter

SECRET_KEY = "only for tests"
INSTALLED_APPS = ["channels"]
ASGI_APPLICATION = "project.application"
CHANNEL_LAYERS = json.loads(os.environ["LAYERS"])
DATABASES = json.loads(os.environ["DATABASES"])


class Work(AsyncConsumer):
    async def do(self, message):
        # In one write: another thread logs to the same pipe.
        print(f"done {message['number']}\\n", end="", flush=True)


application = ProtocolTypeRouter({"channel": ChannelNameRouter({"jobs": Work.as_asgi()})})
"""


@pytest.fixture
def worker(tmp_path: Path, site: Site) -> Callable[[int], Child]:
    """`runworker jobs` on a layer that reaches its broker at a port; not started."""
    (tmp_path / "project.py").write_text(PROJECT)

    def make(port: int) -> Child:
        layers = {"default": {"BACKEND": site.backend, "CONFIG": site.config(port)}}
        env = {
            "LAYERS": json.dumps(layers),
            "DATABASES": json.dumps(site.databases(port)),
            "DJANGO_SETTINGS_MODULE": "project",
        }
        return Child("-m", "django", "runworker", "jobs", cwd=tmp_path, env=env)

    return make


async def have_done(site: Site, sender: Any, child: Child, number: int) -> None:
    """Send a job until it is done: over Redis one may go with a broken connection, else none."""
    for attempt in range(8):
        assert attempt == 0 or site.name.startswith("redis"), child.output
        await sender.send("jobs", {"type": "do", "number": number})
        patience = 3.0 if site.name.startswith("redis") else PATIENCE
        if await asyncio.to_thread(child.has, rf"^done {number}$", 1, patience):
            return
    raise AssertionError(child.output)


async def test_a_worker_starts_before_its_broker_and_lives_through_outages(
    site: Site, proxy: ChaosProxy, worker: Callable[[int], Child]
) -> None:
    sender = make_layer(site.backend, site.config(send_timeout=PATIENCE))
    proxy.refuse()
    with worker(proxy.port) as child:
        await asyncio.to_thread(child.wait_for, "is out of reach")
        for outage in range(3):
            await proxy.accept()
            await have_done(site, sender, child, outage)
            await asyncio.to_thread(child.wait_for, "is connected", outage + 1)
            proxy.refuse()
            proxy.cut()
            await asyncio.to_thread(child.wait_for, "is out of reach", outage + 2)
        # What was sent while it was away is done when it is back.
        await sender.send("jobs", {"type": "do", "number": 9})
        await proxy.accept()
        await asyncio.to_thread(child.wait_for, "^done 9$")
        status = await asyncio.to_thread(child.stop, signal.SIGTERM)
    await sender.close()
    assert status == 0
    assert "Traceback" not in child.output, child.output
    assert child.output.count("is out of reach") == 4, "once for each outage"


async def test_a_worker_lives_through_the_brokers_death(
    site: Site, worker: Callable[[int], Child]
) -> None:
    sender = make_layer(site.backend, site.config(send_timeout=PATIENCE))
    with worker(site.server.port) as child:
        await sender.send("jobs", {"type": "do", "number": 1})
        await asyncio.to_thread(child.wait_for, "^done 1$")
        await asyncio.to_thread(site.server.kill)
        sending = asyncio.create_task(sender.send("jobs", {"type": "do", "number": 2}))
        await asyncio.to_thread(child.wait_for, "is out of reach")
        await asyncio.to_thread(site.server.start)
        await asyncio.wait_for(sending, PATIENCE)
        await asyncio.to_thread(child.wait_for, "^done 2$")
        status = await asyncio.to_thread(child.stop, signal.SIGTERM)
    await sender.close()
    assert status == 0
    assert "Traceback" not in child.output, child.output
