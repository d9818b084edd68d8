"""WebSocket on a stream of HTTP/2 (RFC 8441): the same as on a connection of its own."""

from __future__ import annotations

import asyncio
import zlib
from typing import Any

import pytest

from channels.fanout.prepared import PreparedMessage
from channels.kit.doors import find_sink
from channels.kit.types import Receive, Scope, Send
from channels.server.counts import counts
from tests.server.conftest import Running, Serve, settled
from tests.server.http2_client import Http2Client, dial_http2
from tests.server.shell import Recorder
from tests.wire.http2 import frames
from tests.wire.peer import frame

CLOSE, PING, PONG, TEXT, BINARY = 0x88, 0x89, 0x8A, 0x81, 0x82


def port_of(running: Running) -> int:
    port = running.server.addresses[0][1]
    assert port is not None
    return port


class Socket:
    """One WebSocket on a client's connection."""

    def __init__(self, client: Http2Client, stream: int = 1) -> None:
        self.client = client
        self.stream = stream
        self._read = 0

    async def open(self, *fields: tuple[bytes, bytes], path: bytes = b"/") -> int:
        asked = [(n, path if n == b":path" else v) for n, v in frames.CONNECT]
        self.client.send(frames.headers(self.stream, [*asked, *fields], ends=False))
        response = self.client.responses
        await self.client.until(lambda: self.stream in response and response[self.stream].fields)
        return response[self.stream].status

    def send(self, opcode: int, payload: bytes = b"", **more: Any) -> None:
        self.client.send(frames.data(self.stream, frame(opcode, payload, **more)))

    async def receive(self) -> tuple[int, bytes]:
        """The next frame: its first byte and its payload."""
        response = self.client.responses[self.stream]

        def whole() -> int:
            data = response.body[self._read :]
            if len(data) < 2:
                return 0
            size, start = data[1], 2
            if size == 126:
                if len(data) < 4:
                    return 0
                size, start = int.from_bytes(data[2:4]), 4
            elif size == 127:
                if len(data) < 10:
                    return 0
                size, start = int.from_bytes(data[2:10]), 10
            return start + size if len(data) >= start + size else 0

        await self.client.until(whole)
        end = self._read + whole()
        data, self._read = response.body[self._read : end], end
        start = {126: 4, 127: 10}.get(data[1], 2)
        return data[0], data[start:]


async def test_ten_sockets_on_one_connection(serve: Serve) -> None:
    recorder = Recorder()
    running = await serve(recorder, http2=True)
    async with dial_http2(port_of(running)) as client:
        sockets = [Socket(client, 2 * n + 1) for n in range(10)]
        for n, socket in enumerate(sockets):
            assert await socket.open(path=b"/%d" % n) == 200
        for n, socket in enumerate(sockets):
            socket.send(1, b"hello %d" % n)
        for n, socket in enumerate(sockets):
            assert await socket.receive() == (TEXT, b"hello %d" % n)
        assert running.server.connection_count == 1
    scope = recorder.scopes[3]
    assert scope["type"] == "websocket"
    assert scope["http_version"] == "2"
    assert scope["scheme"] == "ws"
    assert scope["path"] == "/3"
    assert (b"host", b"localhost") in scope["headers"]
    assert "method" not in scope
    await settled(lambda: recorder.running == 0)
    codes = [event["code"] for event in recorder.events if event["type"].endswith("disconnect")]
    assert codes == [1006] * 10


async def test_sockets_and_requests_share_a_connection(serve: Serve) -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 204})
            await send({"type": "http.response.body"})
        else:
            await recorder(scope, receive, send)

    recorder = Recorder()
    running = await serve(application, http2=True)
    async with dial_http2(port_of(running)) as client:
        socket = Socket(client)
        await socket.open()
        client.get(3)
        assert (await client.response(3)).status == 204
        socket.send(2, b"\0\1")
        assert await socket.receive() == (BINARY, b"\0\1")


@pytest.mark.parametrize("ends", [False, True])
async def test_the_clients_close_is_answered(serve: Serve, ends: bool) -> None:
    recorder = Recorder()
    running = await serve(recorder, http2=True)
    async with dial_http2(port_of(running)) as client:
        socket = Socket(client)
        await socket.open()
        client.send(frames.data(1, frame(8, b"\x0f\xa1bye"), ends=ends))
        assert await socket.receive() == (CLOSE, b"\x0f\xa1")
        response = await client.response(1)
        assert response.has_ended
        assert (await recorder.until_disconnected())["code"] == 4001
        client.send(frames.data(1, ends=True)) if not ends else None
        # The connection goes on.
        second = Socket(client, 3)
        assert await second.open() == 200
    kinds = [record.kind.removeprefix("websocket.") for record in running.records[:3]]
    assert kinds == ["connecting", "connected", "disconnected"]


async def test_a_client_that_does_not_end_its_half_is_let_go(serve: Serve) -> None:
    running = await serve(Recorder(), http2=True, keep_alive=0.05)
    async with dial_http2(port_of(running)) as client:
        socket = Socket(client)
        await socket.open()
        socket.send(8, b"\x03\xe8")
        await client.read_to_end()
        assert client.responses[1].reset == frames.NO_ERROR
        assert client.goaways


async def test_a_reset_is_a_lost_connection(serve: Serve) -> None:
    recorder = Recorder()
    running = await serve(recorder, http2=True)
    async with dial_http2(port_of(running)) as client:
        await Socket(client).open()
        client.send(frames.rst(1))
        assert (await recorder.until_disconnected())["code"] == 1006
        assert await Socket(client, 3).open() == 200


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (frame(1, b"\xff"), 1007),
        (frame(3, b""), 1002),
        (frame(1, bytes(2000)), 1009),
    ],
)
async def test_violations_close_the_stream_alone(serve: Serve, payload: bytes, code: int) -> None:
    recorder = Recorder()
    running = await serve(recorder, http2=True, max_message_bytes=1000, max_frame_bytes=1000)
    async with dial_http2(port_of(running)) as client:
        socket, other = Socket(client, 1), Socket(client, 3)
        await socket.open()
        await other.open()
        client.send(frames.data(1, payload))
        first, reason = await socket.receive()
        assert (first, int.from_bytes(reason[:2])) == (CLOSE, code)
        assert (await client.response(1)).has_ended
        other.send(1, b"still here")
        assert await other.receive() == (TEXT, b"still here")
    assert code in [e["code"] for e in recorder.events if e["type"].endswith("disconnect")]


async def test_the_application_refuses(serve: Serve) -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        if scope["path"] == "/own":
            await send({"type": "websocket.http.response.start", "status": 401, "headers": []})
            await send({"type": "websocket.http.response.body", "body": b"log in"})
        else:
            await send({"type": "websocket.close"})

    running = await serve(application, http2=True)
    async with dial_http2(port_of(running)) as client:
        assert await Socket(client).open() == 403
        assert await Socket(client, 3).open(path=b"/own") == 401
        assert (await client.response(3)).body == b"log in"
    rejected = [r.status for r in running.records if r.kind == "websocket.rejected"]
    assert rejected == [403, 401]


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ([(b"sec-websocket-version", b"12")], 426),
        ([], 400),
        ([(b"sec-websocket-version", b"13"), (b"sec-websocket-protocol", b"a b")], 400),
        ([(b"sec-websocket-version", b"13"), (b"content-length", b"5")], 400),
    ],
)
async def test_a_bad_handshake_is_refused(
    serve: Serve, fields: list[tuple[bytes, bytes]], status: int
) -> None:
    recorder = Recorder()
    running = await serve(recorder, http2=True)
    async with dial_http2(port_of(running)) as client:
        client.send(frames.headers(1, [*frames.CONNECT[:-1], *fields], ends=False))
        assert (await client.response(1)).status == status
    assert recorder.scopes == []
    assert [record.kind for record in running.records] == ["websocket.rejected"]


async def test_subprotocol_and_compression_are_agreed(serve: Serve) -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept", "subprotocol": scope["subprotocols"][1]})
        await send({"type": "websocket.send", "text": "a" * 1000})
        await receive()

    running = await serve(application, http2=True)
    async with dial_http2(port_of(running)) as client:
        socket = Socket(client)
        await socket.open(
            (b"sec-websocket-protocol", b"one, two"),
            (b"sec-websocket-extensions", b"permessage-deflate"),
        )
        response = client.responses[1]
        assert response[b"sec-websocket-protocol"] == b"two"
        assert response[b"sec-websocket-extensions"].startswith(b"permessage-deflate")
        assert b"sec-websocket-accept" not in dict(response.fields)
        first, payload = await socket.receive()
        assert first == TEXT | 0x40
        assert zlib.decompressobj(-15).decompress(payload + b"\0\0\xff\xff") == b"a" * 1000


async def test_prepared_frames_are_written_through_the_sink(serve: Serve) -> None:
    sinks = []

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        sink = find_sink(scope, send)
        assert sink is not None
        assert sink.form is None
        await send({"type": "websocket.accept"})
        sinks.append(sink)
        await receive()

    running = await serve(application, http2=True)
    async with dial_http2(port_of(running)) as client:
        sockets = [Socket(client, stream) for stream in (1, 3, 5)]
        for socket in sockets:
            await socket.open()
        message = PreparedMessage(text="to all")
        for sink in sinks:
            assert sink.form is not None
            sink.write(message.frame(sink.form))
            sink.write(message.frame(sink.form))
        for socket in sockets:
            assert [await socket.receive() for _ in range(2)] == [(TEXT, b"to all")] * 2
        # What one turn of the loop writes to a socket is one frame of HTTP/2.
        assert len([f for f in client.frames if f.kind == frames.DATA]) == 3


async def test_a_consumer_that_does_not_take_holds_up_its_client_alone(serve: Serve) -> None:
    go_on = asyncio.Event()
    taken = 0

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal taken
        await receive()
        await send({"type": "websocket.accept"})
        if scope["path"] == "/slow":
            await go_on.wait()
        while (await receive())["type"] == "websocket.receive":
            taken += 1
            await send({"type": "websocket.send", "text": "taken"})

    running = await serve(application, http2=True, http2_stream_window_bytes=64 * 1024)
    async with dial_http2(port_of(running)) as client:
        slow, quick = Socket(client, 1), Socket(client, 3)
        await slow.open(path=b"/slow")
        await quick.open()
        for _ in range(60):
            slow.send(2, bytes(1000))
        quick.send(1, b"hello")
        assert await quick.receive() == (TEXT, b"taken")
        opened = [f for f in client.frames if f.kind == frames.WINDOW_UPDATE and f.stream == 1]
        assert opened == []
        go_on.set()
        for _ in range(60):
            assert await slow.receive() == (TEXT, b"taken")
    assert taken == 61


async def test_a_silent_client_is_pinged_and_cut(serve: Serve) -> None:
    recorder = Recorder()
    running = await serve(recorder, http2=True, ping_interval=0.05, ping_timeout=0.05)
    before = counts.cut["no_pong"]
    async with dial_http2(port_of(running)) as client:
        socket = Socket(client)
        await socket.open()
        assert (await socket.receive())[0] == PING
        response = await client.response(1)
        assert response.reset == frames.CANCEL
        assert (await recorder.until_disconnected())["code"] == 1006
    assert counts.cut["no_pong"] == before + 1


async def test_limits_of_an_address_hold_for_streams(serve: Serve) -> None:
    running = await serve(Recorder(), http2=True, max_websockets_per_address=2)
    async with dial_http2(port_of(running)) as client:
        first = Socket(client, 1)
        assert await first.open() == 200
        assert await Socket(client, 3).open() == 200
        assert await Socket(client, 5).open() == 429
        assert client.responses[5][b"retry-after"] == b"10"
        client.send(frames.data(1, frame(8, b"\x03\xe8"), ends=True))
        await client.response(1)
        await client.round_trip()
        assert await Socket(client, 7).open() == 200


async def test_a_stop_closes_every_socket_with_its_code(serve: Serve) -> None:
    recorder = Recorder()
    running = await serve(recorder, http2=True, websocket_stop_code=1012)
    async with dial_http2(port_of(running)) as client:
        sockets = [Socket(client, stream) for stream in (1, 3, 5)]
        for socket in sockets:
            await socket.open()
        stop = asyncio.ensure_future(running.server.stop(5))
        for socket in sockets:
            first, payload = await socket.receive()
            assert (first, int.from_bytes(payload[:2])) == (CLOSE, 1012)
            client.send(frames.data(socket.stream, frame(8, payload), ends=True))
        await client.read_to_end()
        await stop
    codes = [e["code"] for e in recorder.events if e["type"].endswith("disconnect")]
    assert codes == [1012] * 3


async def test_a_drain_spreads_the_sockets_of_one_connection(serve: Serve) -> None:
    running = await serve(Recorder(), http2=True)
    async with dial_http2(port_of(running)) as client:
        sockets = [Socket(client, stream) for stream in (1, 3)]
        for socket in sockets:
            await socket.open()
        running.server.request_drain(0.4)
        stop = asyncio.ensure_future(running.server.stop(5))
        assert (await sockets[0].receive())[0] == CLOSE
        # The other one's turn comes later; meanwhile it is served.
        sockets[1].send(1, b"still here")
        assert await sockets[1].receive() == (TEXT, b"still here")
        first, payload = await sockets[1].receive()
        assert (first, int.from_bytes(payload[:2])) == (CLOSE, 1012)
        for socket in sockets:
            client.send(frames.data(socket.stream, frame(8, b"\x03\xf4"), ends=True))
        await client.read_to_end()
        await stop
