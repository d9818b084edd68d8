"""The Redis layers' settings, their line of commands, and how keys are shared out."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio.connection import SSLConnection, UnixDomainSocketConnection
from redis.crc import key_slot

from channels.backends.redis import RedisSentinelChannelLayer
from channels.backends.redis.cluster import spread_tags
from channels.backends.redis.hosts import make_host
from channels.backends.redis.keys import Keys
from channels.backends.redis.line import CommandConnection
from channels.backends.redis.transport import rendezvous
from channels.backends.shell import Broken
from channels.exceptions import (
    ChannelLayerUnavailable,
    InvalidChannelLayerError,
    InvalidOption,
    TransportDown,
)
from channels.layers import RedisChannelLayer, RedisPubSubChannelLayer
from channels.layers.registry import ChannelLayerManager
from tests.cluster.servers import redis_server
from tests.processes import free_port


def layer_for(backend: str, **config: Any) -> Any:
    manager = ChannelLayerManager(lambda: {"default": {"BACKEND": backend, "TEST_CONFIG": config}})
    return manager["default"]


# Settings.


def test_every_form_of_a_host() -> None:
    assert make_host({"address": "redis://a:1/2"}).keywords["db"] == 2
    assert make_host({"address": ("a", 1), "db": 3}).keywords["host"] == "a"
    assert make_host({"address": "rediss://a"}).kind is SSLConnection
    assert make_host({"host": "a", "ssl": True}).kind is SSLConnection
    assert make_host({"address": "unix:///x/y"}).keywords["path"] == "/x/y"
    assert make_host({"unix_socket_path": "/x"}).kind is UnixDomainSocketConnection
    watched = make_host({"sentinels": [("s", 1)], "master_name": "m", "password": "p"})
    assert (watched.sentinels, watched.master_name) == ((("s", 1),), "m")
    assert make_host({"host": "a"}, {"password": "p"}).keywords["password"] == "p"


def test_our_own_rules_hold_whatever_is_configured() -> None:
    host = make_host({"host": "a", "decode_responses": True, "socket_timeout": 1, "protocol": 3})
    assert host.keywords == {"host": "a"}


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"hosts": "redis://localhost"}, "expected a list"),
        ({"hosts": {"host": "a"}}, "expected a list"),
        ({"hosts": [17]}, "hosts has an entry of type int"),
        ({"hosts": ["http://localhost"]}, "redis://"),
        ({"hosts": [{"host": "a", "passwort": "x"}]}, "passwort"),
        ({"hosts": [{"sentinels": [("a", 1)]}]}, "master_name"),
        ({"hosts": [{"sentinels": [], "master_name": "m"}]}, "Sentinels"),
        ({"hosts": [{"host": "a", "redis_connect_func": print}]}, "credential_provider"),
        ({"hosts": [{"host": "a", "connection_class": int}]}, "credential_provider"),
        ({"prefix": "a{b}"}, "prefix"),
        ({"capacitty": 1}, "capacitty"),
        ({"symmetric_encryption_keys": "secret"}, "list"),
        ({"serializer_format": "unheard"}, "unheard"),
    ],
)
def test_settings_that_cannot_work_say_so(config: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidChannelLayerError, match=words):
        RedisChannelLayer(**config)


def test_a_password_is_not_shown() -> None:
    with pytest.raises(InvalidChannelLayerError) as caught:
        RedisChannelLayer([{"host": "a", "password": "hunter2", "passwort": "x"}])
    assert "hunter2" not in str(caught.value)


def test_options_have_bounds() -> None:
    with pytest.raises(InvalidOption, match="lease"):
        RedisChannelLayer(lease=0.1)
    with pytest.raises(InvalidChannelLayerError, match="on_disconnect"):
        RedisPubSubChannelLayer(on_disconnect=17)  # type: ignore[arg-type]


def test_an_unknown_key_is_answered_with_all_that_there_are() -> None:
    with pytest.raises(InvalidChannelLayerError) as caught:
        RedisPubSubChannelLayer(colour=1)
    own, general = str(caught.value).split("; those of every layer are ")
    assert own == (
        "RedisPubSubChannelLayer does not know colour. Its own options are answer_timeout, "
        "cluster_shards, connection_kwargs, hosts, lease, node_capacity, on_disconnect, "
        "on_reconnect, prefix, settle"
    )
    assert general.startswith("capacity, ")


def test_settings_of_other_releases() -> None:
    config = {
        "hosts": [("localhost", 6379)],
        "prefix": "x",
        "expiry": 10,
        "group_expiry": 20,
        "capacity": 5,
        "channel_capacity": {"http.*": 7},
        "symmetric_encryption_keys": ["secret"],
        "random_prefix_length": 12,
        "serializer_format": "json",
    }
    layer = layer_for("channels_redis.core.RedisChannelLayer", **config)
    assert type(layer) is RedisChannelLayer
    assert (layer.expiry, layer.get_capacity("http.x"), layer.get_capacity("y")) == (10, 7, 5)
    pubsub = layer_for("channels_redis.pubsub.RedisPubSubChannelLayer", on_reconnect="x.y")
    assert type(pubsub) is RedisPubSubChannelLayer
    first = layer_for(
        "asgi_redis.RedisChannelLayer",
        hosts=["redis://a:1"],
        prefix="asgi:",
        stats_prefix="asgi-meta:",
        connection_kwargs={"db": 4},
    )
    assert first.prefix == "asgi"
    watched = layer_for(
        "asgi_redis.RedisSentinelChannelLayer",
        hosts=[("s", 26379)],
        services=["a", "b"],
        sentinel_refresh_interval=3,
    )
    assert type(watched) is RedisSentinelChannelLayer
    assert [host["master_name"] for host in watched.hosts] == ["a", "b"]


# Sharing out.


def test_keys_are_spread_and_stay_when_a_server_comes() -> None:
    names = [f"key-{number}" for number in range(3000)]
    three = {name: rendezvous(name, ["a", "b", "c"]) for name in names}
    assert min(Counter(three.values()).values()) > 800
    four = {name: rendezvous(name, ["a", "b", "c", "d"]) for name in names}
    assert all(four[name] in {three[name], 3} for name in names)


@pytest.mark.parametrize("count", [1, 3, 16])
def test_a_clusters_tags_lie_in_equal_parts(count: int) -> None:
    parts = [key_slot(tag.encode()) * count // 16384 for tag in spread_tags(count)]
    assert parts == list(range(count))


def test_all_keys_of_a_tag_are_in_one_slot() -> None:
    keys = Keys("asgi", "7")
    found = [keys.epoch, keys.inbox("n"), keys.group("g"), keys.queue("q{x}"), *keys.held]
    assert {key_slot(key.encode()) for key in found} == {key_slot(b"7")}


# Connections.


async def test_a_server_that_does_not_greet_is_given_up() -> None:
    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    silent = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    host = make_host(
        {"host": "127.0.0.1", "port": port, "password": "x", "socket_connect_timeout": 0.05}
    )
    with pytest.raises(
        Broken, match=rf"^Redis at 127\.0\.0\.1:{port} did not answer within 0\.05 s$"
    ):
        await host.open()
    silent.close()
    await asyncio.sleep(0.01)


async def test_where_nobody_listens_the_place_and_what_to_do_are_told() -> None:
    port = free_port()
    host = make_host({"address": f"redis://:secret@127.0.0.1:{port}/1"})
    with pytest.raises(Broken) as raised:
        await host.open()
    place = rf"Redis at 127\.0\.0\.1:{port}: \[Errno \d+\] "
    assert re.fullmatch(rf"{place}.*\. Start it there, or correct hosts", str(raised.value))
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("redis://:wrong@{}", r"WRONGPASS .*\. Compare it with the password in hosts\."),
        ("redis://{}", r"NOAUTH .*\. Give its password in hosts\."),
    ],
)
async def test_a_password_that_is_refused_is_told_without_it(
    tmp_path: Path, address: str, said: str
) -> None:
    with redis_server(tmp_path) as server:
        place = f"127.0.0.1:{server.port}"
        first = await make_host({"address": f"redis://{place}"}).open()
        await first.ask("CONFIG", "SET", "requirepass", "right")
        first.close()
        with pytest.raises(Broken) as raised:
            # A database is selected in the greeting, so that its error is one of opening.
            await make_host({"address": address.format(place), "db": 1}).open()
    assert re.fullmatch(f"Redis at {place}: {said}", str(raised.value))
    assert "wrong@" not in str(raised.value)


async def test_what_ends_after_a_layer_was_closed_does_no_harm() -> None:
    transport = RedisChannelLayer().transport
    transport.demand("work", 0, 1.0, lambda _: None)
    with pytest.raises(TransportDown):
        await transport.join(["room"])


# The line.


class FakeServer:
    """Speaks as Redis to one line: answers PING at once and WAIT when told."""

    def __init__(self) -> None:
        self.commands: list[bytes] = []
        self.got: asyncio.Queue[bytes] = asyncio.Queue()
        self.writer: asyncio.StreamWriter | None = None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        try:
            while count := await reader.readline():
                words = []
                for _ in range(int(count[1:])):
                    length = int((await reader.readline())[1:])
                    words.append((await reader.readexactly(length + 2))[:-2])
                command = b" ".join(words)
                if command.startswith(b"CLIENT"):
                    writer.write(b"+OK\r\n")
                else:
                    self.commands.append(command)
                    self.got.put_nowait(command)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    def answer(self, data: bytes) -> None:
        assert self.writer is not None
        self.writer.write(data)


class Opened:
    """A line that serves on a connection to a fake server."""

    def __init__(self, answer_seconds: float = 5.0) -> None:
        self.server = FakeServer()
        self.line = CommandConnection(answer_seconds)
        self.opened = asyncio.Event()
        self.task: asyncio.Task[None]

    async def greet(self) -> None:
        self.line.open()
        self.opened.set()

    async def start(self, port: int) -> None:
        connection = await make_host({"port": port, "host": "127.0.0.1"}).open()
        self.task = asyncio.create_task(self.line.serve(connection, self.greet))
        await self.opened.wait()


@pytest.fixture
async def opened() -> AsyncIterator[Opened]:
    made = Opened(answer_seconds=0.2)
    listener = await asyncio.start_server(made.server.serve, "127.0.0.1", 0)
    await made.start(listener.sockets[0].getsockname()[1])
    yield made
    made.task.cancel()
    await asyncio.gather(made.task, return_exceptions=True)
    listener.close()
    await asyncio.sleep(0.01)


async def test_answers_find_their_calls(opened: Opened) -> None:
    calls = [asyncio.create_task(opened.line.call("A", number)) for number in range(3)]
    for _ in calls:
        await opened.server.got.get()
    opened.server.answer(b":10\r\n-ERR no\r\n:12\r\n")
    assert await calls[0] == 10
    with pytest.raises(ChannelLayerUnavailable, match="no"):
        await calls[1]
    assert await calls[2] == 12
    assert opened.server.commands == [b"A 0", b"A 1", b"A 2"]


async def test_a_cancelled_call_costs_nobody_else_anything(opened: Opened) -> None:
    first, second = (asyncio.create_task(opened.line.call(word)) for word in ("A", "B"))
    for _ in range(2):
        await opened.server.got.get()
    first.cancel()
    opened.server.answer(b":1\r\n:2\r\n")
    assert await second == 2
    assert first.cancelled()


async def test_a_call_cancelled_before_it_is_written_is_not_written(opened: Opened) -> None:
    # Of one turn, so that only the first has left when the second is cancelled.
    calls = [asyncio.create_task(opened.line.call(word)) for word in "ABC"]
    await asyncio.sleep(0)
    calls[1].cancel()
    for _ in range(2):
        await opened.server.got.get()
    opened.server.answer(b":1\r\n:3\r\n")
    assert [await calls[0], await calls[2]] == [1, 3]
    assert opened.server.commands == [b"A", b"C"]


async def test_held_calls_wait_and_urgent_ones_do_not(opened: Opened) -> None:
    opened.line.hold(0.05)
    held = asyncio.create_task(opened.line.call("HELD"))
    await asyncio.sleep(0)
    urgent = asyncio.create_task(opened.line.call_first("URGENT"))
    assert await opened.server.got.get() == b"URGENT"
    opened.server.answer(b":1\r\n")
    assert await urgent == 1
    assert await opened.server.got.get() == b"HELD"
    opened.server.answer(b":2\r\n")
    assert await held == 2


async def test_a_break_is_told_to_all_and_leaves_the_marks(opened: Opened) -> None:
    mark = (b"sender", 7)
    written = asyncio.create_task(opened.line.call("A", mark=mark, index=3))
    await opened.server.got.get()
    assert opened.server.writer is not None
    opened.server.writer.close()
    with pytest.raises(TransportDown):
        await written
    with pytest.raises(Broken):
        await opened.task
    with pytest.raises(TransportDown):
        await opened.line.call("B")
    assert opened.line.unsure == [(mark, 3)]


async def test_a_server_that_does_not_answer_is_given_up(opened: Opened) -> None:
    with pytest.raises(TransportDown):
        await opened.line.call("A")
    with pytest.raises(Broken, match="not answered"):
        await opened.task


@pytest.mark.parametrize(
    "refusal", ["NOSCRIPT x", "READONLY x", "MOVED 1 127.0.0.1:1", "LOADING x"]
)
async def test_a_server_that_is_the_wrong_one_now_is_left(opened: Opened, refusal: str) -> None:
    call = asyncio.create_task(opened.line.call("A"))
    await opened.server.got.get()
    opened.server.answer(f"-{refusal}\r\n".encode())
    with pytest.raises(TransportDown):
        await call
    with pytest.raises(Broken):
        await opened.task
