from __future__ import annotations

import asyncio

import pytest

from channels.exceptions import StartupFailed
from channels.kit.types import Receive, Scope, Send
from channels.server import Server, ServerOptions, parse_endpoint
from tests.server.applications import echo, respond
from tests.server.conftest import Serve, settled


class Application:
    """Takes part in lifespan and answers with the state."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await respond(send, scope["state"]["pool"].encode())
            scope["state"]["pool"] = "spoilt"
            return
        assert scope["asgi"] == {"version": "3.0", "spec_version": "2.0"}
        self.heard.append((await receive())["type"])
        scope["state"]["pool"] = "full"
        await send({"type": "lifespan.startup.complete"})
        self.heard.append((await receive())["type"])
        await send({"type": "lifespan.shutdown.complete"})


async def test_start_state_and_stop(serve: Serve) -> None:
    application = Application()
    running = await serve(application, lifespan="auto")
    assert application.heard == ["lifespan.startup"]
    client = await running.connect()
    for _ in range(2):
        client.get()
        assert (await client.answer()).body == b"full"
    await running.server.stop()
    assert application.heard == ["lifespan.startup", "lifespan.shutdown"]


async def test_an_application_that_knows_nothing_of_it_is_served(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    client = await (await serve(echo, lifespan="auto")).connect()
    client.get()
    assert (await client.answer()).status == 200
    assert [record for record in caplog.records if record.levelname != "DEBUG"] == []


async def test_an_application_that_breaks_while_it_starts_is_served_with_a_warning(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await receive()
            raise ValueError("no database")
        await echo(scope, receive, send)

    client = await (await serve(application, lifespan="auto")).connect()
    client.get()
    assert (await client.answer()).status == 200
    (record,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert record.exc_info is not None


async def test_an_application_that_says_that_it_cannot_start_is_not_served(serve: Serve) -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    with pytest.raises(StartupFailed, match="no database"):
        await serve(application, lifespan="auto")


async def test_lifespan_can_be_demanded(serve: Serve) -> None:
    with pytest.raises(StartupFailed, match="does not take part"):
        await serve(echo, lifespan="on")


async def takes_every_scope_for_a_connection(scope: Scope, receive: Receive, send: Send) -> None:
    while (await receive())["type"] != "http.request":
        pass
    await respond(send, b"served")


async def test_an_application_that_never_answers_is_served_without(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    application = takes_every_scope_for_a_connection
    client = await (await serve(application, lifespan="auto", startup_timeout=0.05)).connect()
    client.get()
    assert (await client.answer()).body == b"served"
    assert "did not answer lifespan.startup within 0.05 s; serving without" in caplog.text


async def test_an_application_that_must_answer_and_does_not_is_not_served(serve: Serve) -> None:
    application = takes_every_scope_for_a_connection
    with pytest.raises(StartupFailed, match="did not answer"):
        await serve(application, lifespan="on", startup_timeout=0.05)


async def test_a_long_startup_is_told(
    serve: Serve, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("channels.server.lifespan.NOTICE_SECONDS", 0.01)

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await settled(lambda: "Waiting for at most 60 s" in caplog.text)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})

    await serve(application, lifespan="auto")
    assert "serving without" not in caplog.text


async def test_an_application_that_does_not_stop_is_cancelled(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    cancelled = asyncio.Event()

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    running = await serve(application, lifespan="auto", close_timeout=0.05)
    await running.server.stop(0.05)
    assert cancelled.is_set()
    assert "did not stop" in caplog.text


@pytest.mark.parametrize("error", [ValueError("pool lost"), SystemExit(3), KeyboardInterrupt()])
async def test_an_error_after_startup_is_logged_and_the_application_served(
    serve: Serve, caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    fail = asyncio.Event()

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await fail.wait()
            raise error
        await echo(scope, receive, send)

    client = await (await serve(application, lifespan="auto")).connect()
    fail.set()
    await settled(lambda: "lifespan after startup" in caplog.text)
    (record,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert record.exc_info is not None
    assert "in application" in caplog.text
    client.get()
    assert (await client.answer()).status == 200


async def test_an_error_in_the_shutdown_is_logged(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        raise ValueError("pool lost")

    running = await serve(application, lifespan="auto")
    await running.server.stop(1)
    assert "ValueError: pool lost" in caplog.text


async def test_a_stop_cancels_a_start_that_waits(caplog: pytest.LogCaptureFixture) -> None:
    events: list[str] = []

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        events.append((await receive())["type"])
        try:
            await asyncio.Event().wait()
        finally:
            events.append("cancelled")

    endpoint = parse_endpoint("tcp:port=0:interface=127.0.0.1")
    server = Server(application, [endpoint], ServerOptions(lifespan="on"))
    serving = asyncio.ensure_future(server.serve())
    await settled(lambda: bool(events))
    server.request_stop()
    await asyncio.wait_for(serving, 10)
    assert events == ["lifespan.startup", "cancelled"]
    assert server.addresses == []
