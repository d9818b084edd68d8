"""A client that is cut off for not reading is no failure of its application."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from channels.generic.http import AsyncHttpConsumer
from channels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from channels.kit.types import Receive, Scope, Send
from channels.server.counts import counts
from tests.server.conftest import Serve, settled

PIECE = bytes(1 << 20)
PIECES = 200
HANDSHAKE = (
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
    "Sec-WebSocket-Version: 13",
)


async def plain(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        message: dict[str, Any] = {"type": "http.response.body", "body": PIECE, "more_body": True}
    else:
        await send({"type": "websocket.accept"})
        message = {"type": "websocket.send", "bytes": PIECE}
    for _ in range(PIECES):
        await send(message)


async def task_group(scope: Scope, receive: Receive, send: Send) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(plain(scope, receive, send))


class Page(AsyncHttpConsumer):
    async def handle(self, body: bytes) -> None:
        await self.send_headers(headers=[])
        for _ in range(PIECES):
            await self.send_body(PIECE, more_body=True)


class GroupPage(Page):
    async def handle(self, body: bytes) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(super().handle(body))


class Socket(AsyncWebsocketConsumer):
    async def connect(self) -> None:
        await self.accept()
        for _ in range(PIECES):
            await self.send(bytes_data=PIECE)


class GroupSocket(Socket):
    async def connect(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(super().connect())


class SyncSocket(WebsocketConsumer):
    def connect(self) -> None:
        self.accept()
        for _ in range(PIECES):
            self.send(bytes_data=PIECE)


@pytest.mark.parametrize(
    ("application", "fields"),
    [
        pytest.param(plain, (), id="http"),
        pytest.param(task_group, (), id="http in a task group"),
        pytest.param(Page.as_asgi(), (), id="http consumer"),
        pytest.param(GroupPage.as_asgi(), (), id="http consumer with a task group"),
        pytest.param(plain, HANDSHAKE, id="websocket"),
        pytest.param(task_group, HANDSHAKE, id="websocket in a task group"),
        pytest.param(Socket.as_asgi(), HANDSHAKE, id="consumer"),
        pytest.param(GroupSocket.as_asgi(), HANDSHAKE, id="consumer with a task group"),
        pytest.param(SyncSocket.as_asgi(), HANDSHAKE, id="sync consumer"),
    ],
)
async def test_nothing_is_said_against_an_application_whose_client_was_cut_off(
    serve: Serve,
    caplog: pytest.LogCaptureFixture,
    application: Any,
    fields: tuple[str, ...],
) -> None:
    running = await serve(application, write_timeout=0.1)
    client = await running.connect()
    client.writer.transport.pause_reading()  # type: ignore[attr-defined]
    failures, cuts = counts.application_failures, counts.cut["not_reading"]
    client.get("/", *fields)
    await settled(lambda: counts.cut["not_reading"] > cuts)
    await settled(lambda: running.server.connection_count == 0)
    await settled(lambda: not any("application" in t.get_name() for t in asyncio.all_tasks()))
    assert [r.getMessage() for r in caplog.records if r.levelno >= logging.ERROR] == []
    assert [r.getMessage() for r in caplog.records if r.exc_info] == []
    assert counts.application_failures == failures
