"""HTTP through edge and worker: whole answers, streams, bodies of any size."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from channels.decoupled.edge import Edge
from channels.decoupled.options import EdgeOptions
from channels.generic.http import AsyncHttpConsumer
from channels.kit.types import Receive, Scope, Send
from channels.layers import InMemoryChannelLayer
from tests.decoupled.house import House, house, of_connections
from tests.server.applications import read_body, respond
from tests.server.client import Client, connect
from tests.server.shell import eventually, serve

pytestmark = pytest.mark.usefixtures("link")


@contextlib.asynccontextmanager
async def client_of(here: House) -> AsyncIterator[Client]:
    client = await connect(("127.0.0.1", here.shell.port))
    try:
        yield client
    finally:
        await client.close()


@of_connections
async def mirror(scope: Scope, receive: Receive, send: Send) -> None:
    await respond(send, await read_body(receive), headers=[(b"x-path", scope["raw_path"])])


async def test_requests_of_one_connection_are_answered_in_turn() -> None:
    async with house() as here:
        await here.start_worker(mirror)
        async with client_of(here) as client:
            for body in (b"", b"one", bytes(3 * 1024 * 1024)):
                client.request("POST", "/a%20b", f"Content-Length: {len(body)}", body=body)
                answer = await client.answer()
                assert (answer.status, answer["x-path"]) == (200, "/a%20b")
                assert answer.body == body
        await here.until(connections=0, departed=0)


async def test_a_consumer_streams_and_hears_that_its_client_has_gone() -> None:
    gone = asyncio.Event()

    class Stream(AsyncHttpConsumer):
        async def handle(self, body: bytes) -> None:
            await self.send_headers(headers=[(b"content-type", b"text/plain")])
            await self.send_body(b"first", more_body=True)
            await asyncio.Event().wait()

        async def disconnect(self) -> None:
            gone.set()

    async with house() as here:
        await here.start_worker(Stream)
        async with client_of(here) as client:
            client.get()
            assert (await client.head()).status == 200
            assert await client.chunk() == b"first"
        await asyncio.wait_for(gone.wait(), 10)
        await here.until(connections=0, departed=0)


async def test_a_body_that_nobody_takes_is_left_with_the_client() -> None:
    go = asyncio.Event()

    @of_connections
    async def later(scope: Scope, receive: Receive, send: Send) -> None:
        await go.wait()
        await mirror(scope, receive, send)

    async with house() as here:
        worker = await here.start_worker(later)
        async with client_of(here) as client:
            body = bytes(8 * 1024 * 1024)
            client.request("POST", "/", f"Content-Length: {len(body)}", body=body)
            await eventually(lambda: here.edge.statistics()["unacknowledged"] >= 4)
            before = -1
            while before != (now := here.edge.statistics()["unacknowledged"]):
                before = now
                for _ in range(200):
                    await asyncio.sleep(0)
            (connection,) = worker._connections.values()
            assert connection.mailbox.client_size <= 8, "256 KiB and what one more read brings"
            go.set()
            assert (await client.answer()).body == body


async def test_an_exception_is_answered_with_500_and_a_begun_response_is_cut() -> None:
    @of_connections
    async def fails(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/late":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
        raise LookupError("as it was told")

    async with house() as here:
        await here.start_worker(fails)
        async with client_of(here) as client:
            client.get("/")
            assert (await client.answer()).status == 500
        async with client_of(here) as client:
            client.get("/late")
            assert (await client.head()).status == 200
            assert not (await client.rest()).endswith(b"0\r\n\r\n"), "it must not look whole"
        await here.until(connections=0)


async def test_a_worker_that_stops_finishes_its_requests() -> None:
    go, begun = asyncio.Event(), asyncio.Event()

    @of_connections
    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        begun.set()
        await go.wait()
        await respond(send, b"whole")

    async with house() as here:
        worker = await here.start_worker(slow)
        async with client_of(here) as client:
            client.get()
            await begun.wait()
            stopping = asyncio.create_task(here.stop_worker(worker))
            await eventually(lambda: worker._is_stopping)
            go.set()
            assert (await client.answer()).body == b"whole"
            await stopping


async def test_http_may_be_answered_in_the_edge_s_process() -> None:
    edge = Edge(InMemoryChannelLayer(), EdgeOptions(http="edge"), mirror)
    async with serve(edge) as shell:
        client = await connect(("127.0.0.1", shell.port))
        client.request("POST", "/", "Content-Length: 4", body=b"here")
        assert (await client.answer()).body == b"here"
        await client.close()
    assert "opened" not in edge.statistics()
