"""What one client address may have, and what one WebSocket may say; others notice nothing of it."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from channels.exceptions import RemoteProtocolError
from channels.kit.allowance import RATE_SECONDS
from channels.kit.limits import Limits
from channels.kit.types import Receive, Scope, Send
from channels.server import admission
from channels.server.admission import Admission, network_of
from channels.server.counts import counts
from channels.server.message_meter import MessageMeter
from channels.server.options import ProxyOptions
from channels.server.peer import Peer
from tests.server.applications import echo
from tests.server.client import Client
from tests.server.conftest import Running, Serve, settled
from tests.wire.peer import CLOSE, TEXT, frame

HANDSHAKE = (
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)
PROXY = {"proxy": ProxyOptions(trusted_proxies=("127.0.0.1",))}


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        await echo(scope, receive, send)
        return
    await receive()
    await send({"type": "websocket.accept"})
    while (event := await receive())["type"] != "websocket.disconnect":
        await send({"type": "websocket.send", "text": event["text"]})


async def opened(running: Running, *lines: str) -> tuple[Client, int]:
    """A client that has asked for a WebSocket, and the status that it got."""
    client = await running.connect()
    client.get("/", *HANDSHAKE, *lines)
    answer = await client.head()
    if answer.status == 429:
        assert answer["retry-after"] == "10"
    return client, answer.status


def from_address(address: str) -> str:
    return f"X-Forwarded-For: {address}"


async def test_connections_of_one_address(serve: Serve) -> None:
    cut = counts.cut["connections_per_address"]
    running = await serve(application, max_connections_per_address=2)
    first, _second = [await running.connect() for _ in range(2)]
    await settled(lambda: running.server.connection_count == 2)
    third = await running.connect()
    answer = await third.answer()
    assert (answer.status, answer["retry-after"]) == (429, "10")
    assert await third.rest() == b""
    assert counts.cut["connections_per_address"] == cut + 1
    await first.close()
    await settled(lambda: running.server.connection_count == 1)
    fourth = await running.connect()
    fourth.get()
    assert (await fourth.answer()).status == 200


async def test_a_trusted_proxy_has_as_many_connections_as_it_wants(serve: Serve) -> None:
    running = await serve(application, max_connections_per_address=1, **PROXY)
    for _ in range(3):
        client = await running.connect()
        client.get()
        assert (await client.answer()).status == 200


async def test_websockets_of_one_client_behind_a_proxy(serve: Serve) -> None:
    running = await serve(application, max_websockets_per_address=2, **PROXY)
    ann, bob = from_address("203.0.113.7"), from_address("203.0.113.8")
    first, status = await opened(running, ann)
    assert [status, (await opened(running, ann))[1], (await opened(running, ann))[1]] == [
        101,
        101,
        429,
    ]
    assert (await opened(running, bob))[1] == 101
    # Pages are not sockets.
    page = await running.connect()
    page.get("/", ann)
    assert (await page.answer()).status == 200
    first.reset()
    await settled(lambda: running.records[-1].kind == "websocket.disconnected")
    assert (await opened(running, ann))[1] == 101
    refused = [record for record in running.records if record.kind == "websocket.rejected"]
    assert [(record.status, record.reason) for record in refused] == [
        (429, "This address has 2 WebSockets already.")
    ]


async def test_handshakes_of_one_client(serve: Serve) -> None:
    running = await serve(application, max_handshake_rate=0.2, **PROXY)
    ann, bob = from_address("2001:db8::1"), from_address("2001:db8:0:1::1")
    statuses = [(await opened(running, ann))[1] for _ in range(2)]
    # The same network of 64 bits is the same client.
    statuses.append((await opened(running, from_address("2001:db8::ffff")))[1])
    assert statuses == [101, 101, 429]
    assert (await opened(running, bob))[1] == 101


def test_an_allowance_grows_again(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("channels.server.admission.time.monotonic", lambda: now)
    gate = Admission(Limits(max_handshake_rate=2.0), lambda _peer: False)

    def taken() -> int:
        """How many handshakes are let in."""
        count = 0
        with contextlib.suppress(RemoteProtocolError):
            while True:
                gate.open_websocket(object(), ("192.0.2.1", 1))
                count += 1
        return count

    assert taken() == 2 * RATE_SECONDS
    now += 1.5
    assert taken() == 3
    now += 1000
    assert taken() == 2 * RATE_SECONDS


def test_tables_are_bounded_and_empty_when_all_have_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "MOST_ADDRESSES", 10)
    limits = Limits(
        max_handshake_rate=1.0, max_websockets_per_address=5, max_connections_per_address=5
    )
    gate = Admission(limits, lambda _peer: False)
    connections = [object() for _ in range(100)]
    for number, connection in enumerate(connections):
        client = (f"192.0.2.{number}", 1)
        assert gate.connect(connection, Peer(client, None))
        gate.open_websocket(connection, client)
    assert len(gate._whole_at) == 10
    for connection in connections:
        gate.leave(connection)
        gate.leave(connection)
    assert not gate._connections
    assert not gate._websockets
    assert not gate._peers
    assert not gate._clients


@pytest.mark.parametrize(
    ("client", "network"),
    [
        (None, ""),
        (("192.0.2.1", 5), "192.0.2.1"),
        (("::ffff:192.0.2.1", 5), "192.0.2.1"),
        (("2001:db8:1:2:3:4:5:6", 5), "2001:db8:1:2::/64"),
        (("fe80::1%eth0", 5), "fe80::/64"),
        (("unknown", 5), "unknown"),
    ],
)
def test_what_counts_as_one_client(client: Any, network: str) -> None:
    assert network_of(client) == network


@pytest.mark.parametrize(
    ("limits", "messages", "said"),
    [
        ({"max_message_rate": 0.2}, [b"x"] * 3, b"Too much: over 0.2 messages a second."),
        ({"max_message_byte_rate": 100}, [b"x" * 600] * 2, b"Too much: over 100 bytes a second."),
    ],
    ids=["messages", "bytes"],
)
async def test_one_websocket_that_says_too_much(
    serve: Serve, limits: dict[str, Any], messages: list[bytes], said: bytes
) -> None:
    cut = counts.cut["message_rate"]
    running = await serve(application, max_message_bytes=1000, **limits)
    (busy, _), (calm, _) = await opened(running), await opened(running)
    busy.send(b"".join(frame(TEXT, message) for message in messages))
    received = await asyncio.wait_for(busy.reader.readuntil(said), 5)
    # What came before is answered, the close frame follows.
    assert received.count(messages[0]) >= 1
    assert bytes([0x80 | CLOSE, 2 + len(said)]) + b"\x03\xf0" in received
    calm.send(frame(TEXT, b"y"))
    assert await asyncio.wait_for(calm.reader.readexactly(3), 5) == b"\x81\x01y"
    assert counts.cut["message_rate"] == cut + 1


def test_the_largest_message_may_always_be_said() -> None:
    meter = MessageMeter(None, 100, 5000)
    assert meter.take(5000) == ""
    assert meter.take(1) == "over 100 bytes a second"
