"""The interface server as an application: its start and end, and other servers under it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from channels.layers import InMemoryChannelLayer, LocalChannelLayer
from channels.legacy.interface.application import InterfaceServer
from channels.server import Server, ServerOptions, parse_endpoint
from channels.testing import ApplicationCommunicator
from tests.tutorial.browsing import get


async def test_the_layer_lives_on_the_servers_loop_and_is_closed_with_it(short_path: Path) -> None:
    layer = LocalChannelLayer(directory=short_path)
    endpoint = parse_endpoint("tcp:port=0:interface=127.0.0.1")
    server = Server(InterfaceServer(layer), [endpoint], ServerOptions(lifespan="on"))
    await server.start()
    assert layer.node.link.owner.current is asyncio.get_running_loop()
    reading = asyncio.create_task(asyncio.to_thread(get, int(server.addresses[0][1] or 0), "/"))
    message = await layer.receive("http.request")
    await layer.send(message["reply_channel"], {"status": 200, "content": b"page"})
    assert await reading == (200, "page")
    await server.stop()
    assert layer.node.link.owner.current is None


async def test_what_is_no_connection_is_refused() -> None:
    with pytest.raises(ValueError, match="type 'mail': expected 'http' or 'websocket'"):
        await InterfaceServer(InMemoryChannelLayer())({"type": "mail"}, never, never)


async def never(*_: Any) -> Any:
    raise AssertionError("not called")


async def test_under_a_server_without_our_shortcuts() -> None:
    """What any other ASGI server offers is enough."""
    layer = InMemoryChannelLayer()
    scope = {"type": "websocket", "path": "/", "headers": [], "scheme": "ws"}
    client = ApplicationCommunicator(InterfaceServer(layer), scope)
    await client.send_input({"type": "websocket.connect"})
    begin = await layer.receive("websocket.connect")
    await layer.send(begin["reply_channel"], {"text": "hi"})
    accepted = await client.receive_output()
    assert accepted["type"] == "websocket.accept"
    assert await client.receive_output() == {"type": "websocket.send", "text": "hi"}
    await client.send_input({"type": "websocket.receive", "text": "ho"})
    assert (await layer.receive("websocket.receive"))["text"] == "ho"
    await client.send_input({"type": "websocket.disconnect", "code": 1000})
    assert (await layer.receive("websocket.disconnect"))["code"] == 1000
    await client.wait()
