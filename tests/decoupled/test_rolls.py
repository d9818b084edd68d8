"""Edge and worker compare which connections they have in common, and clear up what one lacks."""

from __future__ import annotations

import contextlib

import pytest

from channels.decoupled import worker as worker_module
from channels.generic.websocket import AsyncWebsocketConsumer
from tests.decoupled.house import house, of_connections
from tests.server.shell import Recorder, dial, eventually, text

pytestmark = pytest.mark.usefixtures("link")


class Echo(AsyncWebsocketConsumer):
    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self.send(text_data, bytes_data)


async def test_a_consumer_whose_connection_the_edge_does_not_know_is_told_1006() -> None:
    there = Recorder()
    async with house() as here:
        worker = await here.start_worker(of_connections(there), roll_interval=0.05)
        async with dial(here.shell):
            await here.until(claims=1)
            await eventually(lambda: worker.statistics()["connections"] == 1)
            (connection,) = here.edge._connections.values()
            here.edge.disown(connection)
            event = await there.until_disconnected()
        assert event == {"type": "websocket.disconnect", "code": 1006, "reason": ""}
        assert here.edge.statistics()["orphans"] == 1
        assert worker.statistics()["orphans"] == 1
        here.edge.forget(connection)


async def test_a_connection_that_two_rolls_have_not_named_is_lost() -> None:
    async with house() as here:
        worker = await here.start_worker(Echo, roll_interval=0.05)
        async with dial(here.shell) as client:
            client.send(text("x"))
            assert await client.read_frame() == (0x81, b"x")
            (connection,) = worker._connections.values()
            worker.ended(connection)
            assert await client.read_close() == 1012
        assert here.edge.statistics()["missing_at_worker"] == 1
        connection.lose()


async def test_a_roll_of_many_connections_comes_in_parts_and_none_is_missed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worker_module, "ROLL_IDS", 2)
    async with house() as here, contextlib.AsyncExitStack() as stack:
        worker = await here.start_worker(Echo, roll_interval=0.05)
        clients = [await stack.enter_async_context(dial(here.shell)) for _ in range(5)]
        rolls = 0

        def count(peer: str, message: dict[str, object]) -> None:
            nonlocal rolls
            rolls += message["is_last"] is True
            on_roll(peer, message)

        on_roll = here.edge._on_roll
        monkeypatch.setattr(here.edge, "_on_roll", count)
        await eventually(lambda: rolls >= 5)
        for client in clients:
            client.send(text("still here"))
            assert await client.read_frame() == (0x81, b"still here")
        found = here.edge.statistics()
        assert (found.get("orphans", 0), found.get("missing_at_worker", 0)) == (0, 0)
        assert worker.statistics()["connections"] == 5
