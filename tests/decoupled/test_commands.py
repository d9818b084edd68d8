"""`channels interface` and `runworker` as a site runs them: commands over its settings."""

from __future__ import annotations

import asyncio
import os
import re
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect

from tests.processes import Child, free_port

SETTINGS = """
SECRET_KEY = "x" * 50
DEBUG = True
ALLOWED_HOSTS = ["127.0.0.1"]
INSTALLED_APPS = ["channels"]
ROOT_URLCONF = "site_of_commands"
ASGI_APPLICATION = "site_of_commands.application"
CHANNEL_LAYERS = {{"default": {{
    "BACKEND": "channels.layers.LocalChannelLayer", "CONFIG": {{"prefix": "{prefix}"}}
}}}}
"""
SITE = """
import os

from channels.generic.websocket import AsyncWebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from django.http import HttpResponse
from django.urls import path

ANSWER = "first"


class Counter(AsyncWebsocketConsumer):
    state_fields = ("count",)
    count = 0

    async def receive(self, text_data=None, bytes_data=None):
        self.count += 1
        await self.send(f"{ANSWER} {text_data} {self.count}")


def page(request):
    return HttpResponse(f"{ANSWER} page of {os.getpid()}")


urlpatterns = [path("page", page)]
application = ProtocolTypeRouter(
    {"websocket": URLRouter([path("counter", Counter.as_asgi())])}
)
"""

Start = Callable[..., Child]


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """The folder of a site; its code is in a file of its own."""
    (tmp_path / "settings_of_commands.py").write_text(
        SETTINGS.format(prefix=f"commands-{uuid.uuid4().hex[:8]}")
    )
    (tmp_path / "site_of_commands.py").write_text(SITE)
    return tmp_path


@pytest.fixture
def start(site: Path) -> Iterator[Start]:
    """Starts a command in the site's folder; it is ended with the test."""
    with ExitStack() as stack:

        def command(*words: str) -> Child:
            env = {"DJANGO_SETTINGS_MODULE": "settings_of_commands"}
            return stack.enter_context(Child("-m", *words, cwd=site, env=env))

        yield command


async def start_edge(start: Start, *options: str) -> tuple[Child, int]:
    edge = start("channels", "interface", "--port", "0", *options)
    return edge, await asyncio.to_thread(edge.wait_for_port)


async def start_worker(start: Start, *options: str) -> Child:
    worker = start("django", "runworker", "--pythonpath", ".", *options)
    await asyncio.to_thread(worker.wait_for, "Ready: taking connections")
    return worker


async def ask(client: ClientConnection, text: str) -> str:
    await client.send(text)
    return str(await asyncio.wait_for(client.recv(), 20))


async def test_a_worker_that_is_reloaded_keeps_its_sockets(site: Path, start: Start) -> None:
    edge, port = await start_edge(start)
    worker = await start_worker(start, "--reload")
    async with connect(f"ws://127.0.0.1:{port}/counter", open_timeout=20) as client:
        assert await ask(client, "a") == "first a 1"
        code = site / "site_of_commands.py"
        code.write_text(SITE.replace('"first"', '"second"'))
        await asyncio.to_thread(worker.wait_for, "Ready: taking connections", 2)
        # The count went from the old process to the new one; the socket is the same.
        assert await ask(client, "b") == "second b 2"
        code.write_text("it is no Python\n")
        await asyncio.to_thread(worker.wait_for, "SyntaxError")
        # Nobody runs the code now: what the client says waits.
        await client.send("c")
        code.write_text(SITE.replace('"first"', '"third"'))
        assert await asyncio.wait_for(client.recv(), 20) == "third c 3"
    assert edge.process.poll() is None


async def test_http_in_the_edge_needs_no_worker(start: Start) -> None:
    edge, port = await start_edge(start, "--http", "edge")
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        answer = await client.get("/page")
        assert (answer.status_code, answer.text) == (200, f"first page of {edge.process.pid}")
        assert (await client.get("/nothing")).status_code == 404
        worker = await start_worker(start)
        async with connect(f"ws://127.0.0.1:{port}/counter", open_timeout=20) as socket:
            # Sockets go to the worker all the same.
            assert await ask(socket, "a") == "first a 1"
            answer = await client.get("/page")
            assert str(edge.process.pid) in answer.text
    assert worker.process.pid != edge.process.pid


async def test_edge_and_worker_show_their_metrics(start: Start) -> None:
    places = [f"127.0.0.1:{free_port()}" for _ in range(2)]
    _, port = await start_edge(start, "--metrics", places[0])
    await start_worker(start, "--metrics", places[1])
    async with (
        connect(f"ws://127.0.0.1:{port}/counter", open_timeout=20) as client,
        httpx.AsyncClient() as scraper,
    ):
        await ask(client, "a")
        edge, worker = [(await scraper.get(f"http://{place}/metrics")).text for place in places]
    assert value(edge, "channels_edge_connections") == 1
    assert value(edge, "channels_edge_claims_total") == 1
    assert value(edge, "channels_server_open_websockets") == 1
    assert value(worker, "channels_worker_connections") == 1
    assert value(worker, "channels_worker_opened_total") == 1
    handled = value(worker, "channels_consumer_handler_seconds_count{.*websocket_receive.*}")
    assert handled == 1


def value(page: str, name: str) -> float:
    found = re.search(rf"^{name} (\S+)$", page, re.MULTILINE)
    assert found, page
    return float(found[1])


def test_a_port_of_metrics_that_is_taken_is_told(start: Start) -> None:
    port = free_port()
    first = start("django", "runworker", "--pythonpath", ".", "--metrics", str(port))
    first.wait_for("Ready: taking connections")
    second = start("channels", "interface", "--port", "0", "--metrics", str(port))
    assert second.wait() == 1
    assert f"channels interface: error: --metrics {port}: " in second.output
    assert os.strerror(98) in second.output
