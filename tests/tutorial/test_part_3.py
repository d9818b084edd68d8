"""Part 3: the consumer rewritten as an asynchronous one."""

from __future__ import annotations

from tests.tutorial.browsing import enter_room, post, read, reads_nothing
from tests.tutorial.project import Project


def test_rooms(part_3: Project) -> None:
    with part_3.serve() as server:
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
