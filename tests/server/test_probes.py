from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from channels.exceptions import InvalidOption
from channels.kit.types import Receive, Scope, Send
from channels.server import ServerOptions
from channels.server.counts import counts
from channels.server.probes import PROBE_CONNECTIONS, Readiness, readiness
from tests.server.applications import echo, respond
from tests.server.conftest import Running, Serve, settled

PROBES = {"health_path": "/healthz", "ready_path": "/readyz"}


async def ask(running: Running, path: str) -> tuple[int, bytes]:
    client = await running.connect()
    client.get(path)
    answer = await client.answer()
    assert await client.rest() == b""
    return answer.status, answer.body


@pytest.fixture
def reasons(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Why this process is not ready, for the test to say."""
    found: list[str] = []
    monkeypatch.setattr(readiness, "_conditions", [lambda: found])
    return found


async def test_they_are_answered_before_the_application(serve: Serve) -> None:
    running = await serve(echo, **PROBES)
    before = counts.responses.total()
    assert await ask(running, "/healthz") == (200, b"ok\n")
    assert await ask(running, "/readyz?verbose") == (200, b"ok\n")
    # Neither the access log nor the metrics are full of them.
    assert running.records == []
    assert counts.responses.total() == before


async def test_without_paths_the_application_gets_everything(serve: Serve) -> None:
    seen = []

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["path"])
        await respond(send, b"mine")

    running = await serve(application, ready_path="/readyz")
    client = await running.connect()
    client.get("/healthz")
    assert (await client.answer()).body == b"mine"
    assert seen == ["/healthz"]
    assert len(running.records) == 1


async def test_they_take_get_and_head_alone(serve: Serve) -> None:
    running = await serve(echo, **PROBES)
    client = await running.connect()
    client.send(b"POST /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
    answer = await client.answer()
    assert (answer.status, answer["allow"]) == (405, "GET, HEAD")


async def test_conditions_that_are_not_met_are_named(serve: Serve, reasons: list[str]) -> None:
    running = await serve(echo, **PROBES)
    reasons += ["the database is away", "the cache is cold"]
    assert await ask(running, "/readyz") == (503, b"the database is away; the cache is cold\n")
    # A process that is restarted for it would not help.
    assert await ask(running, "/healthz") == (200, b"ok\n")
    reasons.clear()
    assert await ask(running, "/readyz") == (200, b"ok\n")


async def test_a_server_that_drains_lives_and_is_not_ready(serve: Serve) -> None:
    may_end = asyncio.Event()

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await may_end.wait()
        await respond(send, b"late")

    running = await serve(application, **PROBES)
    busy, health, ready = [await running.connect() for _ in range(3)]
    busy.get()
    # Their requests are under way when the drain begins.
    for client in (health, ready):
        client.send(b"GET ")
    await settled(lambda: running.server.connection_count == 3)
    running.server._begin_drain(5)
    stopping = asyncio.ensure_future(running.server.stop())
    await asyncio.sleep(0)
    health.send(b"/healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    ready.send(b"/readyz HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (await health.answer()).status == 200
    answer = await ready.answer()
    assert (answer.status, answer.body) == (503, b"the server stops\n")
    may_end.set()
    assert (await busy.answer()).body == b"late"
    await stopping


async def test_a_full_server_answers_probes_and_nothing_else(serve: Serve) -> None:
    running = await serve(echo, max_connections=2, **PROBES)
    held = [await running.connect() for _ in range(2)]
    await settled(lambda: running.server.connection_count == 2)
    refused = counts.connections_refused
    assert await ask(running, "/healthz") == (200, b"ok\n")
    status, body = await ask(running, "/")
    assert (status, body) == (503, b"Too many connections.")
    client = await running.connect()
    client.send(
        b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    assert (await client.answer()).status == 503
    assert counts.connections_refused == refused + 2
    for each in held:
        each.get()
        assert (await each.answer()).status == 200


async def test_what_a_full_server_reads_is_bounded(serve: Serve) -> None:
    running = await serve(echo, max_connections=1, **PROBES)
    most = 1 + PROBE_CONNECTIONS
    held = [await running.connect() for _ in range(most)]
    await settled(lambda: running.server.connection_count == most)
    client = await running.connect()
    # Before it has sent anything.
    assert (await client.answer()).status == 503
    assert len(held) == most


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"health_path": "healthz"}, "expected a path such as /healthz"),
        ({"ready_path": "/ready?now"}, "expected a path such as /healthz"),
        ({"health_path": "/up", "ready_path": "/up"}, "must not be taken for dead"),
    ],
)
def test_paths_that_cannot_be_meant(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidOption, match=said):
        ServerOptions(**options)


def test_a_condition_is_required_once() -> None:
    found = Readiness()
    condition: Callable[[], list[str]] = lambda: ["a"]  # noqa: E731
    found.require(condition)
    found.require(condition)
    assert found.missing() == ["a"]
