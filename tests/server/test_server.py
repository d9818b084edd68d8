from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from channels.kit.types import Receive, Scope, Send
from channels.server import Server, parse_endpoint
from channels.server.counts import counts
from tests.server.applications import body, echo, respond, start
from tests.server.conftest import Serve, as_options, settled


async def test_stop_lets_responses_in_hand_finish(serve: Serve) -> None:
    entered = 0
    may_end = asyncio.Event()

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal entered
        entered += 1
        if scope["path"] == "/begun":
            await send(start())
            await send(body(b"first ", more=True))
        await may_end.wait()
        if scope["path"] == "/begun":
            await send(body(b"last"))
        else:
            await respond(send, b"whole")

    running = await serve(application)
    clients = [await running.connect() for _ in range(20)]
    for number, client in enumerate(clients):
        client.get("/begun" if number % 2 else "/waiting")
    await settled(lambda: entered == 20)
    stopping = asyncio.ensure_future(running.server.stop())
    await asyncio.sleep(0)
    may_end.set()
    for number, client in enumerate(clients):
        answer = await client.answer()
        assert answer.body == (b"first last" if number % 2 else b"whole")
        assert answer["connection"] == (None if number % 2 else "close")
        assert await client.rest() == b""
    await stopping


async def test_stop_closes_idle_connections_and_accepts_no_more(serve: Serve) -> None:
    running = await serve(echo)
    fresh, used, partial = [await running.connect() for _ in range(3)]
    used.get()
    await used.answer()
    partial.send(b"GET / HT")
    await settled(lambda: running.server.connection_count == 3)
    address = running.server.addresses[0]
    await running.server.stop()
    for client in (fresh, used, partial):
        assert await client.rest() == b""
    with pytest.raises(ConnectionError):
        await asyncio.open_connection(*address)


async def test_stop_cuts_what_does_not_end_and_lets_applications_say_goodbye(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[str] = []

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        heard.append((await receive())["type"])
        heard.append((await receive())["type"])
        await asyncio.sleep(0)
        heard.append("goodbye")

    running = await serve(application)
    client = await running.connect()
    client.get()
    await settled(lambda: bool(heard))
    await running.server.stop(0.05)
    assert heard == ["http.request", "http.disconnect", "goodbye"]
    assert await client.rest() == b""
    assert "Connections that are still open are cut: 1." in caplog.text


async def test_stop_cancels_an_application_that_stays(serve: Serve) -> None:
    events: list[str] = []

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        events.append("called")
        try:
            await asyncio.Event().wait()
        finally:
            events.append("cancelled")

    running = await serve(application, close_timeout=0.05)
    client = await running.connect()
    client.get()
    await settled(lambda: bool(events))
    before = counts.cut["stop"]
    await running.server.stop(0.05)
    assert events == ["called", "cancelled"]
    assert counts.cut["stop"] == before + 1


async def test_stop_in_a_hurry_waits_for_nothing(serve: Serve) -> None:
    called = asyncio.Event()

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        called.set()
        await asyncio.Event().wait()

    running = await serve(application)
    client = await running.connect()
    client.get()
    await called.wait()
    stopping = asyncio.ensure_future(running.server.stop(1000))
    await asyncio.sleep(0)
    running.server.hurry()
    await asyncio.wait_for(stopping, 5)
    assert await client.rest() == b""


async def test_stopping_twice_is_stopping_once(serve: Serve) -> None:
    running = await serve(echo)
    await running.server.stop()
    await running.server.stop()
    assert running.server.addresses == []


async def test_a_request_that_comes_while_stopping_is_the_last_one(serve: Serve) -> None:
    may_end = asyncio.Event()
    paths: list[str] = []

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        paths.append(scope["path"])
        await may_end.wait()
        await respond(send)

    running = await serve(application)
    client = await running.connect()
    client.get("/1")
    await settled(lambda: paths == ["/1"])
    stopping = asyncio.ensure_future(running.server.stop())
    client.get("/2")
    await asyncio.sleep(0.01)
    may_end.set()
    assert (await client.answer()).status == 200
    assert await client.rest() == b""
    await stopping
    assert paths == ["/1"]


async def test_too_many_connections_are_told_so(serve: Serve) -> None:
    running = await serve(echo, max_connections=2)
    first, second = [await running.connect() for _ in range(2)]
    await settled(lambda: running.server.connection_count == 2)
    third = await running.connect()
    assert (await third.answer()).status == 503
    assert await third.rest() == b""
    third.reset()
    first.get()
    assert (await first.answer()).status == 200
    await second.close()
    await settled(lambda: running.server.connection_count == 1)
    fourth = await running.connect()
    fourth.get()
    assert (await fourth.answer()).status == 200


async def test_connections_that_come_and_go_leave_nothing(serve: Serve) -> None:
    running = await serve(echo)
    for number in range(100):
        client = await running.connect()
        client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" if number % 2 else b"rubbish\r\n")
        if number % 3:
            await client.head()
        client.reset()
    await settled(lambda: running.server.connection_count == 0)
    client = await running.connect()
    client.get()
    assert (await client.answer()).status == 200


def test_run_until_another_thread_asks_for_the_end() -> None:
    listening = threading.Event()

    class Telling(Server):
        async def start(self) -> None:
            await super().start()
            listening.set()

    server = Telling(
        echo, [parse_endpoint("tcp:port=0:interface=127.0.0.1")], as_options({"lifespan": "off"})
    )
    thread = threading.Thread(target=server.run, kwargs={"install_signals": False})
    thread.start()
    assert listening.wait(5)
    assert server.addresses
    server.request_stop()
    thread.join(5)
    assert not thread.is_alive()
    server.request_stop()


PROGRAM = """
import asyncio, sys
from channels.server import Server, ServerOptions, parse_endpoint

async def application(scope, receive, send):
    assert scope["type"] == "http"
    print("called", flush=True)
    if scope["path"] == "/slow":
        try:
            await asyncio.sleep(0.3)
        except asyncio.CancelledError:
            print("cancelled", flush=True)
            raise
    if scope["path"] == "/never":
        await asyncio.Event().wait()
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"done"})

class Telling(Server):
    async def start(self):
        await super().start()
        print(self.addresses[0][1], flush=True)

Telling(application, [parse_endpoint("tcp:port=0:interface=127.0.0.1")]).run()
print("ended", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("path", ["/slow", "/never"])
def test_signals(number: signal.Signals, path: str) -> None:
    import http.client

    source = Path(__file__).resolve().parents[2] / "src"
    environment = {**os.environ, "PYTHONPATH": str(source)}
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        try:
            port = int(process.stdout.readline())
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
            connection.request("GET", path)
            assert process.stdout.readline() == "called\n"
            process.send_signal(number)
            if path == "/never":
                # The first one is still being waited for; the second one is an order.
                with pytest.raises(subprocess.TimeoutExpired):
                    process.wait(0.3)
                process.send_signal(number)
            else:
                assert connection.getresponse().read() == b"done"
            assert process.stdout.read() == "ended\n"
            assert process.wait(10) == 0
            connection.close()
        finally:
            process.kill()
