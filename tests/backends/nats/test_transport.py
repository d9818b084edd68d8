"""What is NATS' own: URLs, sizes, and what JetStream may lack or lose."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from channels.backends.nats.address import parse_addresses
from channels.backends.nats.connection import Broken, Message, NatsConnection
from channels.backends.nats.transport import NatsTransport
from channels.backends.nats.window import WindowMail
from channels.exceptions import (
    ChannelFull,
    ChannelLayerUnavailable,
    InvalidChannelLayerError,
    InvalidOption,
    MessageTooLarge,
)
from channels.layers import NatsChannelLayer
from tests.cluster.servers import OwnServer, answers, free_port, nats_server, program
from tests.cluster.traffic import until

MakeLayer = Callable[..., NatsChannelLayer]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnServer]:
    with nats_server(tmp_path_factory.mktemp("nats")) as server:
        yield server


@pytest.fixture
async def make_layer() -> AsyncIterator[MakeLayer]:
    made: list[NatsChannelLayer] = []

    def make(server: OwnServer, login: str = "", **config: Any) -> NatsChannelLayer:
        made.append(NatsChannelLayer(f"nats://{login}127.0.0.1:{server.port}", **config))
        made[-1].adopt_loop()
        return made[-1]

    yield make
    for layer in made:
        await layer.close()


def test_urls() -> None:
    one, two, three = parse_addresses(["nats://h", "nats://me:pass@h:1", "tls://token@h"])
    assert (one.host, one.port, one.user, one.token) == ("h", 4222, "", "")
    assert (two.port, two.user, two.password, two.token) == (1, "me", "pass", "")
    assert (three.user, three.token) == ("", "token")
    assert three.tls is not None
    assert "pass" not in repr(two)
    assert "'token'" not in repr(three)


@pytest.mark.parametrize("servers", ["redis://h", [], None, [None], "nats://h:port"])
def test_what_is_no_url_is_refused(servers: Any) -> None:
    with pytest.raises(InvalidChannelLayerError, match="nats://host:port"):
        NatsChannelLayer(servers)


def test_unknown_and_impossible_settings_are_refused() -> None:
    with pytest.raises(InvalidChannelLayerError, match="hosts"):
        NatsChannelLayer(hosts=["h"])
    with pytest.raises(InvalidChannelLayerError, match="32 letters"):
        NatsChannelLayer(prefix="a.b")
    with pytest.raises(InvalidOption, match="replicas"):
        NatsChannelLayer(replicas=0)


async def test_a_message_over_the_servers_bound_is_refused_and_nothing_else_suffers(
    server: OwnServer, make_layer: MakeLayer
) -> None:
    layer = make_layer(server, max_message_bytes=20_000_000)
    channel = await layer.new_channel()
    await layer.group_add("room", channel)
    with pytest.raises(MessageTooLarge, match="max_payload"):
        await layer.group_send("room", {"type": "x", "text": "x" * 9_000_000})
    await layer.group_send("room", {"type": "y"})
    assert await layer.receive(channel) == {"type": "y"}


async def test_a_stream_that_was_deleted_is_made_again(
    server: OwnServer, make_layer: MakeLayer
) -> None:
    layer = make_layer(server, prefix="deleted")
    await layer.send("work", {"type": "one"})
    assert await layer.receive("work") == {"type": "one"}
    reader = asyncio.create_task(layer.receive("work"))
    transport = layer.node.transport
    assert isinstance(transport, NatsTransport)
    assert transport._stream is not None
    await transport._stream.ask("STREAM.DELETE.deleted_Q_100", {})
    await layer.send("work", {"type": "two"})
    async with asyncio.timeout(10):
        assert await reader == {"type": "two"}


async def test_queues_without_jetstream_say_what_is_missing(
    tmp_path: Path, make_layer: MakeLayer
) -> None:
    port = free_port()
    command = [program("nats-server"), "-a", "127.0.0.1", "-p", str(port), "--auth", "secret"]
    with OwnServer(command, tmp_path, port, lambda: answers(port, b"", b"INFO {")) as server:
        layer = make_layer(server, "secret@")
        with pytest.raises(ChannelLayerUnavailable, match="-js"):
            await layer.send("work", {"type": "x"})
        channel = await layer.new_channel()
        await layer.group_add("room", channel)
        await layer.group_send("room", {"type": "y"})
        assert await layer.receive(channel) == {"type": "y"}
        await layer.close()


async def test_a_process_that_comes_later_knows_what_queues_are_members(
    server: OwnServer, make_layer: MakeLayer
) -> None:
    first = make_layer(server, prefix="later")
    for channel in ("work.one", "gone", "tgp!two"):
        await first.group_add("room.1", channel)
    await first.group_discard("room.1", "gone")
    await first.close()
    second = make_layer(server, prefix="later")
    await second.group_send("room.1", {"type": "x"})
    for channel in ("work.one", "tgp!two"):
        async with asyncio.timeout(10):
            assert await second.receive(channel) == {"type": "x"}
    await second.send("gone", {"type": "only"})
    async with asyncio.timeout(10):
        assert await second.receive("gone") == {"type": "only"}


async def test_no_more_channels_are_members_than_may_be(
    server: OwnServer, make_layer: MakeLayer
) -> None:
    layer = make_layer(server, prefix="bounded", max_queue_members=2)
    for channel in ("one", "two", "one"):
        await layer.group_add("room", channel)
    with pytest.raises(ChannelFull, match="max_queue_members"):
        await layer.group_add("room", "three")


async def test_a_reliable_layer_without_jetstream_says_what_is_missing(
    tmp_path: Path, make_layer: MakeLayer, caplog: pytest.LogCaptureFixture
) -> None:
    port = free_port()
    command = [program("nats-server"), "-a", "127.0.0.1", "-p", str(port)]
    with OwnServer(command, tmp_path, port, lambda: answers(port, b"", b"INFO {")) as server:
        layer = make_layer(server, reliable=True, send_timeout=0.5)
        with pytest.raises(ChannelLayerUnavailable):
            await layer.group_send("room", {"type": "x"})
        assert "reliable=True, need: start the server with -js" in caplog.text
        await layer.close()


async def test_a_window_that_was_deleted_is_made_again_and_told(
    server: OwnServer, make_layer: MakeLayer
) -> None:
    layer = make_layer(server, prefix="window", reliable=True, ping_interval=0.1)
    gaps: list[Any] = []
    layer.add_gap_listener(gaps.append)
    channel = await layer.new_channel()
    await layer.group_add("room", channel)
    transport = layer.node.transport
    assert isinstance(transport, NatsTransport)
    await transport._require_stream().ask("STREAM.DELETE.window_R", {})
    # Nobody sends: its own marks find it out.
    await until(lambda: bool(gaps), "the gap")
    async with asyncio.timeout(10):
        await layer.group_send("room", {"type": "x"})
        assert await layer.receive(channel) == {"type": "x"}


async def test_a_message_lost_between_servers_is_missed_and_read(
    server: OwnServer, make_layer: MakeLayer
) -> None:
    sender, layer = (make_layer(server, prefix="hole", reliable=True) for _ in range(2))
    channel = await layer.new_channel()
    await layer.group_add("room", channel)
    transport = layer.node.transport
    assert isinstance(transport, NatsTransport)
    assert isinstance(transport._mail, WindowMail)
    hear, mail = transport._mail._hear, transport._mail

    def lose(message: Message) -> None:
        """As if this one had never come."""
        mail._hear = hear  # type: ignore[method-assign]

    for number in range(6):
        if number in {2, 3}:
            mail._hear = lose  # type: ignore[method-assign]
        await sender.group_send("room", {"type": "x", "number": number})
    async with asyncio.timeout(10):
        got = [(await layer.receive(channel))["number"] for _ in range(6)]
    assert got == list(range(6))


async def test_what_a_server_took_along_unconfirmed_is_sent_again(
    server: OwnServer, make_layer: MakeLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = make_layer(server, prefix="again", send_timeout=20.0)
    await layer.send("work", {"type": "first"})
    transport = layer.node.transport
    assert isinstance(transport, NatsTransport)
    connection = transport._require_stream().connection
    publish, lost = connection.publish, list[str]()

    def lose(subject: str, *rest: Any) -> None:
        """The first one is not heard by anybody."""
        if lost or not subject.startswith("again.q."):
            publish(subject, *rest)
        else:
            lost.append(subject)

    monkeypatch.setattr(connection, "publish", lose)
    await layer.send("work", {"type": "second"})
    assert lost
    assert [(await layer.receive("work"))["type"] for _ in range(2)] == ["first", "second"]


async def test_the_protocol_may_come_in_pieces() -> None:
    connection = NatsConnection(parse_addresses("nats://h")[0], 1.0, "_INBOX.x")
    got: list[Message] = []
    connection.subscribe("a.*", got.append)
    stream = (
        b'INFO {"max_payload": 5}\r\nPING\r\nMSG a.b 1 5\r\nhe\r\no\r\n'
        b"HMSG a.b 1 reply 16 16\r\nNATS/1.0 503\r\n\r\n\r\n"
        b"HMSG a.b 1 20 22\r\nNATS/1.0\r\nA: b c\r\n\r\nxy\r\n"
    )
    for size in (1, 7, len(stream)):
        got.clear()
        for start in range(0, len(stream), size):
            connection.data_received(stream[start : start + size])
        assert got == [
            Message("", b"he\r\no", subject="a.b"),
            Message("reply", b"", 503, subject="a.b"),
            Message("", b"xy", 0, {"A": "b c"}, "a.b"),
        ]
    assert not connection.ended.done()
    connection.data_received(b"MSG a.b one 5\r\nhello\r\n")
    assert isinstance(connection.ended.result(), Broken)
