"""`daphne.server.Server`, used as other packages use it."""

from __future__ import annotations

import asyncio
import http.client
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from channels.kit.types import Application, Message, Receive, Scope, Send
from daphne.endpoints import build_endpoint_description_strings
from daphne.protocol import ListeningPort, Protocol
from daphne.server import Server
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
def running(kind: type[Server] = Server, **options: Any) -> Iterator[Server]:
    ready = threading.Event()
    server = kind(
        options.pop("application", application),
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
    headers = {"X-Forwarded-For": "10.1.2.3", "X-Forwarded-Proto": "https"}
    with running(proxy_forwarded_proto_header="X-Forwarded-Proto") as server:
        assert get(port_of(server), "/", **headers)[1] == " 127.0.0.1 http"


def test_a_clients_root_path_is_believed_only_if_its_header_is_named() -> None:
    headers = {"Daphne-Root-Path": "/mounted%20here"}
    believing: dict[str, Any] = {"proxy_forwarded_address_header": "X-Forwarded-For"}
    with running(**believing) as server:
        assert get(port_of(server), "/", **headers)[1] == " 127.0.0.1 http"
    believing["proxy_root_path_header"] = "Daphne-Root-Path"
    with running(**believing) as server:
        assert get(port_of(server), "/", **headers)[1] == "/mounted here 127.0.0.1 http"
    with running(**believing, trusted_proxies=["10.0.0.0/8"]) as server:
        assert get(port_of(server), "/", **headers)[1] == " 127.0.0.1 http"


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


class Overridden(Server):
    """A subclass that looks at everything and changes what is said."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.happened: list[str] = []
        self.at_most = 0
        super().__init__(*args, **kwargs)

    def protocol_connected(self, protocol: Protocol) -> None:
        super().protocol_connected(protocol)
        self.at_most = max(self.at_most, len(self.connections))
        self.happened.append(f"connected {protocol.scope['type']}")

    def protocol_disconnected(self, protocol: Protocol) -> None:
        super().protocol_disconnected(protocol)
        self.happened.append("disconnected")

    def create_application(self, protocol: Protocol, scope: Scope) -> Application:
        scope["root_path"] = "/changed"
        return super().create_application(protocol, scope)

    async def handle_reply(self, protocol: Protocol, message: Message) -> None:
        self.check_headers_type(message)
        if message["type"] == "http.response.body":
            message = {**message, "body": message["body"] + b" with a word more"}
        await super().handle_reply(protocol, message)

    def listen_success(self, port: ListeningPort) -> None:
        super().listen_success(port)
        self.happened.append(f"listens at {port.getHost().host}")

    def listen_error(self, failure: BaseException) -> None:
        super().listen_error(failure)
        self.happened.append(f"cannot listen: {type(failure).__name__}")


def test_a_subclass_sees_and_changes_what_is_served() -> None:
    with running(Overridden) as server:
        assert isinstance(server, Overridden)
        text = "/changed 127.0.0.1 http with a word more"
        assert get(port_of(server), "/page") == (201, text)
        with connect(f"ws://127.0.0.1:{port_of(server)}/yes"):
            pass
    assert server.happened == [
        "listens at 127.0.0.1",
        *("connected http", "disconnected", "connected websocket", "disconnected"),
    ]
    assert server.at_most == 1
    assert server.connections == {}


def test_a_subclass_hears_that_an_endpoint_cannot_be_had() -> None:
    with running() as taken:
        host, port = taken.listening_addresses[0]
        strings = build_endpoint_description_strings(host=host, port=int(port or 0))
        server = Overridden(application, endpoints=strings, signal_handlers=False)
        with pytest.raises(OSError, match="in use"):
            server.run()
    assert server.happened == ["cannot listen: OSError"]


def test_all_applications_can_be_killed() -> None:
    begun = threading.Semaphore(0)
    cancelled = threading.Semaphore(0)

    async def endless(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return
        begun.release()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.release()
            raise

    with running(application=endless) as server, ThreadPoolExecutor() as threads:
        answers = [threads.submit(get, port_of(server), "/page") for _ in range(2)]
        for _ in answers:
            assert begun.acquire(timeout=PATIENCE_SECONDS)
        assert len(server.connections) == 2
        server.kill_all_applications()
        assert [answer.result(PATIENCE_SECONDS)[0] for answer in answers] == [500, 500]
        for _ in answers:
            assert cancelled.acquire(timeout=PATIENCE_SECONDS)
        # Nothing is left to do for these: they are called by habit.
        server.application_checker()
        server.timeout_checker()


def test_the_types_of_headers_are_looked_at() -> None:
    Server.check_headers_type({"type": "http.response.start", "headers": [(b"a", b"b")]})
    Server.check_headers_type({"type": "http.response.body"})
    for pair, said in (
        (("a", b"b"), "name is bytes: found 'a', a str"),
        ((b"a", 5), "found 5, a int"),
    ):
        with pytest.raises(ValueError, match=said):
            Server.check_headers_type({"headers": [pair]})


@pytest.mark.parametrize(("number", "meet"), [("1", "False"), ("2", "True")])
def test_asgi_threads_is_the_size_of_the_default_executor(
    monkeypatch: pytest.MonkeyPatch, number: str, meet: str
) -> None:
    monkeypatch.setenv("ASGI_THREADS", number)

    async def in_threads(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return
        other = threading.Event()
        loop = asyncio.get_running_loop()
        first = loop.run_in_executor(None, other.wait, 0.5 if meet == "False" else PATIENCE_SECONDS)
        second = loop.run_in_executor(None, other.set)
        said = f"{await first}".encode()
        await second
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": said})

    with running(application=in_threads) as server:
        assert get(port_of(server), "/") == (200, meet)


def test_a_request_s_body_comes_in_pieces_of_request_buffer_size() -> None:
    pieces: list[bytes] = []

    async def counts(scope: Scope, receive: Receive, send: Send) -> None:
        message: Message = {"more_body": scope["type"] == "http"}
        while message.get("more_body"):
            message = await receive()
            pieces.append(message["body"])
        await application(scope, receive, send)

    with running(application=counts, request_buffer_size=8) as server:
        for fields in ({"body": b"x" * 20}, {"body": iter([b"x" * 20]), "encode_chunked": True}):
            connection = http.client.HTTPConnection("127.0.0.1", port_of(server), timeout=20)
            connection.request("POST", "/", **fields)
            assert connection.getresponse().status == 201
            connection.close()
            assert max(map(len, pieces)) <= 8
            assert b"".join(pieces) == b"x" * 20
            pieces.clear()


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_a_request_without_host_is_served_in_its_version(version: str) -> None:
    with running() as server:
        where = ("127.0.0.1", port_of(server))
        with socket.create_connection(where, PATIENCE_SECONDS) as client:
            client.sendall(f"GET / HTTP/{version}\r\nConnection: close\r\n\r\n".encode())
            with client.makefile("rb") as answer:
                assert answer.readline() == f"HTTP/{version} 201 Created\r\n".encode()


@pytest.mark.parametrize("timeout", [0, -1])
def test_timeouts_and_sizes_that_daphne_takes_are_taken(timeout: int) -> None:
    server = Server(
        application,
        application_close_timeout=timeout,
        http_timeout=0,
        ping_interval=0,
        ping_timeout=0,
        websocket_timeout=timeout,
        websocket_connect_timeout=timeout,
        websocket_max_frame_size=1,
        websocket_max_message_size=1,
    )
    timeouts = server._server.options.timeouts
    assert timeouts.close_timeout == 0.01
    assert timeouts.websocket_timeout == (None if timeout < 0 else 0.01)
    assert timeouts.handshake_timeout == (5 if timeout < 0 else 0.01)
    assert (timeouts.http_timeout, timeouts.ping_interval, timeouts.ping_timeout) == (None,) * 3
