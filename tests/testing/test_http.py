"""The request that an application sees, and the response that comes back."""

from __future__ import annotations

from typing import Any

import pytest

from channels.generic.http import AsyncHttpConsumer
from channels.testing import HttpCommunicator


class Mirror(AsyncHttpConsumer):
    async def handle(self, body: bytes) -> None:
        self.seen = dict(self.scope)
        await self.send_headers(status=201, headers=[(b"x-from", b"mirror")])
        await self.send_body(body[:2], more_body=True)
        await self.send_body(body[2:])


async def test_scope_and_response() -> None:
    consumer = Mirror()
    communicator = HttpCommunicator(
        consumer, "post", "/caf%C3%A9/?q=a%20b", body=b"hello", headers=[(b"host", b"x")]
    )
    assert await communicator.get_response() == {
        "status": 201,
        "headers": [(b"x-from", b"mirror")],
        "body": b"hello",
    }
    assert consumer.seen == {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "path": "/café/",
        "query_string": b"q=a%20b",
        "headers": [(b"host", b"x")],
    }
    await communicator.wait()


async def test_the_request_is_sent_once_however_often_the_response_is_asked_for() -> None:
    seen: list[Any] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        seen.append(await receive())
        for status in (100, 200):
            await send({"type": "http.response.start", "status": status})
            await send({"type": "http.response.body"})
        seen.append(await receive())

    communicator = HttpCommunicator(application, "GET", "/")
    assert (await communicator.get_response())["status"] == 100
    assert (await communicator.get_response())["status"] == 200
    await communicator.send_input({"type": "http.disconnect"})
    await communicator.wait()
    assert [each["type"] for each in seen] == ["http.request", "http.disconnect"]


async def test_a_body_is_bytes() -> None:
    with pytest.raises(AssertionError, match="Body is not bytes"):
        HttpCommunicator(Mirror(), "POST", "/", body="text")  # type: ignore[arg-type]


async def test_another_event_than_a_response_is_told() -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.body", "body": b""})

    with pytest.raises(AssertionError, match=r"'http.response.start', but was 'http.response.bo"):
        await HttpCommunicator(application, "GET", "/").get_response()
