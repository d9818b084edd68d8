"""What a request or a message held is freed when it ends, without the garbage collector.

Bodies and messages are larger than anything else that a test process holds in one piece, so that
they can be found among all that the collector knows.
"""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Iterator

import pytest

from channels.consumer import AsyncConsumer
from channels.exceptions import StopConsumer
from channels.generic.http import AsyncHttpConsumer
from channels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from channels.kit.types import Application, Receive, Scope, Send
from tests.server.applications import body, read_body, respond, start
from tests.server.shell import POLL_SECONDS, Shell, dial, eventually, serve
from tests.wire.peer import frame

SIZE = 700_000


@pytest.fixture(autouse=True)
def no_collector() -> Iterator[None]:
    # pytest keeps each record of a log, and with it the traceback.
    logging.disable()
    gc.collect()
    gc.freeze()
    gc.disable()
    yield
    gc.enable()
    logging.disable(logging.NOTSET)


def octets_alive() -> int:
    """Octets in large bytes and strings to which anything refers that was made in this test."""
    found: dict[int, int] = {}
    for holder in gc.get_objects():
        for each in gc.get_referents(holder):
            if isinstance(each, (bytes, bytearray, str)) and len(each) > SIZE // 2:
                found[id(each)] = len(each)
    return sum(found.values())


async def freed(alive_before: int = 0) -> None:
    """Return once nothing large is alive any more; raises TimeoutError."""
    async with asyncio.timeout(POLL_SECONDS):
        while octets_alive() > alive_before:  # noqa: ASYNC110 - nothing announces it
            await asyncio.sleep(0.05)


# HTTP.


async def unread(scope: Scope, receive: Receive, send: Send) -> None:
    await respond(send, b"not read")


async def large(scope: Scope, receive: Receive, send: Send) -> None:
    await read_body(receive)
    await respond(send, b"x" * SIZE)


async def failing(scope: Scope, receive: Receive, send: Send) -> None:
    data = await read_body(receive)
    raise ValueError(f"{len(data)} bytes")


async def failing_in_its_answer(scope: Scope, receive: Receive, send: Send) -> None:
    data = await read_body(receive)
    await send(start())
    await send(body(data, more=True))
    raise ValueError(f"{len(data)} bytes")


async def failing_twice(scope: Scope, receive: Receive, send: Send) -> None:
    data = await read_body(receive)
    try:
        raise ValueError(data)
    except ValueError as error:
        raise RuntimeError("a second one") from error


async def misusing(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.nonsense", "body": await read_body(receive)})


async def listening(scope: Scope, receive: Receive, send: Send) -> None:
    """As Django does: another task waits for the client's end while the answer is sent."""
    data = await read_body(receive)

    async def listen() -> None:
        event = await receive()
        raise RuntimeError(f"{event['type']}, {len(data)}")

    tasks = [asyncio.ensure_future(listen()), asyncio.ensure_future(respond(send, data))]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    try:
        for task in tasks:
            if task.done():
                task.result()
            else:
                task.cancel()
    finally:
        # By their errors they would refer to this frame: a circle of the application's own.
        del task, tasks


class Collecting(AsyncHttpConsumer):
    async def handle(self, body: bytes) -> None:
        await self.send_response(200, body)


class CollectingInVain(AsyncHttpConsumer):
    async def handle(self, body: bytes) -> None:
        raise ValueError(f"{len(body)} bytes")


async def post(shell: Shell) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", shell.port)
    writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % SIZE)
    for _ in range(70):
        writer.write(bytes(SIZE // 70))
    await reader.read(20)
    writer.transport.abort()


@pytest.mark.parametrize(
    "application",
    [
        unread,
        large,
        failing,
        failing_in_its_answer,
        failing_twice,
        misusing,
        listening,
        Collecting.as_asgi(),
        CollectingInVain.as_asgi(),
    ],
    ids=lambda each: getattr(getattr(each, "consumer_class", each), "__name__", ""),
)
async def test_bodies_end_with_their_request(application: Application) -> None:
    async with serve(application) as shell:
        for _ in range(3):
            await post(shell)
        await eventually(lambda: not shell.connections)
        await freed()


async def test_a_long_poll_that_its_client_leaves_frees_what_it_held() -> None:
    called = asyncio.Event()

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        data = await read_body(receive)
        called.set()
        while (await receive())["type"] != "http.disconnect":
            pass
        assert len(data) == SIZE

    async with serve(application) as shell:
        posting = asyncio.ensure_future(post(shell))
        await called.wait()
        posting.cancel()
        await asyncio.wait({posting})
        for connection in list(shell.connections):
            connection.abort()
        await freed()


# WebSocket.


class Talking(AsyncWebsocketConsumer):
    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        word = (text_data or "")[:5]
        if word == "error":
            raise ValueError("no use for it")
        if word == "chain":
            try:
                raise ValueError(text_data)
            except ValueError:
                raise RuntimeError("a second one")  # noqa: B904 - its context is what matters
        if word == "stops":
            raise StopConsumer
        if word == "close":
            await self.close()
        await self.send(text_data)


class TalkingInThreads(WebsocketConsumer):
    def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        word = (text_data or "")[:5]
        if word == "error":
            raise ValueError("no use for it")
        if word == "chain":
            try:
                raise ValueError(text_data)
            except ValueError:
                raise RuntimeError("a second one")  # noqa: B904
        if word == "stops":
            raise StopConsumer
        if word == "close":
            self.close()
        self.send(text_data)


CONSUMERS = pytest.mark.parametrize("consumer", [Talking, TalkingInThreads])


def message(word: str) -> bytes:
    return frame(0x1, word.encode() + bytes(SIZE))


@CONSUMERS
@pytest.mark.parametrize("word", ["error", "chain", "stops", "close"])
async def test_a_message_ends_with_its_connection(consumer: type[AsyncConsumer], word: str) -> None:
    async with serve(consumer.as_asgi()) as shell:
        for _ in range(3):
            async with dial(shell) as client:
                client.send(message(word))
                await client.read_frame()
        await eventually(lambda: not shell.connections)
        await freed()


@CONSUMERS
async def test_a_message_ends_with_its_handler(consumer: type[AsyncConsumer]) -> None:
    async with serve(consumer.as_asgi()) as shell, dial(shell) as client:
        client.send(message("hello"))
        assert await client.read_frame() is not None
        await freed()


async def test_half_a_message_ends_with_its_connection() -> None:
    async with serve(Talking.as_asgi()) as shell:
        async with dial(shell) as client:
            client.send(message("hello")[: SIZE - 10])
            await client.writer.drain()
            await eventually(lambda: octets_alive() > 0)
        await eventually(lambda: not shell.connections)
        await freed()


async def test_a_denial_ends_with_its_connection() -> None:
    async def deny(scope: Scope, receive: Receive, send: Send) -> None:
        kind = "websocket.http.response"
        await receive()
        await send({"type": f"{kind}.start", "status": 401, "headers": []})
        await send({"type": f"{kind}.body", "body": bytes(SIZE)})

    async with serve(deny) as shell:
        async with dial(shell, accepted=False) as client:
            assert await client.read_head() == 401
        await eventually(lambda: not shell.connections)
        await freed()
