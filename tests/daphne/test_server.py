"""`daphne.server.Server`, used as other packages use it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from channels.kit.types import Receive, Scope, Send
from daphne.endpoints import build_endpoint_description_strings
from daphne.server import Server, believed
from tests.tutorial.browsing import get

Log = list[tuple[str, str, dict[str, Any]]]
PATIENCE_SECONDS = 20


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 201, "headers": []})
        text = f"{scope['root_path']} {scope['client'][0]} {scope['scheme']}"
        await send({"type": "http.response.body", "body": text.encode()})
    elif scope["type"] == "websocket":
        await receive()
        accepts = scope["path"] == "/yes"
        await send({"type": "websocket.accept" if accepts else "websocket.close"})
        await receive()


@contextmanager
def running(**options: Any) -> Iterator[Server]:
    ready = threading.Event()
    server = Server(
        application,
        endpoints=build_endpoint_description_strings(host="127.0.0.1", port=0),
        signal_handlers=False,
        ready_callable=ready.set,
        **options,
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        assert ready.wait(PATIENCE_SECONDS)
        yield server
    finally:
        server.stop()
        thread.join(PATIENCE_SECONDS)
    assert not thread.is_alive()


def port_of(server: Server) -> int:
    return int(server.listening_addresses[0][1] or 0)


def test_it_runs_in_a_thread_until_it_is_stopped() -> None:
    with running(root_path="/site") as server:
        assert get(port_of(server), "/page") == (201, "/site 127.0.0.1 http")


def test_actions_are_logged() -> None:
    log: Log = []
    with running(action_logger=lambda *it: log.append(it)) as server:
        address = f"ws://127.0.0.1:{port_of(server)}"
        get(port_of(server), "/page")
        with connect(f"{address}/yes"):
            pass
        with pytest.raises(InvalidStatus):
            connect(f"{address}/no")
    assert {(protocol, action) for protocol, action, _ in log} == {
        ("http", "complete"),
        ("websocket", "connecting"),
        ("websocket", "connected"),
        ("websocket", "rejected"),
        ("websocket", "disconnected"),
    }
    details = next(details for protocol, _, details in log if protocol == "http")
    assert (details["method"], details["path"], details["status"]) == ("GET", "/page", 201)
    assert details["client"].startswith("127.0.0.1:")
    assert details["time_taken"] >= 0


def test_forwarded_headers_are_believed_if_they_are_named() -> None:
    headers = {"X-Forwarded-For": "10.1.2.3, 10.9.9.9", "X-Forwarded-Proto": "https"}
    with running() as server:
        assert get(port_of(server), "/", **headers)[1] == " 127.0.0.1 http"
    with running(
        proxy_forwarded_address_header="X-Forwarded-For",
        proxy_forwarded_port_header="X-Forwarded-Port",
        proxy_forwarded_proto_header="X-Forwarded-Proto",
    ) as server:
        assert get(port_of(server), "/", **headers)[1] == " 10.1.2.3 https"


def test_without_a_header_for_the_address_nobody_is_believed() -> None:
    assert believed(None, "X-Forwarded-Port", "X-Forwarded-Proto").trusted_proxies == ()


def test_zero_and_negative_numbers_mean_no_bound() -> None:
    server = Server(
        application,
        websocket_timeout=-1,
        websocket_connect_timeout=-1,
        websocket_handshake_timeout=-1,
        websocket_max_message_size=0,
        websocket_max_frame_size=0,
        ping_interval=0,
    )
    options = server._server.options
    assert options.limits.max_message_bytes is None
    assert options.limits.max_frame_bytes is None
    assert options.timeouts.websocket_timeout is None
    assert options.timeouts.handshake_timeout is None
    assert options.timeouts.ping_interval is None
