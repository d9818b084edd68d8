"""Which method a type reaches, and which it never does."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest

from channels.consumer import AsyncConsumer, SyncConsumer, get_handler_name
from channels.consumer.handlers import find_handler
from channels.exceptions import UnknownMessageType
from channels.generic.websocket import AsyncJsonWebsocketConsumer, WebsocketConsumer


@pytest.mark.parametrize(
    ("kind", "name"),
    [("chat.message", "chat_message"), ("websocket.receive", "websocket_receive"), ("a", "a")],
)
def test_dots_become_underscores(kind: str, name: str) -> None:
    assert get_handler_name({"type": kind}) == name


def test_long_types_are_not_kept() -> None:
    tracemalloc.start()
    try:
        for number in range(100):
            get_handler_name({"type": f"x{number:0100000}"})
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 500_000


@pytest.mark.parametrize(
    ("message", "error"),
    [
        ({}, "Incoming message has no 'type' attribute"),
        ({"type": "_private"}, "Malformed type in message (leading underscore)"),
        ({"type": ".private"}, "Malformed type in message (leading underscore)"),
        ({"type": None}, "The type of a message is a string: found None."),
    ],
)
def test_a_malformed_type_is_refused(message: dict[str, Any], error: str) -> None:
    with pytest.raises(ValueError) as raised:  # noqa: PT011 - compared whole below
        get_handler_name(message)
    assert str(raised.value) == error


@pytest.mark.parametrize("kind", ["x" * 1_000_000, "line\n" * 50, ["list"] * 100_000])
def test_an_unknown_type_is_shown_cut_and_on_one_line(kind: object) -> None:
    consumer = AsyncConsumer()
    with pytest.raises(UnknownMessageType) as raised:
        find_handler(consumer, {"type": kind}, consumer._verbs)
    assert len(str(raised.value)) < 320
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("consumer", "kind"),
    [
        (AsyncConsumer, "send"),
        (AsyncConsumer, "dispatch"),
        (AsyncConsumer, "as.asgi"),
        (AsyncConsumer, "base.send"),
        (AsyncConsumer, "channel.receive"),
        (SyncConsumer, "send"),
        (WebsocketConsumer, "close"),
        (WebsocketConsumer, "accept"),
        (WebsocketConsumer, "connect"),
        (WebsocketConsumer, "receive"),
        (AsyncJsonWebsocketConsumer, "send_json"),
        (AsyncJsonWebsocketConsumer, "decode.json"),
    ],
)
def test_a_verb_of_the_base_classes_is_no_handler(consumer: type[AsyncConsumer], kind: str) -> None:
    """Neither as it is nor overridden."""

    class Overriding(consumer):  # type: ignore[valid-type,misc]
        pass

    setattr(Overriding, kind.replace(".", "_"), lambda self, message: None)
    for each in (consumer, Overriding):
        with pytest.raises(ValueError, match="not a handler"):
            find_handler(each(), {"type": kind}, each._verbs)


@pytest.mark.parametrize("kind", ["close", "accept", "connect", "receive", "chat.message", "get"])
def test_a_project_may_name_its_handlers_as_it_likes(kind: str) -> None:
    """A verb is refused only where the base classes have it."""

    class Mine(AsyncConsumer):
        pass

    handler = lambda self, message: "handled"  # noqa: E731
    setattr(Mine, kind.replace(".", "_"), handler)
    assert find_handler(Mine(), {"type": kind}, Mine._verbs)({}) == "handled"


def test_the_method_that_is_missing_is_named() -> None:
    class Mine(AsyncConsumer):
        pass

    with pytest.raises(UnknownMessageType, match=r"chat\.message: expected a method Mine\.chat_m"):
        find_handler(Mine(), {"type": "chat.message"}, Mine._verbs)


@pytest.mark.parametrize("kind", ["chat.message", "websocket.connect", "scope"])
def test_a_type_without_a_method_is_refused(kind: str) -> None:
    class Mine(AsyncConsumer):
        pass

    with pytest.raises(ValueError, match=r"No handler for message type|not a handler"):
        find_handler(Mine(), {"type": kind}, Mine._verbs)
