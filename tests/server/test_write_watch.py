"""A client that reads slowly is waited for; one that takes nothing is cut off, and told apart."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import ssl
import time
from pathlib import Path

import pytest

from channels.exceptions import ClientDisconnected
from channels.kit.limits import KIB, Limits, Timeouts
from channels.kit.throttle import Throttle
from channels.kit.types import Address, Message, Receive, Scope, Send
from channels.server import Endpoint, parse_endpoint
from channels.server.counts import counts
from channels.server.cuts import LOG_SECONDS
from channels.server.endpoints import Tls
from channels.server.write_watch import bytes_in_system
from tests.server.applications import body, start
from tests.server.conftest import Serve, settled
from tests.server.shell import Recorder, eventually, request
from tests.server.shell import serve as serve_shell

PIECE = bytes(64 * KIB)
PIECES = 400


class Endless:
    """Sends a response of 25 MB, and keeps what became of it."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.sent = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        try:
            for _ in range(PIECES):
                await send(body(PIECE, more=True))
                self.sent += 1
            await send(body())
        except ClientDisconnected as error:
            self.error = error
            raise


class SlowReader:
    """A blocking client whose system takes little ahead of it."""

    def __init__(self, address: Address, head: bytes, tls: ssl.SSLContext | None = None) -> None:
        host, port = address
        self.socket = socket.socket(socket.AF_UNIX if port is None else socket.AF_INET)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 * KIB)
        self.socket.connect(host if port is None else (host, port))
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_hostname=host)
        self.socket.sendall(head)

    def read(self, seconds: float) -> None:
        """Take 300 kB a second: far less in a timeout than the share of its buffer that the
        system waits for before it asks for more."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            assert self.socket.recv(30_000), "it was cut off"
            time.sleep(0.1)

    def rest(self) -> bytes:
        """The end of all that comes."""
        last = b""
        while data := self.socket.recv(1 << 20):
            last = (last + data)[-100:]
        return last


GET = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


async def test_a_steady_slow_reader_is_not_cut_off(serve: Serve, tls: Tls, tmp_path: Path) -> None:
    trust = ssl.create_default_context(cafile=tls.certificate)
    kinds: dict[str, tuple[Endpoint, ssl.SSLContext | None]] = {
        "tcp": (parse_endpoint("tcp:port=0:interface=127.0.0.1"), None),
        "unix": (parse_endpoint(f"unix:{tmp_path / 'socket'}"), None),
        "tls": (Endpoint("tcp", "127.0.0.1", tls=tls), trust),
    }

    async def one(kind: str) -> None:
        endpoint, context = kinds[kind]
        application = Endless()
        running = await serve(application, endpoint, write_timeout=1.5)
        reader = await asyncio.to_thread(SlowReader, running.server.addresses[0], GET, context)
        with reader.socket:
            await asyncio.to_thread(reader.read, 3.6)
            assert application.error is None, kind
            assert application.sent < PIECES, "it still waits for this reader"
            assert (await asyncio.to_thread(reader.rest)).endswith(b"0\r\n\r\n"), kind

    await asyncio.gather(*map(one, kinds))


async def test_a_client_that_takes_nothing_is_cut_off_with_its_reason(
    serve: Serve, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("channels.server.cuts._throttle", Throttle(LOG_SECONDS))
    before = counts.cut["not_reading"]
    application = Endless()
    running = await serve(application, write_timeout=0.3)
    client = await running.connect()
    client.get()
    await client.head()
    host, port = client.writer.get_extra_info("sockname")
    await settled(lambda: application.error is not None)
    assert counts.cut["not_reading"] == before + 1
    assert re.fullmatch(
        r"The client read too slowly: \d{6,} bytes waited for 0\.\d+ s\.", str(application.error)
    )
    (line,) = [record.getMessage() for record in caplog.records]
    assert line == f"Cut off {host}:{port}: {application.error}"


async def test_a_websocket_that_takes_nothing_ends_with_a_code_of_its_own() -> None:
    async def flood(recorder: Recorder, message: Message, send: Send) -> None:
        await send({"type": "websocket.accept"})
        for _ in range(PIECES):
            await send({"type": "websocket.send", "bytes": PIECE})

    async def quietly(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await application(scope, receive, send)
        except ClientDisconnected as error:
            errors.append(str(error))
            application.events.append(await receive())

    application, errors = Recorder(flood), list[str]()
    before = counts.websockets_closed["3008"]
    bounds, times = Limits(write_buffer_bytes=64 * KIB), Timeouts(write_timeout=0.3)
    async with serve_shell(quietly, limits=bounds, timeouts=times) as shell:
        with socket.create_connection(("127.0.0.1", shell.port)) as client:
            client.sendall(request())
            await eventually(lambda: len(application.events) == 2)
    assert application.disconnect["code"] == 3008
    assert application.disconnect["reason"] == errors[0]
    assert "read too slowly" in errors[0]
    assert counts.websockets_closed["3008"] == before + 1


async def test_a_steady_slow_reader_of_a_websocket_is_not_cut_off() -> None:
    async def flood(recorder: Recorder, message: Message, send: Send) -> None:
        if message["type"] == "websocket.connect":
            await send({"type": "websocket.accept"})
            with contextlib.suppress(ClientDisconnected):
                for _ in range(PIECES):
                    await send({"type": "websocket.send", "bytes": PIECE})

    application = Recorder(flood)
    # Its pings are behind all that it has not read yet.
    times = Timeouts(write_timeout=1.5, ping_interval=0.3, ping_timeout=1.0)
    async with serve_shell(application, timeouts=times) as shell:
        reader = await asyncio.to_thread(SlowReader, ("127.0.0.1", shell.port), request())
        with reader.socket:
            await asyncio.to_thread(reader.read, 3.6)
            assert application.kinds == ["connect"]
        assert (await application.until_disconnected())["code"] == 1006


def test_what_waits_in_the_system_is_counted() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert bytes_in_system(ours) == 0
        ours.sendall(bytes(10_000))
        full = bytes_in_system(ours)
        assert full >= 10_000
        theirs.recv(10_000)
        assert bytes_in_system(ours) < full
    assert bytes_in_system(ours) == 0, "a closed one"
