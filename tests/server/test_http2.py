"""HTTP/2 over real connections: requests, bodies, windows, and the end in order."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess

import pytest

from channels.kit.types import Message, Receive, Scope, Send
from channels.server import http2
from channels.server.counts import counts
from channels.server.endpoints import Endpoint, Tls
from tests.server.applications import body, echo, read_body, respond, start
from tests.server.conftest import Running, Serve, settled
from tests.server.http2_client import Http2Client, dial_http2, request
from tests.wire.http2 import frames


def port_of(running: Running) -> int:
    port = running.server.addresses[0][1]
    assert port is not None
    return port


async def test_one_connection_carries_many_requests(serve: Serve) -> None:
    running = await serve(echo, http2=True)
    async with dial_http2(port_of(running)) as client:
        for stream in range(1, 21, 2):
            client.get(stream, b"/%d" % stream)
        for stream in range(1, 21, 2):
            response = await client.response(stream)
            assert response.status == 200
            assert response.body == b"GET /%d " % stream
            assert response[b"server"] == b"channels"
            assert int(response[b"content-length"]) == len(response.body)
    assert sorted(record.path for record in running.records)[0] == "/1"
    assert {record.status for record in running.records} == {200}


async def test_clients_of_http1_see_no_change(serve: Serve) -> None:
    running = await serve(echo, http2=True)
    client = await running.connect()
    for path in ("/a", "/b"):
        client.get(path)
        assert (await client.answer()).body == f"GET {path} ".encode()


@pytest.mark.parametrize("options", [{}, {"http2": False}])
async def test_without_the_option_the_preface_is_refused(
    serve: Serve, options: dict[str, bool]
) -> None:
    running = await serve(echo, **options)
    client = await running.connect()
    client.send(frames.PREFACE)
    assert (await client.answer()).status == 505


async def test_http2_begins_a_connection_or_never(serve: Serve) -> None:
    running = await serve(echo, http2=True)
    client = await running.connect()
    client.get("/")
    await client.answer()
    client.send(frames.PREFACE)
    assert (await client.answer()).status == 505


async def test_a_preface_may_come_in_pieces(serve: Serve) -> None:
    running = await serve(echo, http2=True)
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(running))
    client = Http2Client(reader, writer)
    for byte in frames.PREFACE + frames.settings():
        client.send(bytes([byte]))
        await asyncio.sleep(0)
    client.get(1)
    assert (await client.response(1)).status == 200
    writer.close()


def client_context(protocols: list[str]) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(protocols)
    return context


@pytest.mark.parametrize("options", [{}, {"http2": True}])
async def test_over_tls_the_client_chooses(
    serve: Serve, tls: Tls, options: dict[str, bool]
) -> None:
    scopes: list[Scope] = []

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        scopes.append(scope)
        await respond(send, scope["http_version"].encode())

    running = await serve(application, Endpoint("tcp", host="127.0.0.1", tls=tls), **options)
    async with dial_http2(port_of(running), tls=client_context(["h2", "http/1.1"])) as client:
        client.get(1)
        assert (await client.response(1)).body == b"2"
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port_of(running), ssl=client_context(["http/1.1"])
    )
    writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert (await reader.read()).endswith(b"1.1")
    writer.close()
    assert [scope["scheme"] for scope in scopes] == ["https", "https"]


async def test_http2_can_be_kept_out_of_tls(serve: Serve, tls: Tls) -> None:
    running = await serve(echo, Endpoint("tcp", host="127.0.0.1", tls=tls), http2=False)
    _, writer = await asyncio.open_connection(
        "127.0.0.1", port_of(running), ssl=client_context(["h2", "http/1.1"])
    )
    tls_object = writer.get_extra_info("ssl_object")
    assert tls_object.selected_alpn_protocol() == "http/1.1"
    writer.close()


async def test_a_body_comes_whole_and_in_order(serve: Serve) -> None:
    received = []

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        received.append(await read_body(receive))
        await respond(send, b"done")

    running = await serve(application, http2=True)
    pieces = [bytes([n % 256]) * 5000 for n in range(40)]
    async with dial_http2(port_of(running)) as client:
        client.post(1, b"/", *pieces)
        client.post(3, b"/")
        assert (await client.response(1)).body == b"done"
        assert (await client.response(3)).body == b"done"
    assert sorted(received) == sorted([b"".join(pieces), b""])


async def test_a_client_sends_no_more_than_the_application_takes(serve: Serve) -> None:
    go_on = asyncio.Event()
    sizes = []

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await go_on.wait()
        while True:
            event = await receive()
            sizes.append(len(event["body"]))
            if not event["more_body"]:
                break
        await respond(send)

    running = await serve(application, http2=True, http2_stream_window_bytes=20_000)
    async with dial_http2(port_of(running)) as client:
        client.send(frames.headers(1, frames.POST, ends=False), frames.data(1, bytes(16_000)))
        client.send(frames.data(1, bytes(4000)))
        await client.round_trip()
        opened = [each for each in client.frames if each.kind == frames.WINDOW_UPDATE]
        assert [each.stream for each in opened if each.stream] == []
        go_on.set()
        await client.until(
            lambda: any(e.kind == frames.WINDOW_UPDATE and e.stream == 1 for e in client.frames)
        )
        client.send(frames.data(1, bytes(10_000), ends=True))
        assert (await client.response(1)).status == 200
    assert sum(sizes) == 30_000


async def test_a_slow_application_holds_up_no_other_stream(serve: Serve) -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/slow":
            await asyncio.Event().wait()
        await respond(send, b"%d" % len(await read_body(receive)))

    running = await serve(application, http2=True, close_timeout=0.05)
    async with dial_http2(port_of(running)) as client:
        client.send(frames.headers(1, request(b"POST", b"/slow"), ends=False))
        client.send(*(frames.data(1, bytes(16_000)) for _ in range(16)))
        client.post(3, b"/", bytes(16_000))
        assert (await client.response(3)).body == b"16000"


async def test_send_waits_for_the_clients_windows(serve: Serve) -> None:
    sent = 0

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal sent
        await send(start())
        for _ in range(50):
            await send(body(bytes(10_000), more=True))
            sent += 10_000
        await send(body())

    running = await serve(application, http2=True, write_buffer_bytes=20_000)
    async with dial_http2(port_of(running)) as client:
        client.opens_windows = False
        client.get(1)
        await client.until(
            lambda: len(client.responses[1].body) == 65_535 if 1 in (client.responses) else False
        )
        await client.round_trip()
        assert sent < 100_000
        client.opens_windows = True
        client.send(frames.window_update(0, 65_535), frames.window_update(1, 65_535))
        assert len((await client.response(1)).body) == 500_000


async def test_streams_take_turns(serve: Serve) -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, bytes(2_000_000 if scope["path"] == "/long" else 10))

    running = await serve(application, http2=True)
    async with dial_http2(port_of(running), (frames.INITIAL_WINDOW, 2**30)) as client:
        client.send(frames.window_update(0, 2**30))
        client.get(1, b"/long")
        client.get(3, b"/short")
        await client.response(3)
        assert len(client.responses[1].body) < 1_500_000
        assert len((await client.response(1)).body) == 2_000_000


async def test_a_reset_tells_the_application(serve: Serve) -> None:
    events: list[Message] = []

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        while True:
            events.append(await receive())
            if events[-1]["type"] == "http.disconnect":
                return

    running = await serve(application, http2=True)
    async with dial_http2(port_of(running)) as client:
        client.send(frames.headers(1, frames.POST, ends=False))
        await client.round_trip()
        client.send(frames.rst(1))
        await settled(lambda: len(events) == 1)
        client.get(3)
        client.send(frames.rst(3))
        await settled(
            lambda: [e["type"] for e in events[1:]] == ["http.request", "http.disconnect"]
        )
    assert [record.status for record in running.records] == [None, None]


async def test_an_early_answer_ends_the_request(serve: Serve) -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, b"no", 403)

    running = await serve(application, http2=True)
    async with dial_http2(port_of(running)) as client:
        client.send(frames.headers(1, frames.POST, ends=False), frames.data(1, b"begun"))
        response = await client.response(1)
        assert (response.status, response.body) == (403, b"no")
        await client.until(lambda: response.reset is not None)
        assert response.reset == frames.NO_ERROR
        client.send(frames.data(1, b"late", ends=True))
        client.get(3)
        assert (await client.response(3)).status == 403


async def test_a_body_is_asked_for(serve: Serve) -> None:
    running = await serve(echo, http2=True)
    async with dial_http2(port_of(running)) as client:
        fields = request(b"POST", b"/", (b"expect", b"100-continue"))
        client.send(frames.headers(1, fields, ends=False))
        await client.until(lambda: 1 in client.responses and client.responses[1].interim)
        client.send(frames.data(1, b"hello", ends=True))
        response = await client.response(1)
        assert response.interim == [100]
        assert response.body == b"POST / hello"


async def test_a_failing_application_is_answered(serve: Serve) -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/late":
            await send(start())
            await send(body(b"half", more=True))
        raise RuntimeError("on purpose")

    running = await serve(application, http2=True)
    async with dial_http2(port_of(running)) as client:
        client.get(1)
        assert (await client.response(1)).status == 500
        client.get(3, b"/late")
        response = await client.response(3)
        assert response.reset == frames.INTERNAL_ERROR
        assert not response.has_ended


@pytest.mark.parametrize(
    ("fields", "ends", "limits", "status"),
    [
        ([(b"X", b"y")], True, {}, 400),
        ([(b"a", b"b")] * 200, True, {}, 431),
        ([(b"content-length", b"10")], False, {"max_body_bytes": 9}, 413),
        ([], False, {"max_body_bytes": 9}, 413),
    ],
)
async def test_bad_requests_are_answered_and_recorded(
    serve: Serve,
    fields: list[tuple[bytes, bytes]],
    ends: bool,
    limits: dict[str, int],
    status: int,
) -> None:
    running = await serve(echo, http2=True, **limits)
    async with dial_http2(port_of(running)) as client:
        client.send(frames.headers(1, request(b"POST", b"/", *fields), ends=ends))
        if not ends:
            client.send(frames.data(1, bytes(10)))
        response = await client.response(1)
        assert response.status == status
        client.get(3)
        assert (await client.response(3)).status == 200
    assert [record.status for record in running.records] == [status, 200]


async def test_a_slow_body_is_answered_with_408(serve: Serve) -> None:
    running = await serve(echo, http2=True, body_timeout=0.05)
    async with dial_http2(port_of(running)) as client:
        client.send(frames.headers(1, frames.POST, ends=False))
        assert (await client.response(1)).status == 408


async def test_a_slow_answer_is_503(serve: Serve) -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.Event().wait()

    running = await serve(application, http2=True, http_timeout=0.05, close_timeout=0.05)
    async with dial_http2(port_of(running)) as client:
        client.get(1)
        assert (await client.response(1)).status == 503


async def test_an_idle_connection_is_told_and_closed(serve: Serve) -> None:
    running = await serve(echo, http2=True, keep_alive=0.05)
    async with dial_http2(port_of(running)) as client:
        client.get(1)
        await client.response(1)
        await client.read_to_end()
        (goaway,) = client.goaways
        assert goaway.code == frames.NO_ERROR
        assert int.from_bytes(goaway.payload[:4]) == 1


@pytest.mark.parametrize(
    "begun", [frames.PREFACE[:20], frames.PREFACE + frames.settings() + frames.headers(flags=0)]
)
async def test_a_header_that_does_not_end_is_cut(serve: Serve, begun: bytes) -> None:
    running = await serve(echo, http2=True, header_timeout=0.05)
    before = counts.cut["slow_header"]
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(running))
    writer.write(begun)
    await reader.read()
    assert counts.cut["slow_header"] == before + 1
    writer.close()


async def test_a_client_that_reads_nothing_of_a_stream_loses_it(serve: Serve) -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, bytes(1_000_000 if scope["path"] == "/long" else 10))

    running = await serve(application, http2=True, write_timeout=0.1)
    before = counts.cut["not_reading"]
    async with dial_http2(port_of(running)) as client:
        client.opens_windows = False
        client.get(1, b"/long")
        response = await client.response(1)
        assert response.reset == frames.CANCEL
        client.send(frames.window_update(0, 100))
        client.get(3)
        assert (await client.response(3)).has_ended
    assert counts.cut["not_reading"] == before + 1


async def test_a_stop_answers_what_is_in_hand(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The client's answer to the first GOAWAY brings the second, and not the time.
    monkeypatch.setattr(http2, "DRAIN_SECONDS", 1000.0)
    entered, go_on = asyncio.Event(), asyncio.Event()

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        entered.set()
        await go_on.wait()
        await respond(send, b"in time")

    running = await serve(application, http2=True)
    async with dial_http2(port_of(running)) as client:
        client.get(1)
        await entered.wait()
        stop = asyncio.ensure_future(running.server.stop(5))
        await client.until(lambda: len(client.goaways) == 2)
        first, second = client.goaways
        assert int.from_bytes(first.payload[:4]) == 2**31 - 1
        assert int.from_bytes(second.payload[:4]) == 1
        client.get(3)
        await client.until(lambda: 3 in client.responses)
        assert client.responses[3].reset == frames.REFUSED_STREAM
        go_on.set()
        assert (await client.response(1)).body == b"in time"
        await client.read_to_end()
        await stop


async def test_one_address_too_often_is_told_in_http2(serve: Serve, tls: Tls) -> None:
    endpoint = Endpoint("tcp", host="127.0.0.1", tls=tls)
    running = await serve(echo, endpoint, max_connections_per_address=1)
    async with dial_http2(port_of(running), tls=client_context(["h2"])) as client:
        client.get(1)
        await client.response(1)
        async with dial_http2(port_of(running), tls=client_context(["h2"])) as other:
            await other.read_to_end()
            assert other.goaways[0].code == frames.ENHANCE_YOUR_CALM


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
async def test_curl(serve: Serve) -> None:
    running = await serve(echo, http2=True)
    words = ["curl", "-sS", "--http2-prior-knowledge", "-w", " %{http_version} %{http_code}"]
    url = f"http://127.0.0.1:{port_of(running)}/curl"
    got = await asyncio.to_thread(
        subprocess.run, [*words, "--data-binary", "hello", url], capture_output=True, check=True
    )
    assert got.stdout == b"POST /curl hello 2 200"


@pytest.mark.skipif(shutil.which("nghttp") is None, reason="needs nghttp (nghttp2-client)")
async def test_nghttp(serve: Serve) -> None:
    running = await serve(echo, http2=True)
    urls = [f"http://127.0.0.1:{port_of(running)}/{n}" for n in range(20)]
    got = await asyncio.to_thread(
        subprocess.run, ["nghttp", *urls], capture_output=True, check=True
    )
    assert sorted(got.stdout.split()) == sorted(b"GET /%d" % n for n in range(20) for _ in "a") or (
        got.stdout.count(b"GET /") == 20
    )
