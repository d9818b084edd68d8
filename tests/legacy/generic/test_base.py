"""Class-based consumers: one method for each channel."""

from __future__ import annotations

from typing import Any

import pytest

from channels import route_class
from channels.generic.base import BaseConsumer
from channels.legacy.message import Message
from channels.test import ChannelTestCase, Client, apply_routes
from tests.legacy.routes import routed


class Jobs(BaseConsumer):
    method_mapping = {"jobs.start": "start", "jobs.stop": "stop"}
    word = "started"

    def start(self, message: Message, **kwargs: Any) -> None:
        message.reply_channel.send({"did": self.word, "kwargs": kwargs, "same": self.kwargs})

    def stop(self, message: Message, **kwargs: Any) -> None:
        message.reply_channel.send({"did": "stopped"})


class Counter(BaseConsumer):
    method_mapping = {"count": "count"}
    channel_session = True

    def count(self, message: Message, **kwargs: Any) -> None:
        session: Any = message.channel_session  # type: ignore[attr-defined]
        session["count"] = session.get("count", 0) + 1
        message.reply_channel.send({"count": session["count"]})


class Users(Counter):
    channel_session = False
    channel_session_user = True

    def count(self, message: Message, **kwargs: Any) -> None:
        message.reply_channel.send({"user": str(message.user)})  # type: ignore[attr-defined]


@routed()
class TestDispatch(ChannelTestCase):
    def test_each_channel_has_its_method(self) -> None:
        client = Client()
        with apply_routes(route_class(Jobs, kind=r"(?P<kind>\w+)")):
            client.send_and_consume("jobs.start", {"kind": "nightly"})
            client.send_and_consume("jobs.stop", {"kind": "nightly"})
        kwargs = {"kind": "nightly"}
        assert client.receive() == {"did": "started", "kwargs": kwargs, "same": kwargs}
        assert client.receive() == {"did": "stopped"}

    def test_a_route_may_set_class_attributes(self) -> None:
        client = Client()
        with apply_routes([Jobs.as_route({"word": "begun"}, kind="a"), Jobs.as_route(kind="b")]):
            client.send_and_consume("jobs.start", {"kind": "a"})
            client.send_and_consume("jobs.start", {"kind": "b"})
        assert client.receive()["did"] == "begun"
        assert client.receive()["did"] == "started"
        assert Jobs.word == "started"

    def test_the_channel_session_lasts_from_message_to_message(self) -> None:
        client, other = Client(), Client()
        with apply_routes(route_class(Counter)):
            client.send_and_consume("count")
            client.send_and_consume("count")
            other.send_and_consume("count")
        assert [client.receive(), client.receive()] == [{"count": 1}, {"count": 2}]
        assert other.receive() == {"count": 1}

    def test_the_channel_session_has_a_user(self) -> None:
        client = Client()
        with apply_routes(route_class(Users)):
            client.send_and_consume("count")
        assert client.receive() == {"user": "AnonymousUser"}


def test_attributes_of_a_route_must_be_a_mapping() -> None:
    with pytest.raises(TypeError, match="attrs='word': expected a dict"):
        Jobs.as_route("word")  # type: ignore[arg-type]


def test_its_channels_are_those_of_its_methods() -> None:
    assert Jobs.channel_names() == {"jobs.start", "jobs.stop"}
