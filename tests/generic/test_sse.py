"""Event streams: what is on the wire, what a reconnecting client gets, how they end."""

from __future__ import annotations

from typing import Any

import pytest

from channels.exceptions import InvalidChannelLayerError
from channels.generic.sse import AsyncEventStreamConsumer, encode_event
from channels.kit.types import Headers, Scope
from channels.layers import InMemoryChannelLayer, channel_layers
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


def request(headers: Headers = []) -> Scope:  # noqa: B006 - never changed
    return {"type": "http", "method": "GET", "path": "/events/", "headers": headers}


@pytest.mark.parametrize(
    ("fields", "wire"),
    [
        ({"data": "a"}, b"data: a\n\n"),
        ({"data": ""}, b"data: \n\n"),
        ({"data": "a\nb\r\nc\rd"}, b"data: a\ndata: b\ndata: c\ndata: d\n\n"),
        ({"data": "a\n"}, b"data: a\ndata: \n\n"),
        ({"data": "a\u2028b\x0bc"}, "data: a\u2028b\x0bc\n\n".encode()),
        (
            {"data": "ü", "event": "news", "id": "7", "retry": 500},
            "event: news\nid: 7\nretry: 500\ndata: ü\n\n".encode(),
        ),
        ({"data": None, "retry": 500}, b"retry: 500\n\n"),
        ({"data": "a", "id": ""}, b"id: \ndata: a\n\n"),
    ],
    ids=repr,
)
def test_what_an_event_is_on_the_wire(fields: dict[str, Any], wire: bytes) -> None:
    assert encode_event(**fields) == wire


@pytest.mark.parametrize("value", ["a\nb", "a\rdata: forged", "a\0b"])
@pytest.mark.parametrize("field", ["event", "id"])
def test_a_field_cannot_bring_another(field: str, value: str) -> None:
    with pytest.raises(ValueError, match=f"The {field} of an event is one line"):
        encode_event("a", **{field: value})  # type: ignore[arg-type]


class News(AsyncEventStreamConsumer):
    groups = ["news"]  # noqa: RUF012 - as projects write it

    async def connect(self) -> None:
        if self.last_event_id is not None:
            await self.send_event(f"since {self.last_event_id}")

    async def news(self, event: dict[str, Any]) -> None:
        await self.send_event(event["news"], event="news", id=event["id"])

    async def end(self, event: dict[str, Any]) -> None:
        await self.close()


async def opened(run: ForeignServer) -> ForeignServer:
    run.tell("http.request")
    start = await run.hear()
    assert start["status"] == 200
    headers = dict(start["headers"])
    assert headers[b"content-type"] == b"text/event-stream; charset=utf-8"
    assert headers[b"cache-control"] == b"no-cache, no-transform"
    assert headers[b"x-accel-buffering"] == b"no"
    opening = await run.hear()
    assert opening["body"], "the client is told at once that the stream is open"
    assert opening["more_body"]
    return run


async def test_group_messages_become_events(server: Server, memory: InMemoryChannelLayer) -> None:
    run = await opened(server(News, request()))
    await memory.group_send("news", {"type": "news", "id": "1", "news": {"a": [1]}})
    assert await run.hear() == {
        "type": "http.response.body",
        "body": b'event: news\nid: 1\ndata: {"a": [1]}\n\n',
        "more_body": True,
    }
    await memory.group_send("news", {"type": "news", "id": "2", "news": "plain"})
    assert (await run.hear())["body"] == b"event: news\nid: 2\ndata: plain\n\n"
    run.tell("http.disconnect")
    await run.end()
    assert "news" not in memory.groups


async def test_a_reconnecting_client_says_what_it_saw_last(
    server: Server, memory: InMemoryChannelLayer
) -> None:
    run = await opened(server(News, request([(b"last-event-id", "nü7".encode())])))
    assert (await run.hear())["body"] == "data: since nü7\n\n".encode()
    await run.stop()


async def test_a_first_visit_has_no_last_event(
    server: Server, memory: InMemoryChannelLayer
) -> None:
    consumer = News()
    run = await opened(server(consumer, request()))
    assert consumer.last_event_id is None
    await run.stop()
    assert "news" not in memory.groups


async def test_close_ends_the_stream(server: Server, memory: InMemoryChannelLayer) -> None:
    run = await opened(server(News, request()))
    await memory.group_send("news", {"type": "end"})
    assert await run.hear() == {"type": "http.response.body", "body": b"", "more_body": False}
    await run.end()


async def test_the_time_to_reconnect_is_told_first(server: Server) -> None:
    class Patient(AsyncEventStreamConsumer):
        retry = 60_000

    run = server(Patient, request())
    run.tell("http.request")
    await run.hear()
    assert (await run.hear())["body"] == b"retry: 60000\n\n"
    await run.stop()


async def test_a_silent_stream_is_kept_alive(server: Server) -> None:
    class Silent(AsyncEventStreamConsumer):
        keep_alive = 0.001

    run = await opened(server(Silent, request()))
    for _ in range(3):
        assert await run.hear() == {
            "type": "http.response.body",
            "body": b":\n\n",
            "more_body": True,
        }
    run.tell("http.disconnect")
    await run.end()


async def test_without_a_layer_the_stream_stays_open_for_its_client(server: Server) -> None:
    run = await opened(server(AsyncEventStreamConsumer, request()))
    assert not run.task.done()
    run.tell("http.disconnect")
    await run.end()


async def test_groups_need_a_layer(server: Server) -> None:
    run = server(News, request())
    run.tell("http.request")
    with pytest.raises(InvalidChannelLayerError):
        await run.end()
