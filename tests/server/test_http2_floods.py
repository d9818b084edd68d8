"""Abuses of HTTP/2 over a real connection: each is cut, counted, and reaches few applications."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from compliance.overload.http2_floods import ABUSES

from channels.kit.types import Receive, Scope, Send
from channels.server.counts import counts
from channels.server.options import ProxyOptions
from tests.server.applications import respond
from tests.server.conftest import Running, Serve
from tests.server.http2_client import Http2Client, dial_http2
from tests.wire.http2 import frames

#: Abuse -> why it is cut, and the most calls of the application that it gets.
CUTS = {
    "rapid reset, 10,000 streams": ("http2_resets", 210),
    "CONTINUATION without end, 12 MB": ("http2_header_block", 0),
    "200,000 PINGs, nothing read": ("http2_control_frames", 0),
    "50,000 SETTINGS": ("http2_control_frames", 0),
    "40 HPACK bombs of 48 MB": ("http2_header_block", 0),
    "100,000 empty DATA frames": ("http2_control_frames", 1),
    "100,000 DATA frames of one octet": ("http2_control_frames", 1),
    "windows of one octet, 100,000 times": ("http2_control_frames", 50),
}


#: Each one too many is refused alone: its client may not have heard of the bound yet.
MANY_STREAMS = "300 streams at once"


def test_every_abuse_is_here() -> None:
    assert {*CUTS, MANY_STREAMS} == ABUSES.keys()


@pytest.mark.parametrize("abuse", CUTS)
async def test_an_abuse_is_cut(serve: Serve, abuse: str) -> None:
    reason, most_calls = CUTS[abuse]
    calls = 0

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal calls
        calls += 1
        if scope["path"] == "/wait":
            while (await receive())["type"] != "http.disconnect":
                pass
        else:
            await respond(send, bytes(20_000 if scope["path"] == "/long" else 5))

    running: Running = await serve(application, http2=True)
    before = counts.cut[reason]
    port = running.server.addresses[0][1]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    client = Http2Client(reader, writer)
    client.opens_windows = False
    with contextlib.suppress(ConnectionError):
        client.send(frames.PREFACE, frames.settings())
        for piece in ABUSES[abuse]():
            client.send(piece)
            await asyncio.wait_for(writer.drain(), 10)
    await client.read_to_end()
    writer.transport.abort()
    assert counts.cut[reason] == before + 1
    assert calls <= most_calls
    if client.goaways:  # A reset takes it away where the client is still sending.
        assert client.goaways[-1].code == frames.ENHANCE_YOUR_CALM
    assert port is not None
    async with dial_http2(port) as other:
        other.get(1)
        assert (await other.response(1)).status == 200


async def test_streams_over_the_bound_are_refused_one_by_one(serve: Serve) -> None:
    calls = 0

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal calls
        calls += 1
        while (await receive())["type"] != "http.disconnect":
            pass

    running = await serve(application, http2=True, http2_max_reset_rate=30)
    port = running.server.addresses[0][1]
    assert port is not None
    async with dial_http2(port) as client:
        client.send(*ABUSES[MANY_STREAMS]())
        await client.round_trip()
        refused = [each.stream for each in client.frames if each.kind == frames.RST_STREAM]
        assert refused == list(range(201, 601, 2))
        assert calls == 100


async def test_a_trusted_proxy_resets_for_many_clients(serve: Serve) -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, b"hello")

    proxy = ProxyOptions(trusted_proxies=("127.0.0.1",))
    running = await serve(application, http2=True, proxy=proxy)
    port = running.server.addresses[0][1]
    assert port is not None
    async with dial_http2(port) as client:
        for number in range(1000):
            client.send(frames.headers(2 * number + 1), frames.rst(2 * number + 1))
        await client.round_trip()
        assert client.goaways == []


async def test_a_busy_client_is_no_flood(serve: Serve) -> None:
    """Thousands of small responses, each acknowledged twice, and a stream reset now and then."""

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, b"hello")

    running = await serve(application, http2=True)
    port = running.server.addresses[0][1]
    assert port is not None
    async with dial_http2(port) as client:
        for number in range(1500):
            stream = 2 * number + 1
            client.get(stream)
            if number % 20 == 0:
                client.send(frames.rst(stream))
                continue
            assert (await client.response(stream)).status == 200
            client.send(frames.window_update(0, 5))
        assert client.goaways == []
