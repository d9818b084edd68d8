"""The door is shut for whoever was handed other callables than the server's own."""

from __future__ import annotations

from contextvars import copy_context

from channels.kit.doors import DOOR, Door, find_context, find_mailbox, find_sink
from channels.kit.mailbox import Mailbox
from channels.kit.types import Message, Scope


class PlainSink:
    form: str | None = "plain"

    def write(self, frame: bytes) -> None:
        raise AssertionError("nothing is written here")


async def receive() -> Message:
    return {}


async def send(message: Message) -> None: ...


async def wrapped(message: Message) -> None: ...


def scope_with(door: object) -> Scope:
    return {"type": "websocket", "extensions": {DOOR: door}}


def test_the_servers_own_callables_open_it() -> None:
    door = Door(receive, send, Mailbox(), PlainSink())
    assert find_mailbox(scope_with(door), receive) is door.mailbox
    assert find_sink(scope_with(door), send) is door.sink


def test_a_wrapped_send_shuts_the_sink_but_not_the_mailbox() -> None:
    door = Door(receive, send, Mailbox(), PlainSink())
    assert find_sink(scope_with(door), wrapped) is None
    assert find_mailbox(scope_with(door), receive) is door.mailbox


def test_foreign_servers_have_no_door() -> None:
    assert find_mailbox({"type": "websocket"}, receive) is None
    assert find_sink({"type": "websocket", "extensions": None}, send) is None
    assert find_sink(scope_with("something else"), send) is None


def test_a_server_may_tell_the_applications_context() -> None:
    context = copy_context()
    door = Door(receive, send, Mailbox(), context=context)
    assert find_context(scope_with(door)) is context
    assert find_context(scope_with(Door(receive, send, Mailbox()))) is None
    assert find_context({"type": "websocket"}) is None
