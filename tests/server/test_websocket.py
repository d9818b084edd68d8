"""WebSockets over real sockets: what clients and applications rely on."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import resource
from typing import Any

import pytest
from django.utils.translation import gettext_lazy
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from channels.exceptions import ClientDisconnected, LocalProtocolError, NoRouteFound
from channels.fanout.prepared import DEFLATE, PLAIN, PreparedMessage
from channels.kit.doors import find_mailbox, find_sink
from channels.kit.limits import Limits, Timeouts
from channels.kit.throttle import Throttle
from channels.kit.types import Message, Receive, Scope, Send
from channels.server import Server, ServerOptions, parse_endpoint
from channels.server.counts import counts
from tests.server.shell import Recorder, dial, eventually, request, serve, text
from tests.wire.peer import BINARY, CLOSE, CONTINUATION, PING, TEXT, close, frame
from tests.wire.test_websocket import VIOLATIONS

ACCEPT: Message = {"type": "websocket.accept"}


async def test_an_echo_with_a_standard_client() -> None:
    app = Recorder()
    async with serve(app) as server, connect(server.url) as client:
        for message in ("hello", "", "é" * 70_000, b"", b"\x00\xff", b"x" * 70_000):
            await client.send(message)
            assert await client.recv() == message
        await client.close(4321, "enough")
        assert await app.until_disconnected() == {
            "type": "websocket.disconnect",
            "code": 4321,
            "reason": "enough",
        }
        assert client.close_code == 4321
    assert server.kinds == ["connecting", "connected", "disconnected"]


async def test_the_scope_tells_what_was_asked_for() -> None:
    app = Recorder()
    async with serve(app) as server, dial(server, "Sec-WebSocket-Protocol: a, b"):
        (scope,) = app.scopes
        assert scope["type"] == "websocket"
        assert scope["subprotocols"] == ["a", "b"]
        assert scope["extensions"]["websocket.http.response"] == {}


async def test_accept_with_a_subprotocol_and_headers() -> None:
    async def handle(_: Recorder, event: Message, send: Send) -> None:
        await send({**ACCEPT, "subprotocol": "b", "headers": [(b"X-Room", b"7")]})

    offer = "Sec-WebSocket-Protocol: a, b"
    async with serve(Recorder(handle)) as server, dial(server, offer) as client:
        assert b"\r\nsec-websocket-protocol: b\r\n" in client.head
        assert b"\r\nx-room: 7\r\n" in client.head


@pytest.mark.parametrize(
    "accept",
    [
        {"subprotocol": "c"},
        {"subprotocol": "caf\xe9"},
        {"headers": [(b"x", b"a\r\nset-cookie: b")]},
        {"headers": [(b"bad name", b"a")]},
        {"headers": [("x", "a")]},
    ],
)
async def test_an_accept_that_cannot_be_sent_is_an_error_and_a_500(
    accept: Message, caplog: pytest.LogCaptureFixture
) -> None:
    async def handle(_: Recorder, event: Message, send: Send) -> None:
        await send({**ACCEPT, **accept})

    async with serve(Recorder(handle)) as server:
        async with dial(server, "Sec-WebSocket-Protocol: a", accepted=False) as client:
            assert await client.read_head() == 500
            assert b"set-cookie" not in client.head
        assert caplog.text.count("Traceback") == 1
        async with dial(server, accepted=False) as client:
            assert await client.read_head() == 500


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        (["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="], 400),
        (["Content-Length: 5"], 400),
        (["Sec-WebSocket-Protocol: caf\xe9"], 400),
        (["Sec-WebSocket-Extensions: ;"], 400),
    ],
)
async def test_a_bad_handshake_never_reaches_the_application(
    fields: list[str], status: int
) -> None:
    app = Recorder()
    async with serve(app) as server, dial(server, *fields, accepted=False) as client:
        assert await client.read_head() == status
        await client.reader.read()
    assert app.scopes == []
    assert [record.status for record in server.records] == [status]


async def test_another_version_is_told_which_one_is_spoken() -> None:
    old = request().replace(b"Version: 13", b"Version: 12")
    async with serve(Recorder()) as server, dial(server, handshake=old, accepted=False) as client:
        assert await client.read_head() == 426
        (record,) = server.records
        assert (record.kind, record.path, record.status) == ("websocket.rejected", "/", 426)
        assert b"\r\nsec-websocket-version: 13\r\n" in client.head
        assert b"\r\nupgrade: websocket\r\n" in client.head


async def test_close_before_accept_is_a_403() -> None:
    async def handle(_: Recorder, event: Message, send: Send) -> None:
        await send({"type": "websocket.close", "code": 4000})

    app = Recorder(handle)
    async with serve(app) as server:
        with pytest.raises(InvalidStatus) as caught:
            await connect(server.url)
        assert caught.value.response.status_code == 403
        assert (await app.until_disconnected())["code"] == 1006
    assert server.kinds == ["connecting", "rejected"]
    assert server.records[-1].status == 403


async def test_a_denial_in_the_applications_own_words() -> None:
    async def handle(_: Recorder, event: Message, send: Send) -> None:
        await send(
            {
                "type": "websocket.http.response.start",
                "status": 401,
                "headers": [(b"www-authenticate", b"Basic")],
            }
        )
        await send({"type": "websocket.http.response.body", "body": b"log ", "more_body": True})
        await send({"type": "websocket.http.response.body", "body": b"in"})

    app = Recorder(handle)
    async with serve(app) as server:
        with pytest.raises(InvalidStatus) as caught:
            await connect(server.url)
        response = caught.value.response
        assert (response.status_code, response.body) == (401, b"log in")
        assert response.headers["www-authenticate"] == "Basic"
        await app.until_disconnected()
    assert server.records[-1].kind == "websocket.rejected"
    assert server.records[-1].status == 401


async def test_an_application_that_does_not_answer_is_refused_in_time() -> None:
    app_was_cancelled = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            app_was_cancelled.set()

    timeouts = Timeouts(handshake_timeout=0.05, close_timeout=0.05)
    async with serve(app, timeouts=timeouts) as server, dial(server, accepted=False) as client:
        assert await client.read_head() == 403
        await app_was_cancelled.wait()


async def test_a_frame_in_the_same_packet_as_the_handshake_arrives() -> None:
    async with serve(Recorder()) as server, dial(server, early=text("early")) as client:
        assert await client.read_frame() == (0x81, b"early")


async def test_frames_before_accept_wait_with_the_socket_unread() -> None:
    may_accept = asyncio.Event()

    async def handle(_: Recorder, event: Message, send: Send) -> None:
        if event["type"] == "websocket.connect":
            await may_accept.wait()
            await send(ACCEPT)

    app = Recorder(handle)
    async with serve(app) as server, dial(server, accepted=False, early=text("1")) as client:
        await eventually(lambda: app.events)
        client.send(text("2"), text("3"))
        may_accept.set()
        await client.read_head()
        await eventually(lambda: len(app.events) == 4)
        assert [event.get("text") for event in app.events[1:]] == ["1", "2", "3"]


@pytest.mark.parametrize("name", ["unmasked", "bad UTF-8", "too many fragments", "frame too big"])
async def test_a_violation_gives_both_sides_the_same_code(name: str) -> None:
    bad, code = VIOLATIONS[name]
    app = Recorder()
    limits = Limits(max_message_bytes=1000, max_frame_bytes=500, max_fragments=4)
    async with serve(app, limits=limits) as server, dial(server) as client:
        client.send(text("good"), bad, text("ignored"))
        # The echo of what was complete is not lost: it comes before the close frame.
        assert await client.read_frame() == (0x81, b"good")
        assert await client.read_close() == code
        assert (await app.until_disconnected())["code"] == code
        assert app.kinds == ["connect", "receive", "disconnect"]


async def test_a_violation_in_the_middle_of_an_upload_still_shows_its_code() -> None:
    app = Recorder()
    async with serve(app, limits=Limits(max_message_bytes=1000)) as server:
        async with dial(server) as client:
            for _ in range(8):
                client.send(frame(BINARY, bytes(300_000)))
            assert await client.read_close() == 1009
        assert (await app.until_disconnected())["code"] == 1009


async def test_a_busy_application_does_not_hold_up_the_close_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("channels.server.websocket.LAST_WORDS_SECONDS", 0.02)
    busy = asyncio.Event()

    async def handle(_: Recorder, event: Message, send: Send) -> None:
        if event["type"] == "websocket.connect":
            await send(ACCEPT)
        else:
            await busy.wait()

    app = Recorder(handle)
    async with serve(app) as server, dial(server) as client:
        client.send(text("x"), close(1000))
        assert await client.read_close() == 1000
        assert app.kinds == ["connect", "receive"]
        busy.set()
        assert (await app.until_disconnected())["code"] == 1000


async def test_an_abrupt_end_is_1006_once() -> None:
    app = Recorder()
    async with serve(app) as server:
        async with dial(server) as client:
            client.send(text("x"))
            await client.read_frame()
            client.writer.transport.abort()
        assert (await app.until_disconnected())["code"] == 1006


async def test_a_half_closed_socket_is_1006() -> None:
    app = Recorder()
    async with serve(app) as server, dial(server) as client:
        client.writer.write_eof()
        assert await client.read_frames() == []
        assert (await app.until_disconnected())["code"] == 1006


async def test_a_client_that_leaves_before_the_answer_is_told_to_the_application() -> None:
    async def handle(_: Recorder, event: Message, send: Send) -> None:
        pass

    app = Recorder(handle)
    async with serve(app) as server:
        async with dial(server, accepted=False):
            await eventually(lambda: app.events)
        assert (await app.until_disconnected())["code"] == 1006
    assert server.kinds == ["connecting", "disconnected"]


async def test_send_after_the_end_raises_an_oserror_and_a_second_close_is_ignored() -> None:
    raised: list[BaseException] = []

    async def handle(_: Recorder, event: Message, send: Send) -> None:
        await send(ACCEPT)
        await send({"type": "websocket.close", "code": 4001, "reason": "bye"})
        await send({"type": "websocket.close"})
        for message in ({"type": "websocket.send", "text": "x"}, ACCEPT):
            try:
                await send(message)
            except OSError as error:
                raised.append(error)

    app = Recorder(handle)
    async with serve(app) as server:
        async with connect(server.url) as client:
            with pytest.raises(ConnectionClosed):
                await client.recv()
            assert (client.close_code, client.close_reason) == (4001, "bye")
        assert (await app.until_disconnected())["code"] == 4001
    assert [type(error) for error in raised] == [ClientDisconnected] * 2


async def test_receive_after_the_disconnect_raises_instead_of_spinning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ended = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(ACCEPT)
        try:
            while True:
                await receive()
        finally:
            ended.set()

    async with serve(app) as server:
        async with connect(server.url):
            pass
        await ended.wait()
        await eventually(lambda: not len(server.tasks))
    assert "Traceback" not in caplog.text


MISUSES: list[tuple[list[Message], int]] = [
    ([{"type": "websocket.send", "text": "a", "bytes": b"b"}], 1011),
    ([{"type": "websocket.send", "text": b"a"}], 1011),
    ([{"type": "websocket.send", "text": "\ud800"}], 1011),
    ([{"type": "websocket.close", "code": 1005}], 1011),
    ([{"type": "websocket.accept"}], 1011),
    ([{}], 1011),
]


@pytest.mark.parametrize(("messages", "code"), MISUSES)
async def test_misuse_after_accept_is_a_local_error_and_1011(
    messages: list[Message], code: int, caplog: pytest.LogCaptureFixture
) -> None:
    raised: list[type] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(ACCEPT)
        try:
            for message in messages:
                await send(message)
        except Exception as error:
            raised.append(type(error))
            raise

    async with serve(app) as server, dial(server) as client:
        assert await client.read_close() == code
    assert raised == [LocalProtocolError]
    assert caplog.text.count("Traceback") == 1


HELLO: Message = {"type": "websocket.send", "text": "hello"}
BYE: Message = {"type": "websocket.close", "code": 4000}


@pytest.mark.parametrize(
    ("ignored", "said"),
    [
        ({"type": "websocket.frob"}, "{0} {accept} {0} {hello} {bye} {0}"),
        ({"type": "http.response.start", "status": 200}, "{0} {accept} {0} {hello} {bye} {0}"),
        ({"type": "websocket.send"}, "{accept} {0} {hello} {0} {bye}"),
        ({"type": "websocket.send", "text": None}, "{accept} {0} {hello} {0} {bye}"),
    ],
)
async def test_a_message_that_a_websocket_does_not_know_is_ignored_with_a_warning(
    ignored: Message, said: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("channels.server.websocket_messages._ignored", Throttle(60.0))
    messages = {"{0}": ignored, "{accept}": ACCEPT, "{hello}": HELLO, "{bye}": BYE}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for word in said.split():
            await send(messages[word])

    timeouts = Timeouts(close_timeout=0.05)
    async with serve(app, timeouts=timeouts) as server, dial(server) as client:
        assert await client.read_frames() == [(0x81, b"hello"), (0x88, b"\x0f\xa0")]
    (line,) = (record for record in caplog.records if record.levelno >= logging.WARNING)
    assert line.getMessage().startswith("Ignored a message ")


async def test_lazy_texts_are_sent_and_long_reasons_cut() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(ACCEPT)
        await send({"type": "websocket.send", "text": gettext_lazy("hello")})
        await send({"type": "websocket.close", "reason": gettext_lazy("é" * 100)})

    timeouts = Timeouts(close_timeout=0.05)
    async with serve(app, timeouts=timeouts) as server, dial(server) as client:
        closed = b"\x03\xe8" + "é".encode() * 61
        assert await client.read_frames() == [(0x81, b"hello"), (0x88, closed)]


async def failing(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    raise RuntimeError("broken")


async def returning(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()


async def unrouted(scope: Scope, receive: Receive, send: Send) -> None:
    raise NoRouteFound("No route found for path '/'.")


async def failing_late(scope: Scope, receive: Receive, send: Send) -> None:
    await send(ACCEPT)
    raise RuntimeError("broken")


async def returning_late(scope: Scope, receive: Receive, send: Send) -> None:
    await send(ACCEPT)


async def exiting(scope: Scope, receive: Receive, send: Send) -> None:
    raise SystemExit


@pytest.mark.parametrize(
    ("app", "status", "tracebacks"),
    [(failing, 500, 1), (returning, 403, 0), (unrouted, 403, 0), (exiting, 500, 1)],
)
async def test_an_application_that_ends_before_it_answers(
    app: Any, status: int, tracebacks: int, caplog: pytest.LogCaptureFixture
) -> None:
    async with serve(app) as server:
        async with dial(server, accepted=False) as client:
            assert await client.read_head() == status
        assert caplog.text.count("Traceback") == tracebacks
        lines = [
            record
            for record in caplog.records
            if record.levelno >= logging.WARNING and record.name.startswith("django.channels")
        ]
        assert len(lines) == 1


@pytest.mark.parametrize(
    ("app", "code", "tracebacks"), [(failing_late, 1011, 1), (returning_late, 1000, 0)]
)
async def test_an_application_that_ends_while_open_closes_at_once(
    app: Any, code: int, tracebacks: int, caplog: pytest.LogCaptureFixture
) -> None:
    async with serve(app) as server:
        async with connect(server.url) as client:
            with pytest.raises(ConnectionClosed):
                await client.recv()
            assert client.close_code == code
        assert caplog.text.count("Traceback") == tracebacks


async def test_a_client_that_ignores_the_close_is_left_in_time() -> None:
    async def handle(_: Recorder, event: Message, send: Send) -> None:
        await send(ACCEPT)
        await send({"type": "websocket.close", "code": 4000})

    app = Recorder(handle)
    async with serve(app, timeouts=Timeouts(close_timeout=0.05)) as server:
        async with dial(server) as client:
            assert await client.read_frames() == [(0x88, b"\x0f\xa0")]
        assert (await app.until_disconnected())["code"] == 1006


async def test_an_application_that_stays_is_cancelled(caplog: pytest.LogCaptureFixture) -> None:
    cancelled = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(ACCEPT)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async with serve(app, timeouts=Timeouts(close_timeout=0.05)) as server:
        async with connect(server.url):
            pass
        await cancelled.wait()
        await eventually(lambda: not len(server.tasks))
    assert "cancelled" in caplog.text


async def test_a_consumer_that_sees_to_its_own_end_gets_twice_the_time(
    caplog: pytest.LogCaptureFixture,
) -> None:
    told = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        mailbox = find_mailbox(scope, receive)
        assert mailbox is not None
        mailbox.on_gone = told.set
        await send(ACCEPT)
        await asyncio.Event().wait()

    async with serve(app, timeouts=Timeouts(close_timeout=0.05)) as server:
        async with connect(server.url):
            pass
        await told.wait()
        await eventually(lambda: not len(server.tasks))
    assert "running 0.1 s after" in caplog.text


async def test_pings_are_sent_and_a_silent_client_is_cut_off() -> None:
    app = Recorder()
    timeouts = Timeouts(ping_interval=0.02, ping_timeout=0.05)
    before = counts.cut["no_pong"]
    async with serve(app, timeouts=timeouts) as server, connect(server.url) as living:
        async with dial(server) as silent:
            frames = await silent.read_frames()
            assert frames
            assert set(frames) == {(0x89, b"")}
        await eventually(lambda: "disconnect" in app.kinds)
        assert (app.disconnect["code"], app.disconnect["reason"]) == (1006, "No pong came.")
        await living.send("still here")
        assert await living.recv() == "still here"
    assert counts.cut["no_pong"] == before + 1


async def test_a_lifetime_ends_with_1000() -> None:
    app = Recorder()
    async with serve(app, timeouts=Timeouts(websocket_timeout=0.05)) as server:
        async with connect(server.url) as client:
            with pytest.raises(ConnectionClosed):
                await client.recv()
            assert client.close_code == 1000
        assert (await app.until_disconnected())["code"] == 1000


@pytest.mark.parametrize("code", [1001, 1012])
async def test_stop_closes_every_socket_and_tells_every_application(code: int) -> None:
    app = Recorder()
    async with serve(app, websocket_stop_code=code) as server:
        async with contextlib.AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(dial(server)) for _ in range(300)]
            closes = [asyncio.ensure_future(client.read_close()) for client in clients]
            await server.stop()
            assert app.running == 0
            assert await asyncio.gather(*closes) == [code] * 300
        assert not server.connections
    assert [e["code"] for e in app.events if e["type"] == "websocket.disconnect"] == [code] * 300


async def test_stop_refuses_who_waits_for_an_answer() -> None:
    async def handle(_: Recorder, event: Message, send: Send) -> None:
        pass

    app = Recorder(handle)
    async with serve(app) as server, dial(server, accepted=False) as client:
        await eventually(lambda: app.events)
        await server.stop()
        assert await client.read_head() == 503
        assert (await app.until_disconnected())["code"] == 1001


def peak_bytes() -> int:
    """The most memory that this process has had so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


async def test_an_application_that_never_reads_leaves_the_socket_unread() -> None:
    received = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(ACCEPT)
        await received.wait()
        while (await receive())["type"] != "websocket.disconnect":
            pass

    async with serve(app) as server, dial(server) as client:
        message = frame(BINARY, bytes(60_000))
        before = peak_bytes()
        sent = 0
        # The system's buffers and ours fill; then the client's write waits.
        while sent < 64 * 1024 * 1024 and not client.writer.transport.get_write_buffer_size():
            client.send(message)
            sent += len(message)
            await asyncio.sleep(0)
        assert sent < 32 * 1024 * 1024
        assert peak_bytes() - before < 32 * 1024 * 1024
        received.set()
        client.send(close(1000))
        assert await client.read_close() == 1000


async def test_a_ping_flood_from_a_client_that_does_not_read_stops() -> None:
    limits = Limits(max_control_rate=None)
    async with serve(Recorder(), limits=limits) as server, dial(server) as client:
        flood = frame(PING, bytes(125)) * 500
        sent = 0
        while sent < 64 * 1024 * 1024 and not client.writer.transport.get_write_buffer_size():
            client.send(flood)
            sent += len(flood)
            await asyncio.sleep(0)
        assert sent < 32 * 1024 * 1024
        client.send(frame(PING, b"last"), close(1000))
        frames = await client.read_frames()
        assert frames[-2:] == [(0x8A, b"last"), (0x88, b"\x03\xe8")]
        assert len(frames) == sent // len(flood) * 500 + 2


async def test_a_flooding_application_waits_and_its_reader_is_cut_off() -> None:
    sent = 0
    ended: list[BaseException] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal sent
        await send(ACCEPT)
        try:
            while sent < 512 * 1024 * 1024:
                await send({"type": "websocket.send", "bytes": bytes(64 * 1024)})
                sent += 64 * 1024
        except OSError as error:
            ended.append(error)
            raise

    before = peak_bytes()
    async with serve(app, timeouts=Timeouts(write_timeout=0.1)) as server:
        async with dial(server):
            await eventually(lambda: ended)
        await eventually(lambda: not len(server.tasks))
    assert sent < 32 * 1024 * 1024
    assert peak_bytes() - before < 32 * 1024 * 1024


async def test_a_slow_reader_gets_everything_in_order() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(ACCEPT)
        for number in range(1000):
            await send({"type": "websocket.send", "bytes": b"%04d" % number + bytes(10_000)})
        await send({"type": "websocket.close"})
        await receive()

    async with serve(app) as server, dial(server) as client:
        for number in range(1000):
            got = await client.read_frame()
            assert got is not None
            assert got[1][:4] == b"%04d" % number
        assert await client.read_frame() == (0x88, b"\x03\xe8")


async def test_the_door_opens_onto_the_mailbox_and_the_sink() -> None:
    forms: list[str | None] = []
    message = PreparedMessage(text="hello " * 100)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        mailbox, sink = find_mailbox(scope, receive), find_sink(scope, send)
        assert mailbox is not None
        assert sink is not None
        assert await mailbox.get() == {"type": "websocket.connect"}
        forms.append(sink.form)
        await send(ACCEPT)
        form = sink.form
        assert form is not None
        forms.append(form)
        sink.write(message.frame(form))
        assert (await mailbox.get())["type"] == "websocket.disconnect"
        forms.append(sink.form)

    async with serve(app) as server:
        for compression in ("deflate", None):
            async with connect(server.url, compression=compression) as client:
                assert await client.recv() == "hello " * 100
            await eventually(lambda: not len(server.tasks))
    assert forms == [None, DEFLATE, None, None, PLAIN, None]


async def test_a_full_outlet_closes_the_sink() -> None:
    full = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(ACCEPT)
        sink = find_sink(scope, send)
        assert sink is not None
        frames = 0
        while sink.form is not None and frames < 10_000:
            sink.write(PreparedMessage(data=bytes(65_000)).frame())
            frames += 1
            await asyncio.sleep(0)
        assert frames < 1000
        full.set()
        await receive()

    async with serve(app) as server, dial(server):
        await full.wait()


@pytest.mark.parametrize("compressed", [True, False])
async def test_compression_is_an_option(compressed: bool) -> None:
    server_of = functools.partial(serve, websocket_compression=compressed)
    async with server_of(Recorder()) as server, connect(server.url) as client:
        assert bool(client.protocol.extensions) is compressed
        for size in (10, 300, 50_000):
            await client.send("compress me " * size)
            assert await client.recv() == "compress me " * size


async def test_fragments_and_pings_cross_the_wire() -> None:
    async with serve(Recorder()) as server, dial(server) as client:
        client.send(frame(TEXT, b"\xc3", fin=False), frame(PING, b"p"))
        client.send(frame(CONTINUATION, b"\xa9"), frame(CLOSE))
        assert await client.read_frames() == [(0x8A, b"p"), (0x81, b"\xc3\xa9"), (0x88, b"")]


async def test_one_connections_failure_is_no_others() -> None:
    async def handle(recorder: Recorder, event: Message, send: Send) -> None:
        if event.get("text") == "fail":
            raise RuntimeError
        await Recorder.echo(recorder, event, send)

    async with serve(Recorder(handle)) as server, connect(server.url) as other:
        for _ in range(20):
            async with dial(server) as client:
                client.send(text("fail"))
                assert await client.read_close() == 1011
        await other.send("fine")
        assert await other.recv() == "fine"


async def test_a_whole_server_stops_with_its_sockets_open() -> None:
    app = Recorder()
    endpoint = parse_endpoint("tcp:port=0:interface=127.0.0.1")
    server = Server(app, [endpoint], ServerOptions(lifespan="off"))
    await server.start()
    host, port = server.addresses[0]
    async with connect(f"ws://{host}:{port}/") as client:
        await client.send("hello")
        assert await client.recv() == "hello"
        await server.stop()
        await client.wait_closed()
        assert client.close_code == 1001
    assert app.disconnect["code"] == 1001
    assert server.connection_count == 0
