"""WebSockets through channels: what a worker is told, and what its replies do to the socket."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from channels.exceptions import ChannelLayerUnavailable
from channels.kit.limits import Timeouts
from channels.layers import InMemoryChannelLayer
from tests.legacy.interface.site import Site, interface
from tests.server.shell import RawClient, dial, eventually, text


async def test_the_life_of_a_socket_in_messages() -> None:
    async with interface() as site:
        opening = asyncio.create_task(connect(site.url + "room/?username=anna").__aenter__())
        begin = await site.take("websocket.connect")
        assert not opening.done()
        await site.reply(begin, accept=True)
        client = await opening
        await client.send("hello")
        await client.send(b"\x00\xff")
        received = [await site.take("websocket.receive") for _ in range(2)]
        await site.reply(received[0], text="to you")
        await site.reply(received[0], bytes=b"\x01")
        assert [await client.recv(), await client.recv()] == ["to you", b"\x01"]
        await client.close(4001)
        end = await site.take("websocket.disconnect")
    assert begin["path"] == "/room/"
    assert begin["query_string"] == b"username=anna"
    assert begin["scheme"] == "ws"
    assert begin["root_path"] == ""
    assert begin["order"] == 0
    assert [b"upgrade", b"websocket"] in [[name, value] for name, value in begin["headers"]]
    assert begin["client"][0] == begin["server"][0] == "127.0.0.1"
    channel = begin["reply_channel"]
    assert received == [
        {"reply_channel": channel, "path": "/room/", "order": 1, "text": "hello"},
        {"reply_channel": channel, "path": "/room/", "order": 2, "bytes": b"\x00\xff"},
    ]
    assert end == {"reply_channel": channel, "path": "/room/", "order": 3, "code": 4001}
    assert site.interface.statistics() == {
        "websocket.connect": 1,
        "websocket.receive": 2,
        "websocket.disconnect": 1,
    }


@pytest.mark.parametrize(
    ("reply", "expected"), [({"text": "hi"}, "hi"), ({"bytes": b"hi"}, b"hi"), ({"text": ""}, "")]
)
async def test_data_accepts_by_itself(reply: dict[str, Any], expected: str | bytes) -> None:
    async with interface() as site:
        opening = asyncio.create_task(connect(site.url).__aenter__())
        await site.reply(await site.take("websocket.connect"), **reply)
        client = await opening
        assert await client.recv() == expected
        await client.close()


@pytest.mark.parametrize(
    "reply", [{"accept": False}, {"close": True}, {"close": 4000}, {"accept": False, "text": "no"}]
)
async def test_a_refusal(reply: dict[str, Any]) -> None:
    async with interface() as site:
        opening = asyncio.create_task(connect(site.url).__aenter__())
        await site.reply(await site.take("websocket.connect"), **reply)
        with pytest.raises(InvalidStatus) as refused:
            await opening
        assert refused.value.response.status_code == 403
        # What the connect consumer did may have to be undone.
        assert (await site.take("websocket.disconnect"))["order"] == 1


@pytest.mark.parametrize(
    ("reply", "code", "before"),
    [
        ({"close": True}, 1000, []),
        ({"close": 4321}, 4321, []),
        ({"text": "bye", "close": True}, 1000, ["bye"]),
    ],
)
async def test_a_close(reply: dict[str, Any], code: int, before: list[str]) -> None:
    async with interface() as site:
        opening = asyncio.create_task(connect(site.url).__aenter__())
        await site.reply(await site.accept(), **reply)
        client = await opening
        assert [message async for message in messages_of(client)] == before
        assert client.close_code == code
        assert (await site.take("websocket.disconnect"))["code"] == code


async def messages_of(client: ClientConnection) -> AsyncIterator[str | bytes]:
    """All messages up to the close, whatever its code."""
    with contextlib.suppress(ConnectionClosed):
        while True:
            yield await client.recv()


async def test_replies_keep_their_order_while_the_socket_opens() -> None:
    async with interface() as site:
        opening = asyncio.create_task(connect(site.url).__aenter__())
        begin = await site.take("websocket.connect")
        for number in range(20):
            await site.reply(begin, text=str(number))
        client = await opening
        assert [await client.recv() for _ in range(20)] == [str(number) for number in range(20)]
        await client.close()


async def test_a_reply_that_says_nothing_harms_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async with interface() as site, dial(site.shell, accepted=False) as client:
        begin = await site.accept()
        assert await client.read_head() == 101
        for bad in ({}, {"text": 5}, {"bytes": "text"}, {"close": "now"}, {"close": 77}):
            await site.reply(begin, **bad)
        await site.reply(begin, close=False)
        await site.reply(begin, text="still here", username=["any"])
        assert await client.read_frame() == (0x81, b"still here")
        assert site.interface.statistics()["malformed.websocket"] == 5
    logged = [line for line in caplog.messages if "Dropped a reply to websocket" in line]
    assert len(logged) == 1
    assert "found []" in logged[0]


async def test_a_group_reaches_sockets_straight() -> None:
    async with interface() as site, connect_all(site, 3) as clients:
        await site.layer.group_send("all", {"text": "to all", "username": "anna"})
        assert [await client.read_frame() for client in clients] == [(0x81, b"to all")] * 3


@contextlib.asynccontextmanager
async def connect_all(site: Site, count: int) -> AsyncIterator[list[RawClient]]:
    """Sockets in the group "all"."""
    async with contextlib.AsyncExitStack() as stack:
        clients = []
        for _ in range(count):
            client = await stack.enter_async_context(dial(site.shell, accepted=False))
            begin = await site.accept()
            await site.layer.group_add("all", begin["reply_channel"])
            assert await client.read_head() == 101
            clients.append(client)
        yield clients


async def test_a_group_forgets_a_socket_that_is_gone() -> None:
    async with interface() as site:
        async with connect_all(site, 1):
            assert site.layer.statistics()["local_groups"] == 1
        await site.take("websocket.disconnect")
        await eventually(lambda: site.layer.statistics()["local_groups"] == 0)
        await eventually(lambda: site.layer.statistics()["local_channels"] == 0)


async def test_a_subprotocol_that_both_know() -> None:
    async with interface(ws_protocol=("chat", "graphql-ws")) as site:
        offered = [Subprotocol("other"), Subprotocol("graphql-ws")]
        opening = asyncio.create_task(connect(site.url, subprotocols=offered).__aenter__())
        await site.accept()
        client = await opening
        assert client.subprotocol == "graphql-ws"
        await client.close()


async def test_no_room_for_a_connect_is_503_at_once() -> None:
    layer = InMemoryChannelLayer(channel_capacity={"websocket.connect": 1})
    await layer.send("websocket.connect", {"is": "full"})
    async with interface(layer) as site, dial(site.shell, accepted=False) as client:
        assert await client.read_head() == 503
        assert b"retry-after: 1" in client.head
    assert site.interface.statistics() == {"full.websocket.connect": 1}
    # Nobody was told of it, so nobody is told of its end.
    assert not layer.statistics()["local_channels"]


async def test_a_full_queue_leaves_the_socket_unread_until_there_is_room() -> None:
    layer = InMemoryChannelLayer(channel_capacity={"websocket.receive": 2})
    async with (
        interface(layer, full_timeout=60.0) as site,
        dial(site.shell, accepted=False) as client,
    ):
        begin = await site.accept()
        assert await client.read_head() == 101
        client.send(*(text(str(number)) for number in range(5)))
        taken = [(await site.take("websocket.receive"))["text"] for _ in range(5)]
        assert taken == ["0", "1", "2", "3", "4"]
        # Meanwhile replies are not held up.
        client.send(*(text("more") for _ in range(5)))
        await site.reply(begin, text="reply", close=False)
        assert await client.read_frame() == (0x81, b"reply")
        await site.reply(begin, close=4000)
        assert await client.read_close() == 4000


async def test_a_queue_that_stays_full_closes_the_socket(caplog: pytest.LogCaptureFixture) -> None:
    layer = InMemoryChannelLayer(channel_capacity={"websocket.receive": 1})
    async with (
        interface(layer, full_timeout=0.0) as site,
        dial(site.shell, accepted=False) as client,
    ):
        await site.accept()
        assert await client.read_head() == 101
        client.send(text("0"), text("1"), text("2"))
        assert await client.read_close() == 1013
        # In order without a gap: the refused messages count for nothing.
        assert (await site.take("websocket.receive"))["order"] == 1
        assert (await site.take("websocket.disconnect"))["order"] == 2
    assert site.interface.statistics()["full.websocket.receive"] == 1
    assert "The queue 'websocket.receive' is full" in caplog.text


async def test_a_message_larger_than_the_layer_carries() -> None:
    layer = InMemoryChannelLayer(max_message_bytes=2000)
    async with interface(layer) as site, dial(site.shell, accepted=False) as client:
        await site.accept()
        assert await client.read_head() == 101
        client.send(text("x" * 3000))
        assert await client.read_close() == 1009
        await site.take("websocket.disconnect")


class Unreachable(InMemoryChannelLayer):
    async def send(self, channel: str, message: dict[str, Any], *, delay: float = 0.0) -> None:
        raise ChannelLayerUnavailable("the broker is gone")


async def test_a_layer_out_of_reach_is_503(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        async with interface(Unreachable()) as site, dial(site.shell, accepted=False) as client:
            assert await client.read_head() == 503
    assert "takes no messages: the broker is gone" in caplog.text


async def test_a_client_that_goes_before_it_is_accepted() -> None:
    async with interface() as site:
        async with dial(site.shell, accepted=False):
            begin = await site.take("websocket.connect")
        end = await site.take("websocket.disconnect")
        assert end["reply_channel"] == begin["reply_channel"]
        assert end["code"] == 1006


async def test_the_end_of_the_server_is_told() -> None:
    async with interface() as site, dial(site.shell, accepted=False) as client:
        await site.accept()
        assert await client.read_head() == 101
        stopping = asyncio.create_task(site.shell.stop())
        assert await client.read_close() == 1001
        assert (await site.take("websocket.disconnect"))["code"] == 1001
        await stopping


async def test_a_reply_to_a_socket_that_is_gone() -> None:
    async with interface() as site:
        opening = asyncio.create_task(connect(site.url).__aenter__())
        begin = await site.accept()
        client = await opening
        await client.close()
        with pytest.raises(ConnectionClosed):
            await client.recv()
        await site.take("websocket.disconnect")
        await site.reply(begin, text="late")
        assert not site.interface.statistics().keys() & {"late", "malformed.websocket"}


async def test_a_handshake_that_nobody_answers_is_403_after_its_time() -> None:
    async with (
        interface(timeouts=Timeouts(handshake_timeout=0.05)) as site,
        dial(site.shell, accepted=False) as client,
    ):
        assert await client.read_head() == 403
