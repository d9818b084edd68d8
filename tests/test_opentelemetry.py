"""Spans over a real server, as an SDK's exporter gets them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from asgiref.sync import async_to_sync
from django.test import override_settings
from opentelemetry import trace as api
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from channels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from channels.kit.tracing import TRACE_KEY, trace_of, tracing
from channels.kit.types import Receive, Scope, Send
from channels.layers import InMemoryChannelLayer, get_channel_layer
from channels.layers.codec import Codec
from channels.opentelemetry import HandlerTracer, trace
from channels.server import Server, ServerOptions, parse_endpoint
from tests.cluster.traffic import until
from tests.server.applications import respond

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
PARENT_ID = 0x0AF7651916CD43DD8448EB211C80319C
exporter = InMemorySpanExporter()


@pytest.fixture(scope="module", autouse=True)
def provider() -> None:
    """The process's; it can be set once."""
    found = TracerProvider()
    found.add_span_processor(SimpleSpanProcessor(exporter))
    api.set_tracer_provider(found)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    exporter.clear()
    configs = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
    with override_settings(CHANNEL_LAYERS=configs):
        yield
    tracing.tracer = None


def spans(name: str) -> list[ReadableSpan]:
    return [span for span in exporter.get_finished_spans() if span.name == name]


def one(name: str) -> ReadableSpan:
    (span,) = spans(name)
    return span


def trace_id(span: ReadableSpan) -> int:
    return int(span.context.trace_id)


class Chat(AsyncWebsocketConsumer):
    groups = ("room",)

    async def connect(self) -> None:
        if self.scope["path"] == "/closed":
            await self.close()
        elif self.scope["path"] == "/broken":
            raise LookupError("as it was told")
        else:
            await self.accept()

    async def receive(self, text_data: Any = None, bytes_data: Any = None) -> None:
        if text_data == "fail":
            raise LookupError("as it was told")
        await self.channel_layer.group_send("room", {"type": "news", "id": text_data})

    async def news(self, event: Any) -> None:
        assert TRACE_KEY not in event
        await self.send(text_data=event["id"])


class SyncChat(WebsocketConsumer):
    groups = ("room",)

    def receive(self, text_data: Any = None, bytes_data: Any = None) -> None:
        async_to_sync(self.channel_layer.group_send)("room", {"type": "news", "id": text_data})

    def news(self, event: Any) -> None:
        self.send(text_data=event["id"])


async def site(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        consumer = SyncChat if scope["path"] == "/sync" else Chat
        await consumer.as_asgi()(scope, receive, send)
    elif scope["path"] == "/broken":
        raise LookupError("as it was told")
    else:
        await respond(send, b"hello")


@pytest.fixture
async def server() -> AsyncIterator[str]:
    endpoint = parse_endpoint("tcp:port=0:interface=127.0.0.1")
    server = Server(trace(site), [endpoint], ServerOptions(lifespan="off"))
    await server.start()
    yield "127.0.0.1:{1}".format(*server.addresses[0])
    await server.stop(1)


async def test_a_request_continues_the_clients_trace(server: str) -> None:
    async with httpx.AsyncClient(base_url=f"http://{server}") as client:
        await client.get("/a?secret=1", headers={"traceparent": PARENT})
        await client.get("/broken")
    good, bad = spans("GET")
    assert trace_id(good) == PARENT_ID
    assert good.kind is SpanKind.SERVER
    attributes = dict(good.attributes or {})
    assert attributes["http.response.status_code"] == 200
    assert attributes["url.path"] == "/a"
    assert bad.status.status_code is StatusCode.ERROR
    assert bad.events[0].name == "exception"


@pytest.mark.parametrize(("path", "consumer"), [("/", "Chat"), ("/sync", "SyncChat")])
async def test_a_message_carries_the_trace_to_the_handlers_of_a_group(
    server: str, path: str, consumer: str
) -> None:
    headers = {"traceparent": PARENT}
    async with connect(f"ws://{server}{path}", additional_headers=headers) as first:
        # Ended when it is answered, and not with the WebSocket.
        await until(lambda: bool(spans("WEBSOCKET")), "the handshake's span")
        handshake = one("WEBSOCKET")
        assert trace_id(handshake) == PARENT_ID
        assert dict(handshake.attributes or {})["http.response.status_code"] == 101
        async with connect(f"ws://{server}{path}") as second:
            await first.send("hello")
            assert await first.recv() == await second.recv() == "hello"
            await until(lambda: len(spans(f"{consumer}.news")) == 2, "both spans")
    joined = spans(f"{consumer}.websocket_connect")[0]
    assert joined.parent is not None
    assert joined.parent.span_id == handshake.context.span_id
    received = one(f"{consumer}.websocket_receive")
    assert received.parent is None
    assert received.links[0].context.span_id == handshake.context.span_id
    for news in spans(f"{consumer}.news"):
        assert news.kind is SpanKind.CONSUMER
        assert news.parent is not None
        assert news.parent.span_id == received.context.span_id
    # None of them stays current for what comes next.
    assert not api.get_current_span().get_span_context().is_valid


@pytest.mark.parametrize(("path", "status"), [("/closed", 403), ("/broken", None)])
async def test_a_handshake_that_is_refused(server: str, path: str, status: int | None) -> None:
    with pytest.raises(InvalidStatus):
        await connect(f"ws://{server}{path}")
    await until(lambda: bool(spans("WEBSOCKET")), "the handshake's span")
    handshake = one("WEBSOCKET")
    assert (handshake.attributes or {}).get("http.response.status_code") == status
    assert (handshake.status.status_code is StatusCode.ERROR) == (path == "/broken")


async def test_an_error_of_a_handler_is_its_spans(server: str) -> None:
    async with connect(f"ws://{server}/") as client:
        await client.send("fail")
        with pytest.raises(ConnectionClosed):
            await client.recv()
    await until(lambda: bool(spans("Chat.websocket_receive")), "the handler's span")
    failed = one("Chat.websocket_receive")
    assert failed.status.status_code is StatusCode.ERROR
    assert one("WEBSOCKET").status.status_code is StatusCode.UNSET


def test_a_handlers_span_is_current_until_its_end() -> None:
    chat = Chat()
    chat.scope = {"type": "websocket"}
    span = HandlerTracer().begin(chat, {"type": "news"})
    assert api.get_current_span().get_span_context().is_valid
    span.end(None)
    assert not api.get_current_span().get_span_context().is_valid
    assert one("Chat.news").status.status_code is StatusCode.UNSET


async def test_frames_still_pass_straight_to_sockets(server: str) -> None:
    layer = get_channel_layer()
    async with connect(f"ws://{server}/") as client:
        await until(lambda: bool(spans("Chat.websocket_connect")), "it has joined")
        before = layer.statistics()["delivered_as_frames"]
        with api.get_tracer("test").start_as_current_span("outer"):
            await layer.group_send("room", {"type": "websocket.send", "text": "as it is"})
        assert await client.recv() == "as it is"
    assert layer.statistics()["delivered_as_frames"] == before + 1


@pytest.mark.parametrize("is_own", [True, False])
async def test_a_reader_of_a_channel_sees_no_trace(is_own: bool) -> None:
    trace(site)
    layer = get_channel_layer()
    channel = await layer.new_channel() if is_own else "work"
    with api.get_tracer("test").start_as_current_span("outer") as outer:
        await layer.send(channel, {"type": "do", "id": 1})
    message = await layer.receive(channel)
    assert message == {"type": "do", "id": 1}
    # A consumer that a worker gives it to goes on with it.
    assert f"{outer.get_span_context().trace_id:032x}" in trace_of(message)["traceparent"]


async def test_a_message_on_lease_carries_the_trace() -> None:
    trace(site)
    layer: Any = InMemoryChannelLayer(delivery={"work": "at-least-once"})
    with api.get_tracer("test").start_as_current_span("outer"):
        await layer.send("work", {"type": "do"})
    message, lease = await layer.receive_leased("work")
    async with lease:
        assert message == {"type": "do"}
        assert trace_of(message)
    await layer.close()


def test_a_process_without_a_tracer_sees_no_trace_either() -> None:
    trace(site)
    with api.get_tracer("test").start_as_current_span("outer"):
        data = Codec().encode({"type": "x"})
        # No handler gets it, and every byte goes through the broker.
        frame = Codec().encode({"type": "websocket.send", "text": "x"})
    assert TRACE_KEY.encode() in data
    assert TRACE_KEY.encode() not in frame
    tracing.tracer = None
    found = Codec().decode(data)
    assert found == {"type": "x"}
    assert type(found) is dict


@pytest.mark.parametrize("forged", [1, None, [], {"traceparent": 5, 6: "x"}, {"traceparent": "?"}])
async def test_a_forged_trace_is_none(server: str, forged: Any) -> None:
    layer = get_channel_layer()
    async with connect(f"ws://{server}/") as client:
        await until(lambda: bool(spans("Chat.websocket_connect")), "it has joined")
        await layer.group_send("room", {"type": "news", "id": "x", TRACE_KEY: forged})
        assert await client.recv() == "x"
    await until(lambda: bool(spans("Chat.news")), "the handler's span")
    assert one("Chat.news").parent is None


def test_without_the_package_the_error_says_what_to_install() -> None:
    code = "import sys; sys.modules['opentelemetry'] = None; import channels.opentelemetry"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "pip install opentelemetry-api" in done.stderr.splitlines()[-1]
