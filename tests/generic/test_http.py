"""HTTP consumers: whole answers, streams, answers that come later; and clients that go."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from channels.generic.http import AsyncHttpConsumer
from channels.generic.sse import AsyncEventStreamConsumer
from channels.kit.types import Scope
from channels.layers import InMemoryChannelLayer, channel_layers
from channels.testing import HttpCommunicator
from tests.applications import serving
from tests.consumer.stubs import ForeignServer, OurServer

Server = type[ForeignServer]


@pytest.fixture
def memory() -> InMemoryChannelLayer:
    layer = InMemoryChannelLayer()
    channel_layers.backends["default"] = layer
    return layer


@pytest.fixture(params=[ForeignServer, OurServer], ids=["foreign server", "our server"])
def server(request: pytest.FixtureRequest) -> Server:
    kind: Server = request.param
    return kind


def request() -> Scope:
    return {"type": "http", "method": "GET", "path": "/", "headers": []}


async def test_a_whole_response() -> None:
    class Hello(AsyncHttpConsumer):
        async def handle(self, body: bytes) -> None:
            self.saw = body
            await self.send_response(200, b"hello", headers=[(b"content-type", b"text/plain")])

    consumer = Hello()
    communicator = HttpCommunicator(consumer, "POST", "/", body=b"question")
    assert await communicator.get_response() == {
        "status": 200,
        "headers": [(b"content-type", b"text/plain")],
        "body": b"hello",
    }
    await communicator.wait()
    assert consumer.saw == b"question"


@pytest.mark.parametrize("headers", [{b"a": b"b", b"c": b"d"}, [(b"a", b"b"), (b"c", b"d")], None])
async def test_headers_as_a_dict_or_as_pairs(headers: Any) -> None:
    class Headed(AsyncHttpConsumer):
        async def handle(self, body: bytes) -> None:
            await self.send_response(404, b"", headers=headers)

    response = await HttpCommunicator(Headed.as_asgi(), "GET", "/").get_response()
    assert response["status"] == 404
    assert response["headers"] == ([(b"a", b"b"), (b"c", b"d")] if headers else [])


async def test_the_body_is_handled_once_it_is_whole(server: Server) -> None:
    class Collect(AsyncHttpConsumer):
        async def handle(self, body: bytes) -> None:
            await self.send_response(200, b"|".join([*self.body, body]))

    run = server(Collect, request())
    run.tell("http.request", body=b"a", more_body=True)
    run.tell("http.request", more_body=True)
    run.tell("http.request", body=b"b", more_body=False)
    await run.hear()
    assert (await run.hear())["body"] == b"a|b|ab"
    await run.end()


class Measured(AsyncHttpConsumer):
    async def handle(self, body: bytes) -> None:
        await self.send_response(200, str(len(body)).encode())


class Larger(Measured):
    max_body_bytes = 20


class Boundless(Measured):
    max_body_bytes = None


class Events(AsyncEventStreamConsumer):
    """A stream whose opening is a request with a body."""


@pytest.mark.parametrize(
    ("consumer", "setting", "size", "status"),
    [
        (Measured, 10, 10, 200),
        (Measured, 10, 11, 413),
        (Measured, None, 1000, 200),
        (Larger, 10, 20, 200),
        (Larger, None, 21, 413),
        (Boundless, 10, 1000, 200),
        (Events, 10, 11, 413),
    ],
)
async def test_a_collected_body_is_bounded(
    server: Server,
    settings: Any,
    caplog: pytest.LogCaptureFixture,
    consumer: type[AsyncHttpConsumer],
    setting: int | None,
    size: int,
    status: int,
) -> None:
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = setting
    run = server(consumer, dict(request(), path="/up\nload"))
    for _ in range(size):
        run.tell("http.request", body=b"x", more_body=True)
    run.tell("http.request", body=b"", more_body=False)
    assert (await run.hear())["status"] == status
    body = await run.hear()
    assert body["body"] == (str(size).encode() if status == 200 else b"Content Too Large")
    assert not body["more_body"]
    await run.end()
    said = [each.getMessage() for each in caplog.records]
    if status == 200:
        assert said == []
    else:
        (line,) = said
        assert line.startswith(r"/up\nload is answered with 413: its body is larger than ")


async def test_a_body_over_the_bound_is_not_kept(settings: Any) -> None:
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 100_000
    sent = 0

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < 50_000_000:
            sent += 65_536
            yield bytes(65_536)

    async with serving(Measured.as_asgi()) as host, httpx.AsyncClient() as client:
        tracemalloc.start()
        try:
            answer = await client.post(f"http://{host}/", content=chunks())
            assert answer.status_code == 413
        except httpx.TransportError:
            # The server may close before the client has ended, and before it has read the answer.
            assert sent < 50_000_000
        finally:
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
    assert peak < 3_000_000


async def test_a_stream(server: Server) -> None:
    class Stream(AsyncHttpConsumer):
        async def handle(self, body: bytes) -> None:
            await self.send_headers(headers={b"x": b"y"})
            await self.send_body(b"a", more_body=True)
            await self.send_body(b"b")

    run = server(Stream, request())
    run.tell("http.request")
    assert [await run.hear() for _ in range(3)] == [
        {"type": "http.response.start", "status": 200, "headers": [(b"x", b"y")]},
        {"type": "http.response.body", "body": b"a", "more_body": True},
        {"type": "http.response.body", "body": b"b", "more_body": False},
    ]
    await run.end()


async def test_only_bytes_are_a_body() -> None:
    class Text(AsyncHttpConsumer):
        async def handle(self, body: bytes) -> None:
            await self.send_response(200, "text")  # type: ignore[arg-type]

    communicator = HttpCommunicator(Text.as_asgi(), "GET", "/")
    with pytest.raises(AssertionError, match="Body is not bytes"):
        await communicator.get_response()


class Noted(AsyncHttpConsumer):
    """Says when it was disconnected, and whether its handler was cancelled."""

    def __init__(self) -> None:
        super().__init__()
        self.log: list[str] = []
        self.began = asyncio.Event()

    async def wait(self) -> None:
        self.began.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.log.append("cancelled")
            raise

    async def disconnect(self) -> None:
        self.log.append("disconnect")


async def test_disconnect_is_called_after_the_response(server: Server) -> None:
    class Hello(Noted):
        async def handle(self, body: bytes) -> None:
            await self.send_response(200, b"")

    consumer = Hello()
    run = server(consumer, request())
    run.tell("http.request")
    run.tell("http.disconnect")
    await run.end()
    assert consumer.log == ["disconnect"]


async def test_an_error_in_handle_is_raised_after_disconnect(server: Server) -> None:
    class Broken(Noted):
        async def handle(self, body: bytes) -> None:
            raise LookupError("no such page")

    consumer = Broken()
    run = server(consumer, request())
    run.tell("http.request")
    with pytest.raises(LookupError, match="no such page"):
        await run.end()
    assert consumer.log == ["disconnect"]


async def test_a_class_without_handle_says_so() -> None:
    communicator = HttpCommunicator(AsyncHttpConsumer.as_asgi(), "GET", "/")
    with pytest.raises(NotImplementedError, match="handle"):
        await communicator.get_response()


class LongPoll(Noted):
    async def handle(self, body: bytes) -> None:
        await self.channel_layer.group_add("news", self.channel_name)
        self.began.set()

    async def news(self, event: dict[str, Any]) -> None:
        if event["text"] == "not for you":
            return
        await self.send_response(200, event["text"].encode())


async def test_a_later_message_brings_the_answer(
    server: Server, memory: InMemoryChannelLayer
) -> None:
    consumer = LongPoll()
    run = server(consumer, request())
    run.tell("http.request")
    await consumer.began.wait()
    await memory.group_send("news", {"type": "news", "text": "not for you"})
    await memory.group_send("news", {"type": "news", "text": "hello"})
    assert (await run.hear())["type"] == "http.response.start"
    assert (await run.hear())["body"] == b"hello"
    await run.end()
    assert consumer.log == ["disconnect"]
    assert "news" not in memory.groups


async def test_a_long_poll_ends_with_its_client(
    server: Server, memory: InMemoryChannelLayer
) -> None:
    consumer = LongPoll()
    run = server(consumer, request())
    run.tell("http.request")
    await consumer.began.wait()
    run.tell("http.disconnect")
    await run.end()
    assert consumer.log == ["disconnect"]
    assert run.sent.empty()
    assert "news" not in memory.groups


async def test_without_a_layer_nothing_is_waited_for(server: Server) -> None:
    class Silent(Noted):
        async def handle(self, body: bytes) -> None: ...

    consumer = Silent()
    run = server(consumer, request())
    run.tell("http.request")
    await run.end()
    assert consumer.log == ["disconnect"]


async def test_a_stream_is_cancelled_as_soon_as_its_client_goes(server: Server) -> None:
    class Stream(Noted):
        close_timeout = 1000.0

        async def handle(self, body: bytes) -> None:
            await self.send_headers()
            await self.send_body(b"a", more_body=True)
            await self.wait()

    consumer = Stream()
    run = server(consumer, request())
    run.tell("http.request")
    await consumer.began.wait()
    run.tell("http.disconnect")
    await run.end()
    assert consumer.log == ["cancelled", "disconnect"]


async def test_a_stream_that_begins_after_its_client_went_is_cancelled(server: Server) -> None:
    go = asyncio.Event()

    class Stream(Noted):
        close_timeout = 1000.0

        async def handle(self, body: bytes) -> None:
            self.began.set()
            await go.wait()
            await self.send_headers()
            await self.send_body(b"a", more_body=True)
            await self.wait()

    consumer = Stream()
    run = server(consumer, request())
    run.tell("http.request")
    await consumer.began.wait()
    run.tell("http.disconnect")
    await asyncio.sleep(0)
    go.set()
    await run.end()
    assert consumer.log == ["cancelled", "disconnect"]


async def test_a_send_to_a_client_that_has_gone_is_the_end(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    class Late(Noted):
        async def handle(self, body: bytes) -> None:
            self.base_send = gone
            await self.send_response(200, b"")

    async def gone(message: Any) -> None:
        raise BrokenPipeError("gone")

    consumer = Late()
    run = server(consumer, request())
    run.tell("http.request")
    await run.end()
    assert consumer.log == ["disconnect"]
    assert caplog.records == []


async def test_work_that_has_not_begun_to_answer_gets_its_time(server: Server) -> None:
    go = asyncio.Event()

    class Work(Noted):
        close_timeout = 1000.0

        async def handle(self, body: bytes) -> None:
            self.began.set()
            await go.wait()
            self.log.append("done")

    consumer = Work()
    run = server(consumer, request())
    run.tell("http.request")
    await consumer.began.wait()
    run.tell("http.disconnect")
    for _ in range(5):
        await asyncio.sleep(0)
    go.set()
    await run.end()
    assert consumer.log == ["done", "disconnect"]


async def test_as_asgi_makes_an_instance_for_each_request() -> None:
    made: list[AsyncHttpConsumer] = []

    class Noted(AsyncHttpConsumer):
        async def handle(self, body: bytes) -> None:
            made.append(self)
            await self.send_response(200, b"")

    application = Noted.as_asgi()
    for _ in range(2):
        await HttpCommunicator(application, "GET", "/").get_response()
    first, second = made
    assert first is not second


async def test_callables_that_return_futures_will_do() -> None:
    sent: list[Any] = []
    loop = asyncio.get_running_loop()

    def ready(value: Any) -> asyncio.Future[Any]:
        future = loop.create_future()
        future.set_result(value)
        return future

    events = [{"type": "http.request"}, {"type": "http.disconnect"}]

    class Hello(AsyncHttpConsumer):
        async def handle(self, body: bytes) -> None:
            await self.send_response(200, b"hello")

    def send(message: Any) -> asyncio.Future[Any]:
        sent.append(message)
        return ready(None)

    await Hello.as_asgi()(request(), lambda: ready(events.pop(0)), send)
    assert [each["type"] for each in sent] == ["http.response.start", "http.response.body"]
