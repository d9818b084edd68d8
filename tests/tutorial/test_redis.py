"""The layer that the texts name, `channels_redis.core.RedisChannelLayer`, on a real Redis."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.servers import OwnServer, redis_server
from tests.tutorial import sources
from tests.tutorial.browsing import PATIENCE_SECONDS, enter_room, post, read, reads_nothing
from tests.tutorial.project import Project
from tests.tutorial.test_notes import join, log_in, monitor, typed_monitor
from tests.tutorial.test_part_2 import LAYER_CHECK

__all__ = ["monitor", "typed_monitor"]


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[OwnServer]:
    with redis_server(tmp_path / "redis") as server:
        yield server


@pytest.fixture
def on_redis(part_2: Project, redis: OwnServer) -> Project:
    """The end of part 2, with the layer as the tutorial configures it."""
    layer = {
        "BACKEND": "channels_redis.core.RedisChannelLayer",
        "CONFIG": {"hosts": [("127.0.0.1", redis.port)]},
    }
    part_2.set(CHANNEL_LAYERS={"default": layer})
    return part_2


def names_in(redis: OwnServer) -> str:
    """The channels that somebody listens to, as Redis tells them."""
    with socket.create_connection(("127.0.0.1", redis.port), PATIENCE_SECONDS) as connection:
        connection.sendall(b"PUBSUB CHANNELS *\r\nKEYS *\r\nQUIT\r\n")
        return b"".join(iter(lambda: connection.recv(65536), b"")).decode()


def test_the_layer_answers_in_the_shell(on_redis: Project) -> None:
    assert "{'type': 'hello'}" in on_redis.manage("shell", stdin=LAYER_CHECK)


@pytest.mark.parametrize("consumers", [sources.SYNC_CONSUMERS, sources.ASYNC_CONSUMERS])
def test_windows_of_one_room_on_two_servers(on_redis: Project, consumers: str) -> None:
    on_redis.write("chat/consumers.py", consumers)
    with on_redis.serve() as here, on_redis.serve() as there:
        ports = here.wait_for_port(), there.wait_for_port()
        with (
            enter_room(ports[0], "lobby") as first,
            enter_room(ports[1], "lobby") as second,
            enter_room(ports[1], "kitchen") as other,
        ):
            post(first, "hello")
            assert [read(first), read(second)] == ["hello", "hello"]
            post(other, "soup")
            assert read(other) == "soup"
            assert reads_nothing(first)


def test_the_prefix_and_the_host_from_the_environment(monitor: Project, redis: OwnServer) -> None:
    keys = log_in(monitor)
    path = monitor.folder / "NetWorkMonitor" / "settings.py"
    path.write_text(path.read_text() + sources.NOTES_SETTINGS.replace("6379", str(redis.port)))
    environment = {"REDIS_HOST": "127.0.0.1"}
    with (
        monitor.serve(env=environment) as one,
        monitor.serve(env=environment) as two,
        join(one.wait_for_port(), keys["anna"]) as desk,
        join(two.wait_for_port(), keys["anna"]) as phone,
    ):
        desk.send("hello")
        assert desk.recv(PATIENCE_SECONDS) == "hello"
        assert phone.recv(PATIENCE_SECONDS) == "hello"
        names = [line for line in names_in(redis).split() if line[:1] not in "*$+:"]
    assert names
    assert [name for name in names if not name.startswith("asgi:")] == []
