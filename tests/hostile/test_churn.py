"""Coming and going in numbers, and the server's own going."""

from __future__ import annotations

import os
import signal
import socket
from contextlib import ExitStack

import pytest

from tests.hostile.case import get
from tests.hostile.client import RawClient
from tests.hostile.frames import PING, WebSocketClient, frame, text
from tests.hostile.process import ServerProcess

OPTIONS = {"timeouts": {"close_timeout": 0.3, "shutdown_timeout": 3.0}}
MIB = 1 << 20
#: HOSTILE_SCALE=15 makes 3,000 of each out of 200: what a release should stand.
SCALE = int(os.environ.get("HOSTILE_SCALE", "1"))
MANY = 200 * SCALE


def churn(server: ServerProcess) -> None:
    for _ in range(MANY):
        with WebSocketClient(server.address) as client:
            client.open()
            client.send(text("hello"))
            assert str(client.read_frame()) == "text 5"
            client.reset()
    for _ in range(MANY):
        with RawClient(server.address) as client:
            client.reset()
    for _ in range(MANY):
        with WebSocketClient(server.address) as client:
            client.open()
            client.send(frame(3, b"nonsense"))
            client.read_to_end()
    for _ in range(MANY):
        with RawClient(server.address) as client:
            client.send(get(path=b"/wait"))
            client.reset()


def test_churn_leaves_nothing(own_server: ServerProcess) -> None:
    churn(own_server)
    own_server.ask("forget")
    own_server.assert_calm()
    before = own_server.state().resident_bytes
    churn(own_server)
    log = own_server.state()
    own_server.ask("forget")
    own_server.assert_calm()
    # The first round fills the allocator's pools; the second finds them.
    assert own_server.state().resident_bytes - before < MIB
    assert log.tracebacks == []
    assert log.log_bytes < 100_000 * SCALE


def test_one_late_error_and_many_requests(own_server: ServerProcess) -> None:
    # One error after the response had begun ended Daphne's housekeeping for ever.
    with RawClient(own_server.address) as client:
        client.send(get(path=b"/raise-in-body"))
        client.response()
    before = own_server.state().resident_bytes
    with RawClient(own_server.address) as client:
        for _ in range(4000):
            client.send(get(path=b"/slow"))
            assert client.response().status == 200
    own_server.ask("forget")
    own_server.assert_calm()
    assert own_server.state().resident_bytes - before < MIB


def test_stop_tells_everyone(own_server: ServerProcess) -> None:
    with ExitStack() as stack:
        sockets = [
            stack.enter_context(WebSocketClient(own_server.address)) for _ in range(20 * SCALE)
        ]
        for each in sockets:
            each.open()
            each.send(frame(PING))
            assert str(each.read_frame()) == "pong 0"
        requests = [
            stack.enter_context(RawClient(own_server.address)) for _ in range(5 * min(SCALE, 10))
        ]
        for client in requests:
            client.send(get(path=b"/in-flight"))
            own_server.sees(client.port, "begun")
        idle = stack.enter_context(RawClient(own_server.address))
        idle.send(get())
        assert idle.response().status == 200

        own_server.terminate()
        # RFC 6455 section 7.4.1: 1001 "going away"; IANA's registry: 1012 "service restart".
        for each in sockets:
            code = str(each.read_frame()).removeprefix("close ")
            assert code in {"1001", "1012"}
            own_server.sees(each.port, "connect", f"disconnect {code}")
            assert each.read_to_end() == b""
        # An idle connection has nothing to wait for.
        assert idle.read_to_end() == b""
        for client in requests:
            answer = client.response()
            assert (answer.status, answer.body) == (200, b"GET /in-flight 0")
            assert client.read_to_end() == b""
        assert own_server.wait() == 0
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(own_server.address, 1)


def test_stop_does_not_wait_for_ever(own_server: ServerProcess) -> None:
    with RawClient(own_server.address) as client, WebSocketClient(own_server.address) as deaf:
        client.send(get(path=b"/hang"))
        own_server.sees(client.port, "hangs")
        deaf.open("/deaf")
        own_server.sees(deaf.port, "deaf")
        own_server.terminate()
        assert str(deaf.read_frame()) in {"close 1001", "close 1012"}
        assert own_server.wait() == 0


def test_second_signal_does_not_wait() -> None:
    server = ServerProcess({"timeouts": {"shutdown_timeout": 600.0}})
    try:
        with RawClient(server.address) as idle, RawClient(server.address) as client:
            idle.send(get())
            assert idle.response().status == 200
            client.send(get(path=b"/hang"))
            server.sees(client.port, "hangs")
            server.terminate()
            # That it lets go of the idle one shows that the first signal has come.
            assert idle.read_to_end() == b""
            server.terminate()
            assert server.wait() in {0, 1, -signal.SIGTERM}
    finally:
        server.kill()
