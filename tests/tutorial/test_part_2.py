"""Part 2: the room page, a consumer that echoes, a channel layer and a consumer that uses it."""

from __future__ import annotations

import pytest
from websockets.exceptions import InvalidStatus

from tests.tutorial.browsing import enter_room, get, post, read, reads_nothing
from tests.tutorial.project import Project

LAYER_CHECK = """\
import channels.layers
channel_layer = channels.layers.get_channel_layer()
from asgiref.sync import async_to_sync
async_to_sync(channel_layer.send)('test_channel', {'type': 'hello'})
print(async_to_sync(channel_layer.receive)('test_channel'))
"""


def test_a_room_without_a_consumer(with_room: Project) -> None:
    with with_room.serve() as server:
        port = server.wait_for_port()
        status, page = get(port, "/chat/lobby/")
        assert status == 200
        assert 'var roomName = "lobby";' in page
        with pytest.raises(InvalidStatus) as refused, enter_room(port, "lobby"):
            pass
        assert refused.value.response.status_code == 500


def test_the_first_consumer_echoes_to_its_own_window_only(with_consumer: Project) -> None:
    with with_consumer.serve() as server:
        port = server.wait_for_port()
        with enter_room(port, "lobby") as first, enter_room(port, "lobby") as second:
            post(first, "hello")
            assert read(first) == "hello"
            assert reads_nothing(second)


def test_the_layer_answers_in_the_shell(part_2: Project) -> None:
    assert "{'type': 'hello'}" in part_2.manage("shell", stdin=LAYER_CHECK)


def test_rooms(part_2: Project) -> None:
    with part_2.serve() as server:
        port = server.wait_for_port()
        with (
            enter_room(port, "lobby") as first,
            enter_room(port, "lobby") as second,
            enter_room(port, "kitchen") as other,
        ):
            post(second, "hello")
            assert [read(first), read(second)] == ["hello", "hello"]
            post(other, "soup")
            assert read(other) == "soup"
            assert reads_nothing(first)
        with enter_room(port, "lobby") as alone:
            post(alone, "who is there?")
            assert read(alone) == "who is there?"


def test_a_room_name_that_no_group_may_have_fails(part_2: Project) -> None:
    with part_2.serve() as server:
        with pytest.raises(InvalidStatus), enter_room(server.wait_for_port(), "caf%C3%A9"):
            pass
        server.wait_for("TypeError: Group name must be a valid")
