"""What is NATS' own: URLs, sizes, and what JetStream may lack or lose."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from channels.backends.nats.address import parse_addresses
from channels.backends.nats.transport import NatsTransport
from channels.exceptions import (
    ChannelLayerUnavailable,
    InvalidChannelLayerError,
    InvalidOption,
    MessageTooLarge,
)
from channels.layers import NatsChannelLayer
from tests.cluster.servers import OwnServer, answers, free_port, nats_server, program

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


async def test_what_comes_at_once_for_two_subjects_keeps_its_senders_order(
    server: OwnServer, make_layer: MakeLayer
) -> None:
    sender, receiver = make_layer(server), make_layer(server)
    channel = await receiver.new_channel()
    for group in ("first", "second"):
        await receiver.group_add(group, channel)
    await sender.new_channel()
    roads = [
        partial(sender.group_send, "first"),
        partial(sender.send, channel),
        partial(sender.group_send, "second"),
    ]
    await asyncio.gather(*(roads[n % 3]({"type": "x", "number": n}) for n in range(90)))
    assert [(await receiver.receive(channel))["number"] for _ in range(90)] == list(range(90))


async def test_what_it_does_not_do_is_refused_by_name(
    server: OwnServer, make_layer: MakeLayer
) -> None:
    layer = make_layer(server)
    with pytest.raises(InvalidChannelLayerError, match="delay"):
        await layer.send("work", {"type": "x"}, delay=1)
    with pytest.raises(InvalidChannelLayerError, match="work"):
        await layer.group_add("room", "work")


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
    await transport._require()[0].js.delete_stream("deleted_Q_100")
    await layer.send("work", {"type": "two"})
    async with asyncio.timeout(10):
        assert await reader == {"type": "two"}


async def test_what_jetstream_refuses_is_no_full_channel(
    server: OwnServer, make_layer: MakeLayer
) -> None:
    layer = make_layer(server, prefix="refused", capacity=10_000)
    await layer.send("work", {"type": "x"})
    transport = layer.node.transport
    assert isinstance(transport, NatsTransport)
    js = transport._require()[0].js
    config = (await js.stream_info("refused_Q_10000")).config
    config.max_bytes = 2000
    await js.update_stream(config)
    with pytest.raises(ChannelLayerUnavailable, match="maximum bytes exceeded"):
        await layer.send("work", {"type": "x", "text": "x" * 3000})


async def test_another_stream_with_the_same_subjects_is_no_queue(
    server: OwnServer, make_layer: MakeLayer
) -> None:
    other = make_layer(server, prefix="other")
    await other.send("work", {"type": "x"})
    transport = other.node.transport
    assert isinstance(transport, NatsTransport)
    await transport._require()[0].js.add_stream(name="foreign", subjects=["taken.>"])
    with pytest.raises(ChannelLayerUnavailable, match="subjects overlap"):
        await make_layer(server, prefix="taken").send("work", {"type": "x"})


async def test_queues_without_jetstream_say_what_is_missing(
    tmp_path: Path, make_layer: MakeLayer
) -> None:
    port = free_port()
    command = [program("nats-server"), "-a", "127.0.0.1", "-p", str(port), "--auth", "secret"]
    with OwnServer(command, tmp_path, port, lambda: answers(port, b"", b"INFO {")) as server:
        layer = make_layer(server, "secret@")
        with pytest.raises(ChannelLayerUnavailable, match="need JetStream"):
            await layer.send("work", {"type": "x"})
        channel = await layer.new_channel()
        await layer.group_add("room", channel)
        await layer.group_send("room", {"type": "y"})
        assert await layer.receive(channel) == {"type": "y"}
        await layer.close()
