"""What clients say to the chat, in one order, and the transcript of what they hear."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import httpx
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

#: One line of a transcript: the step's name and what was heard.
Transcript = dict[str, Any]

_WAIT_SECONDS = 5


class Clients:
    """HTTP and WebSocket clients that share a browser's cookies."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=_WAIT_SECONDS)

    def websocket(self, path: str, **options: Any) -> ClientConnection:
        cookies = "; ".join(f"{name}={value}" for name, value in self.http.cookies.items())
        opened: ClientConnection = connect(
            f"ws://127.0.0.1:{self.port}{path}",
            additional_headers={"Cookie": cookies} if cookies else None,
            open_timeout=_WAIT_SECONDS,
            close_timeout=_WAIT_SECONDS,
            **options,
        )
        return opened

    def close(self) -> None:
        self.http.close()


def hear(websocket: ClientConnection, count: int = 1) -> list[Any]:
    return [websocket.recv(timeout=_WAIT_SECONDS) for _ in range(count)]


def ending(websocket: ClientConnection) -> list[Any]:
    """How the server ended the connection: code and reason."""
    try:
        return ["more", websocket.recv(timeout=_WAIT_SECONDS)]
    except ConnectionClosed as closed:
        return [closed.rcvd.code, closed.rcvd.reason] if closed.rcvd else ["cut", ""]


def status(websocket_path: str, clients: Clients) -> int:
    """The status that answers a refused handshake."""
    try:
        clients.websocket(websocket_path).close()
    except InvalidStatus as refused:
        return refused.response.status_code
    return 101


def answer(response: httpx.Response) -> list[Any]:
    return [response.status_code, response.text]


def plain_http(clients: Clients) -> Iterator[tuple[str, Any]]:
    http = clients.http
    response = http.get("/hello/?a=1&b=%20%C3%A9")
    yield "get", [*answer(response), response.headers["x-one"], response.headers["content-length"]]
    response = http.head("/hello/")
    yield "head", [*answer(response), response.headers["content-length"]]
    yield "escaped path", answer(http.get("/hello/%2e%2e%2F/"))[0]
    yield "upload", answer(http.post("/upload/", content=b"x" * 200_000))
    parts = (b"y" * 1000 for _ in range(50))
    yield "chunked upload", answer(http.post("/upload/", content=parts))
    yield "cookies", sorted(http.get("/cookies/").headers.get_list("set-cookie"))
    yield "stream", answer(http.get("/stream/"))
    yield "not found", http.get("/nowhere/").status_code
    yield "failing view", http.get("/failing/").status_code
    yield "after a failure", answer(http.get("/hello/"))
    http.cookies.clear()


def events(clients: Clients) -> Iterator[tuple[str, Any]]:
    with clients.http.stream("GET", "/events/") as response:
        yield "events", [response.headers["content-type"], *response.iter_lines()]
    with clients.http.stream("GET", "/events/", headers={"Last-Event-ID": "2"}) as response:
        yield "events resumed", list(response.iter_lines())


def chat(clients: Clients) -> Iterator[tuple[str, Any]]:
    with ExitStack() as stack:
        enter: Callable[[str], ClientConnection] = lambda room: stack.enter_context(  # noqa: E731
            clients.websocket(f"/ws/chat/{room}/")
        )
        one, two, elsewhere = enter("blue"), enter("blue"), enter("red")
        yield "anonymous", [hear(each) for each in (one, two, elsewhere)]
        one.send(json.dumps({"text": "hello"}))
        yield "group", [hear(one), hear(two)]
        for number in range(20):
            two.send(json.dumps({"text": str(number)}))
        yield "order", [hear(one, 20), hear(two, 20)]
        one.send(json.dumps({"direct": "r\u00e9ady"}))
        yield "direct", [hear(one), hear(two)]
        yield "from http", answer(clients.http.post("/publish/blue/", content=b"news"))
        yield "news", [hear(one), hear(two)]
        two.close(4001, "bye")
        one.send(json.dumps({"text": "alone"}))
        yield "after one left", hear(one)
        elsewhere.send(json.dumps({"text": "red"}))
        yield "other room heard nothing else", hear(elsewhere)


def users(clients: Clients) -> Iterator[tuple[str, Any]]:
    yield "log in", answer(clients.http.get("/login/"))
    with clients.websocket("/ws/chat/green/") as websocket:
        yield "known", hear(websocket)
        websocket.send(json.dumps({"text": "it is me"}))
        yield "speaks", hear(websocket)
    yield "session kept", answer(clients.http.get("/session/"))
    yield "log out", answer(clients.http.get("/logout/"))
    with clients.websocket("/ws/chat/green/") as websocket:
        yield "unknown again", hear(websocket)


def websockets(clients: Clients) -> Iterator[tuple[str, Any]]:
    with clients.websocket("/ws/echo/", subprotocols=["chat.v1", "chat.v2"]) as websocket:
        yield "subprotocol", websocket.subprotocol
        payloads: list[Any] = ["", b"", "caf\u00e9 \U0001f600", b"\x00\xff", "x" * 70_000]
        for payload in payloads:
            websocket.send(payload)
        yield "echo", hear(websocket, len(payloads)) == payloads
        websocket.send("close")
        yield "closed by consumer", ending(websocket)
    with clients.websocket("/ws/echo/") as websocket:
        yield "no subprotocol", websocket.subprotocol
        websocket.send("raise")
        yield "consumer raises", ending(websocket)
    with clients.websocket("/ws/echo/") as websocket:
        websocket.close(4002, "done")
    with clients.websocket("/ws/sync/") as websocket:
        websocket.send("loud")
        yield "sync consumer", hear(websocket, 2)
    yield "refused", status("/ws/refuse/", clients)
    yield "raises in connect", status("/ws/fail/", clients)
    yield "unrouted", status("/ws/nowhere/", clients)
    with clients.websocket("/ws/headers/") as websocket:
        assert websocket.response is not None
        headers = websocket.response.headers
        yield "accept headers", [headers.get("x-room"), headers.get("set-cookie")]
        yield "closed at once", ending(websocket)
    yield "farewells", answer(clients.http.get("/farewells/"))


def transcript(port: int) -> Transcript:
    """The whole conversation with the server on this port."""
    clients = Clients(port)
    heard: Transcript = {}
    try:
        for part in (plain_http, events, chat, users, websockets):
            for step, what in part(clients):
                assert step not in heard, f"two steps are named {step!r}"
                heard[step] = what
    finally:
        clients.close()
    return heard
