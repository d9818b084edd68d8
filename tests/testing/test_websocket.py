"""The communicator's own behaviour, with applications that say just what a test needs."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from channels.generic.websocket import AsyncWebsocketConsumer
from channels.testing import WebsocketCommunicator


class Echo(AsyncWebsocketConsumer):
    async def receive(self, text_data: Any = None, bytes_data: Any = None) -> None:
        await self.send(text_data=text_data, bytes_data=bytes_data)


def saying(*events: dict[str, Any]) -> Any:
    """An application that answers a connect with these events."""

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        for event in events:
            await send(event)
        await receive()

    return application


ACCEPT = {"type": "websocket.accept"}


async def test_the_scope() -> None:
    communicator = WebsocketCommunicator(
        Echo(), "/caf%C3%A9/?q=a%20b", headers=[(b"x", b"y")], subprotocols=["chat"]
    )
    assert communicator.scope == {
        "type": "websocket",
        "path": "/café/",
        "query_string": b"q=a%20b",
        "headers": [(b"x", b"y")],
        "subprotocols": ["chat"],
    }


async def test_the_version_of_the_specification() -> None:
    communicator = WebsocketCommunicator(Echo(), "/", spec_version="2.3")
    assert communicator.scope["spec_version"] == "2.3"


async def test_a_path_of_bytes_is_refused() -> None:
    with pytest.raises(TypeError, match=r"Expected str, got <class 'bytes'>"):
        WebsocketCommunicator(Echo(), b"/")  # type: ignore[arg-type]


async def test_accept_with_subprotocol_and_headers() -> None:
    communicator = WebsocketCommunicator(
        saying({"type": "websocket.accept", "subprotocol": "chat", "headers": [(b"a", b"b")]}), "/"
    )
    assert await communicator.connect() == (True, "chat")
    assert communicator.response_headers == [(b"a", b"b")]
    await communicator.disconnect()


@pytest.mark.parametrize(
    ("events", "answer"),
    [
        ([{"type": "websocket.close"}], (False, 1000)),
        ([{"type": "websocket.close", "code": 4001}], (False, 4001)),
        (
            [
                {"type": "websocket.http.response.start", "status": 429, "headers": []},
                {"type": "websocket.http.response.body", "body": b"slow ", "more_body": True},
                {"type": "websocket.http.response.body", "body": b"down"},
            ],
            (False, 429),
        ),
    ],
    ids=["close", "close with a code", "denial response"],
)
async def test_a_refusal(events: list[dict[str, Any]], answer: tuple[bool, int]) -> None:
    communicator = WebsocketCommunicator(saying(*events), "/")
    assert await communicator.connect() == answer
    await communicator.disconnect()


@pytest.mark.parametrize(
    "message",
    [{"text_data": "a"}, {"bytes_data": b"a"}, {"text_data": ""}, {"bytes_data": b""}],
    ids=str,
)
async def test_messages_there_and_back_empty_ones_too(message: dict[str, Any]) -> None:
    communicator = WebsocketCommunicator(Echo(), "/")
    assert await communicator.connect() == (True, None)
    await communicator.send_to(**message)
    assert await communicator.receive_from() == next(iter(message.values()))
    await communicator.disconnect()


async def test_json_there_and_back() -> None:
    communicator = WebsocketCommunicator(Echo(), "/")
    await communicator.connect()
    await communicator.send_json_to({"a": [1, "ü"]})
    assert await communicator.receive_json_from() == {"a": [1, "ü"]}
    await communicator.disconnect()


@pytest.mark.parametrize(
    "message", [{}, {"text_data": "a", "bytes_data": b"a"}, {"text_data": b"a"}], ids=str
)
async def test_one_message_is_text_or_bytes(message: dict[str, Any]) -> None:
    communicator = WebsocketCommunicator(Echo(), "/")
    await communicator.connect()
    with pytest.raises(AssertionError):
        await communicator.send_to(**message)
    await communicator.disconnect()


@pytest.mark.parametrize(
    ("event", "error"),
    [
        ({"type": "websocket.close"}, "Expected type 'websocket.send', but was 'websocket.close'"),
        ({"type": "websocket.send"}, "exactly one of them"),
        ({"type": "websocket.send", "text": "a", "bytes": b"a"}, "exactly one of them"),
        ({"type": "websocket.send", "text": b"a"}, "not str"),
        ({"type": "websocket.send", "bytes": "a"}, "not bytes"),
    ],
)
async def test_what_is_no_message_is_told(event: dict[str, Any], error: str) -> None:
    communicator = WebsocketCommunicator(saying(ACCEPT, event), "/")
    await communicator.connect()
    with pytest.raises(AssertionError, match=error):
        await communicator.receive_from()
    await communicator.disconnect()


async def test_bytes_are_no_json() -> None:
    communicator = WebsocketCommunicator(
        saying(ACCEPT, {"type": "websocket.send", "bytes": b"{}"}), "/"
    )
    await communicator.connect()
    with pytest.raises(AssertionError, match="JSON comes as text"):
        await communicator.receive_json_from()
    await communicator.disconnect()


async def test_an_absent_key_and_none_mean_the_same() -> None:
    communicator = WebsocketCommunicator(
        saying(ACCEPT, {"type": "websocket.send", "text": None, "bytes": b"a"}), "/"
    )
    await communicator.connect()
    assert await communicator.receive_from() == b"a"
    await communicator.disconnect()


async def test_a_timeout_ends_the_application() -> None:
    communicator = WebsocketCommunicator(saying(ACCEPT), "/")
    await communicator.connect()
    with pytest.raises(TimeoutError):
        await communicator.receive_from(0.01)
    with pytest.raises(asyncio.CancelledError):
        await communicator.disconnect()


async def test_an_application_that_does_not_end_is_cancelled_by_disconnect() -> None:
    async def lingering(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(ACCEPT)
        await asyncio.Event().wait()

    communicator = WebsocketCommunicator(lingering, "/")
    await communicator.connect()
    await communicator.disconnect(timeout=0.01)
    assert communicator.future.cancelled()
    with pytest.raises(asyncio.CancelledError):
        await communicator.send_to(text_data="late")


@pytest.mark.parametrize(("given", "code"), [({}, 1000), ({"code": 4001}, 4001)])
async def test_the_code_of_a_disconnect(given: dict[str, int], code: int) -> None:
    seen: list[Any] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        seen.append(await receive())

    communicator = WebsocketCommunicator(application, "/")
    await communicator.disconnect(**given)
    assert seen == [{"type": "websocket.disconnect", "code": code}]


async def test_nothing_is_said_until_something_is() -> None:
    communicator = WebsocketCommunicator(Echo(), "/")
    await communicator.connect()
    assert await communicator.receive_nothing(0.01)
    await communicator.send_to(text_data="a")
    assert not await communicator.receive_nothing(10, 0)
    await communicator.disconnect()
