"""Requests through channels: what a worker is told, and what becomes of its reply."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from channels.exceptions import ChannelFull, RequestAborted
from channels.kit.limits import KIB, MIB, Timeouts
from channels.layers import InMemoryChannelLayer, LocalChannelLayer
from channels.legacy.asgi import ChannelLayerWrapper
from channels.legacy.message import Message as LegacyMessage
from channels.legacy.pacing import PacedReply
from tests.legacy.interface.site import PATIENCE_SECONDS, Site, interface
from tests.server.client import Client
from tests.server.shell import eventually

KIB64 = 64 * KIB


async def test_a_request_and_its_response() -> None:
    async with interface() as site, site.client() as client:
        client.request("POST", "/page%20one?a=1", "Content-Length: 4", "X-It: yes", body=b"body")
        message = await site.take("http.request")
        headers = [[b"X-Made-By", b"worker"], [b"content-type", b"text/plain"]]
        await site.reply(message, status=201, headers=headers, content=b"made")
        answer = await client.answer()
    assert (answer.status, answer.body) == (201, b"made")
    assert answer["x-made-by"] == "worker"
    assert answer["content-length"] == "4"
    found = {key: message[key] for key in message.keys() - {"reply_channel", "headers", "client"}}
    assert found == {
        "http_version": "1.1",
        "method": "POST",
        "path": "/page one",
        "query_string": b"a=1",
        "root_path": "",
        "scheme": "http",
        "body": b"body",
        "response_window": 8 * MIB,
        "server": ["127.0.0.1", site.shell.port],
    }
    assert [b"x-it", b"yes"] in [list(pair) for pair in message["headers"]]
    assert site.interface.statistics() == {"http.request": 1}


async def test_a_connection_serves_one_request_after_the_other() -> None:
    async with interface() as site, site.client() as client:
        for number in (b"1", b"2"):
            client.get()
            await site.reply(await site.take("http.request"), status=200, content=number)
            assert (await client.answer()).body == number


async def test_a_response_in_pieces() -> None:
    async with interface() as site, site.client() as client:
        client.get()
        message = await site.take("http.request")
        await site.reply(message, status=200, headers=[], content=b"one ", more_content=True)
        assert (await client.head()).status == 200
        await site.reply(message, content=b"two ", more_content=True)
        await site.reply(message, content=b"three")
        assert await client.reader.readuntil(b"0\r\n\r\n") == (
            b"4\r\none \r\n4\r\ntwo \r\n5\r\nthree\r\n0\r\n\r\n"
        )


async def test_a_large_body_comes_in_pieces_on_a_channel_of_its_own() -> None:
    body = bytes(range(256)) * 1000
    async with interface() as site, site.client() as client:
        client.request("PUT", "/", f"Content-Length: {len(body)}", body=body)
        message = await site.take("http.request")
        found, more = message["body"], True
        assert len(found) == KIB64
        while more:
            piece = await site.take(message["body_channel"])
            found += piece["content"]
            more = piece["more_content"]
        await site.reply(message, status=200, content=b"got it")
        assert (await client.answer()).body == b"got it"
    assert found == body


@pytest.mark.parametrize(("size", "rest"), [(100, None), (101, b"x")])
async def test_how_much_goes_along(size: int, rest: bytes | None) -> None:
    async with interface(inline_body_bytes=100) as site, site.client() as client:
        client.request("PUT", "/", f"Content-Length: {size}", body=b"x" * size)
        message = await site.take("http.request")
        assert message["body"] == b"x" * 100
        assert ("body_channel" in message) is (rest is not None)
        if rest is not None:
            piece = await site.take(message["body_channel"])
            assert piece == {"content": rest, "more_content": False}


async def test_a_body_waits_for_a_worker_that_is_slow() -> None:
    layer = InMemoryChannelLayer(capacity=2)
    body = b"x" * (20 * KIB64)
    async with interface(layer) as site, site.client() as client:
        client.request("PUT", "/", f"Content-Length: {len(body)}", body=body)
        message = await site.take("http.request")
        size, more = len(message["body"]), True
        while more:
            piece = await site.take(message["body_channel"])
            size += len(piece["content"])
            more = piece["more_content"]
        await site.reply(message, status=200, content=b"")
        assert (await client.answer()).status == 200
    assert size == len(body)


async def test_a_worker_may_answer_before_it_has_the_body() -> None:
    layer = InMemoryChannelLayer(capacity=2)
    async with interface(layer) as site, site.client() as client:
        client.request("PUT", "/", f"Content-Length: {20 * KIB64}", body=b"x" * (10 * KIB64))
        message = await site.take("http.request")
        await site.reply(message, status=413, content=b"too much")
        assert (await client.answer()).status == 413


async def test_a_client_that_goes_within_its_body() -> None:
    async with interface(inline_body_bytes=10) as site, site.client() as client:
        client.request("PUT", "/", "Content-Length: 100", body=b"x" * 50)
        message = await site.take("http.request")
        body = await site.take(message["body_channel"])
        assert body == {"content": b"x" * 40, "more_content": True}
        client.reset()
        assert await site.take(message["body_channel"]) == {"closed": True}
        assert await site.take("http.disconnect") == {
            "reply_channel": message["reply_channel"],
            "path": "/",
        }


async def test_a_body_of_which_a_piece_was_given_up_is_never_whole() -> None:
    """The client goes while the queue is full: what is left of its body must not pass for it."""
    layer = InMemoryChannelLayer(capacity=1)
    async with interface(layer, inline_body_bytes=0) as site, site.client() as client:
        client.request("PUT", "/", f"Content-Length: {4 * KIB64}", body=b"x" * (4 * KIB64))
        message = await site.take("http.request")
        await eventually(lambda: site.interface.statistics().get("http.request.body"))
        client.reset()
        await site.take("http.disconnect")
        pieces = [await site.take(message["body_channel"])]
        while "closed" not in pieces[-1]:
            pieces.append(await site.take(message["body_channel"]))
        assert all(piece["more_content"] for piece in pieces[:-1])


async def test_disconnects_that_nobody_takes_are_no_trouble(
    caplog: pytest.LogCaptureFixture,
) -> None:
    layer = InMemoryChannelLayer(channel_capacity={"http.disconnect": 1})
    await layer.send("http.disconnect", {"is": "full"})
    async with interface(layer) as site, site.client() as client:
        client.get()
        await site.take("http.request")
        client.reset()
        await eventually(lambda: site.interface.statistics().get("full.http.disconnect"))
    assert not caplog.messages


async def test_a_client_that_goes_before_its_answer() -> None:
    async with interface() as site, site.client() as client:
        client.get("/poll")
        message = await site.take("http.request")
        client.reset()
        gone = await site.take("http.disconnect")
        assert gone == {"reply_channel": message["reply_channel"], "path": "/poll"}
        await site.reply(message, status=200, content=b"late")


async def test_a_full_queue_is_503_at_once() -> None:
    layer = InMemoryChannelLayer(channel_capacity={"http.request": 1})
    await layer.send("http.request", {"is": "full"})
    async with interface(layer) as site, site.client() as client:
        client.get()
        answer = await client.answer()
    assert answer.status == 503
    assert answer["retry-after"] == "1"
    assert site.interface.statistics() == {"full.http.request": 1}


async def test_no_answer_is_503_after_the_time_for_it() -> None:
    async with interface(timeouts=Timeouts(http_timeout=0.05)) as site, site.client() as client:
        client.get()
        assert (await client.answer()).status == 503
        await site.take("http.disconnect")


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({}, "has a 'status', an int: found None"),
        ({"status": "200"}, "has a 'status', an int: found '200'"),
        ({"status": True}, "has a 'status'"),
        ({"status": 9999}, "9999"),
        ({"status": 200, "content": "text"}, "'content' is bytes: found str"),
        ({"status": 200, "headers": ["x"]}, "'headers' is a list of pairs of bytes"),
        ({"status": 200, "headers": [[b"x", b"a\r\nb: c"]]}, "x"),
    ],
)
async def test_a_bad_reply_harms_nothing(
    bad: dict[str, Any], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with interface() as site, site.client() as client:
        client.get()
        message = await site.take("http.request")
        await site.reply(message, **bad)
        await site.reply(message, status=200, content=b"good")
        assert (await client.answer()).body == b"good"
        assert site.interface.statistics()["malformed.http"] == 1
    (line,) = [line for line in caplog.messages if "Dropped a reply to http" in line]
    assert said in line


async def test_headers_in_the_form_of_older_releases() -> None:
    async with interface() as site, site.client() as client:
        client.get()
        message = await site.take("http.request")
        await site.reply(message, status=200, headers={"x-a": "b"}, content=b"")
        assert (await client.answer())["x-a"] == "b"


async def test_a_push_is_passed_over() -> None:
    async with interface() as site, site.client() as client:
        client.get()
        message = await site.take("http.request")
        await site.reply(message, request={"path": "/style.css"})
        await site.reply(message, status=200, content=b"page")
        assert (await client.answer()).body == b"page"


PIECE = {"content": b"x" * KIB64, "more_content": True}


async def fill(site: Site, message: dict[str, Any]) -> int:
    """Reply until no more is taken; the number of pieces."""
    for count in range(10_000):
        try:
            await site.layer.send(message["reply_channel"], PIECE)
        except ChannelFull:
            return count
        await asyncio.sleep(0)
    raise AssertionError("it has no bound")


async def test_a_client_that_reads_slowly_makes_a_worker_in_this_process_wait() -> None:
    async with interface(response_buffer_bytes=2 * MIB) as site, site.client() as client:
        client.get()
        message = await site.take("http.request")
        await site.reply(message, status=200, headers=[], content=b"", more_content=True)
        count = await fill(site, message)
        reading = asyncio.create_task(read_all(client))
        while True:
            with contextlib.suppress(ChannelFull):
                await site.reply(message, content=b"end")
                break
            await asyncio.sleep(0)
        assert await reading == b"x" * (count * KIB64) + b"end"


async def read_all(client: Client) -> bytes:
    """The body of a response in pieces."""
    await client.head()
    body = b""
    while size := int(await client.reader.readuntil(b"\r\n"), 16):
        body += await client.reader.readexactly(size)
        await client.reader.readexactly(2)
    return body


async def test_a_worker_elsewhere_that_sends_far_more_than_its_client_reads_is_cut_off(
    short_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing tells it to wait; the client sees that the response is not whole."""
    layer = LocalChannelLayer(directory=short_path)
    other = LocalChannelLayer(directory=short_path)
    async with interface(layer, response_buffer_bytes=2 * MIB) as site, site.client() as client:
        client.get()
        message = await other.receive("http.request")
        channel = message["reply_channel"]
        await other.send(channel, {"status": 200, "content": b"", "more_content": True})
        while not site.interface.statistics().get("cut"):
            await other.send(channel, PIECE)
            await asyncio.sleep(0)
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await read_all(client)
        assert await other.receive("http.disconnect") == {"reply_channel": channel, "path": "/"}
    await asyncio.gather(layer.close(), other.close())
    assert "A response was cut: over 2097152 bytes of it waited for its client" in caplog.text


class TestPacing:
    """A worker in another process that sends as Django's views are sent."""

    @contextlib.asynccontextmanager
    async def under_way(
        self, folder: Path, parts: int
    ) -> AsyncIterator[tuple[Client, asyncio.Task[None], Site]]:
        """A client whose response of many MiB a worker is sending."""
        layer = LocalChannelLayer(directory=folder)
        other = LocalChannelLayer(directory=folder)
        wrapped = ChannelLayerWrapper(other, "default", [])
        async with interface(layer, response_buffer_bytes=2 * MIB) as site, site.client() as client:
            client.get()
            content = await other.receive("http.request")
            reply = PacedReply(LegacyMessage(content, "http.request", wrapped), PATIENCE_SECONDS)

            def work() -> None:
                reply.send({"status": 200, "content": b"", "more_content": True})
                for _ in range(parts):
                    reply.send({"content": b"x" * (MIB // 2), "more_content": True})
                reply.send({"content": b""})

            yield client, asyncio.create_task(asyncio.to_thread(work)), site
        await asyncio.gather(layer.close(), other.close())

    async def test_a_response_that_is_larger_than_what_may_wait(self, short_path: Path) -> None:
        async with self.under_way(short_path, parts=48) as (client, working, site):
            # What the system and the server take for a client that does not read is far less.
            await eventually(lambda: site.interface.statistics().get("acks"))
            assert not working.done()
            assert len(await read_all(client)) == 24 * MIB
            await working
            assert "cut" not in site.interface.statistics()

    async def test_a_client_that_goes_ends_the_workers_wait(self, short_path: Path) -> None:
        async with self.under_way(short_path, parts=48) as (client, working, site):
            await eventually(lambda: site.interface.statistics().get("acks"))
            client.reset()
            with pytest.raises(RequestAborted):
                await working
