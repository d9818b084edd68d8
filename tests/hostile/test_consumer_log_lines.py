"""What a client chose forges no line of a log, drives no terminal, and is cut in length."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from django.urls import path

from channels.consumer import AsyncConsumer, SyncConsumer
from channels.generic.http import AsyncHttpConsumer
from channels.kit.mailbox import MailboxBounds
from channels.kit.types import Message, Scope
from channels.layers import channel_layers
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import OriginValidator
from channels.worker import Worker
from tests.applications import Recorder, call
from tests.consumer.stubs import OurServer, StubLayer

FORGED = "FORGED 2026-11-27 00:00:00,000 CRITICAL"
HOSTILE = "/" + "".join(
    f"{sign}{FORGED}" for sign in ("\n", "\r", "\x85", "\u2028", "\x0b", "\x1b[31m", "\u202e", "\0")
)
HOSTILE += "x" * 10_000
#: Of a line without its traceback.
LONGEST = 2_000


@pytest.fixture(autouse=True)
def only_harmless_lines(caplog: pytest.LogCaptureFixture) -> Any:
    channel_layers.backends["default"] = StubLayer()  # type: ignore[assignment]
    yield
    del channel_layers.backends["default"]
    records = caplog.get_records("call")
    assert records
    for record in records:
        line = record.getMessage()
        assert line.isprintable()
        assert len(line) < LONGEST
        whole = logging.Formatter().format(record)
        assert not any(each.startswith(FORGED) for each in whole.splitlines())
        assert all(each.isprintable() for each in whole.split("\n"))


def websocket(**more: Any) -> Scope:
    return {"type": "websocket", "path": HOSTILE, "headers": [], **more}


class Failing(AsyncConsumer):
    async def websocket_connect(self, message: Message) -> None:
        raise LookupError("mine")


class SyncFailing(SyncConsumer):
    def websocket_connect(self, message: Message) -> None:
        raise LookupError("mine")


@pytest.mark.parametrize("consumer", [Failing, SyncFailing])
async def test_the_path_of_a_failing_consumer(consumer: Any) -> None:
    with pytest.raises(LookupError):
        await call(consumer.as_asgi(), websocket(), {"type": "websocket.connect"})


async def test_a_messages_type() -> None:
    for kind in (HOSTILE, f"send{HOSTILE}"):
        with pytest.raises(ValueError, match="type"):
            await call(AsyncConsumer().as_asgi(), websocket(), {"type": kind})


async def test_the_path_of_a_consumer_that_is_cut() -> None:
    class Slow(AsyncConsumer):
        close_timeout = 0.0

        async def websocket_connect(self, message: Message) -> None:
            await asyncio.Event().wait()

        async def websocket_disconnect(self, message: Message) -> None:
            pass

    run = OurServer(Slow, websocket())
    run.tell("websocket.connect")
    await asyncio.sleep(0)
    run.tell("websocket.disconnect")
    await run.end()


async def test_the_path_of_a_consumer_that_reads_too_slowly() -> None:
    layer: Any = channel_layers.backends["default"]

    class Full(AsyncConsumer):
        mailbox_bounds = MailboxBounds(capacity=1, overflow="close")

        async def websocket_connect(self, message: Message) -> None:
            for _ in range(3):
                layer.put(self.channel_name, {"type": "any.message"})

        async def any_message(self, message: Message) -> None:
            pass

    run = OurServer(Full, websocket())
    run.tell("websocket.connect")
    assert await run.hear() == {"type": "websocket.close", "code": 1013}
    run.tell("websocket.disconnect")
    with pytest.raises(ValueError, match="No handler"):
        await run.end()


@pytest.mark.parametrize("root", ["", "/app\n" + FORGED])
async def test_a_path_without_a_route(root: str) -> None:
    inner: Any = Recorder()
    router = URLRouter([path("chat/", inner)])
    stack = ProtocolTypeRouter({"websocket": router, "http": router})
    await call(stack, websocket(root_path=root))
    await call(stack, websocket(type="http", root_path=root))


async def test_an_origin() -> None:
    origin = HOSTILE.encode()
    await call(OriginValidator(Recorder(), ["a.example"]), websocket(headers=[(b"origin", origin)]))


async def test_the_path_of_a_body_that_is_too_large(settings: Any) -> None:
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 1
    await call(
        AsyncHttpConsumer.as_asgi(), websocket(type="http"), {"type": "http.request", "body": b"xx"}
    )


async def test_what_a_workers_application_sends() -> None:
    async def application(scope: Scope, receive: Any, send: Any) -> None:
        await send({"type": HOSTILE})

    layer = channel_layers.backends["default"]
    worker = Worker(application, ["jobs"], layer)
    with pytest.raises(NotImplementedError) as refused:
        await worker.application_send({"channel": "jobs"}, {"type": HOSTILE})
    logging.getLogger("django.channels").error("%s", refused.value)
