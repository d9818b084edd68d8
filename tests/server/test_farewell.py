"""The end of a WebSocket and of a request over each kind of socket: what both sides are told."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect, unix_connect
from websockets.exceptions import ConnectionClosed

from channels.kit.types import Message, Receive, Scope, Send
from channels.server import Endpoint
from channels.server.endpoints import Tls
from tests.server.conftest import Running, Serve, settled


class Noting:
    """Accepts, and keeps the last event of each WebSocket; answers requests when it is let."""

    def __init__(self) -> None:
        self.schemes: list[str] = []
        self.last: list[Message] = []
        self.release = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.schemes.append(scope["scheme"])
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            self.last.append(await receive())
        else:
            await self.release.wait()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"whole"})


class Place:
    """A server at an endpoint, and how to reach it."""

    def __init__(self, running: Running, endpoint: Endpoint) -> None:
        self.running = running
        self.endpoint = endpoint
        tls = endpoint.tls
        self.context = None if tls is None else ssl.create_default_context(cafile=tls.certificate)

    def websocket(self) -> Any:
        if self.endpoint.kind == "unix":
            return unix_connect(self.endpoint.path, "ws://localhost/")
        host, port = self.running.server.addresses[0]
        scheme = "ws" if self.context is None else "wss"
        return connect(f"{scheme}://{host}:{port}/", ssl=self.context)

    async def stream(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self.endpoint.kind == "unix":
            return await asyncio.open_unix_connection(self.endpoint.path)
        host, port = self.running.server.addresses[0]
        return await asyncio.open_connection(host, port, ssl=self.context)


@pytest.fixture
def application() -> Noting:
    return Noting()


@pytest.fixture(params=["tcp", "unix", "tls"])
async def place(
    request: pytest.FixtureRequest, serve: Serve, application: Noting, tls: Tls, tmp_path: Path
) -> Place:
    endpoint = {
        "tcp": Endpoint("tcp", "127.0.0.1"),
        "unix": Endpoint("unix", path=str(tmp_path / "socket")),
        "tls": Endpoint("tcp", "127.0.0.1", tls=tls),
    }[request.param]
    return Place(await serve(application, endpoint, websocket_stop_code=1012), endpoint)


async def test_a_clients_code_and_reason_reach_the_application(
    place: Place, application: Noting
) -> None:
    async with place.websocket() as client:
        await client.close(4123, "enough of it")
    await settled(lambda: bool(application.last))
    (said,) = application.last
    assert (said["code"], said["reason"]) == (4123, "enough of it")


async def test_a_stop_is_told_and_what_is_in_hand_finishes(
    place: Place, application: Noting
) -> None:
    async with place.websocket() as client:
        assert isinstance(client, ClientConnection)
        reader, writer = await place.stream()
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await settled(lambda: len(application.schemes) == 2)
        stop = asyncio.ensure_future(place.running.server.stop(20))
        with pytest.raises(ConnectionClosed) as ended:
            await client.recv()
        assert ended.value.rcvd is not None
        assert ended.value.rcvd.code == 1012
        application.release.set()
        answer = await reader.read()
        writer.close()
        await stop
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"connection: close\r\n" in answer
    assert answer.endswith(b"\r\n\r\nwhole")
    assert [event["code"] for event in application.last] == [1012]
    secure = place.context is not None
    assert sorted(application.schemes) == (["https", "wss"] if secure else ["http", "ws"])
