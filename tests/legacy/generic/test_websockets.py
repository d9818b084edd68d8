"""Class-based consumers of WebSockets."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth import get_user_model

from channels import Group, route_class
from channels.generic.websockets import JsonWebsocketConsumer, WebsocketConsumer
from channels.legacy.message import Message
from channels.test import ChannelTestCase, WSClient, apply_routes
from tests.legacy.routes import routed


class Echo(WebsocketConsumer):
    def receive(
        self,
        text: str | None = None,
        bytes: bytes | None = None,  # noqa: A002
        **kwargs: Any,
    ) -> None:
        self.send(text=text, bytes=bytes, close=text == "bye")


class Room(WebsocketConsumer):
    http_user = True

    def connection_groups(self, **kwargs: Any) -> list[str]:
        return [f"room-{kwargs['room']}"]

    def receive(  # type: ignore[override] # as programs of that time write it
        self, text: str, room: str, **kwargs: Any
    ) -> None:
        user: Any = self.message.user  # type: ignore[attr-defined]
        self.group_send(f"room-{room}", text=f"{user}: {text}")


class Refusing(WebsocketConsumer):
    def connect(self, message: Message, **kwargs: Any) -> None:
        self.close(4003)


class Api(JsonWebsocketConsumer):
    groups = ["api"]

    def receive(self, content: Any, **kwargs: Any) -> None:  # type: ignore[override]
        self.send({"got": content, "at": self.path})


@routed(route_class(Echo, path="^/echo/"))
class TestWebsocketConsumer(ChannelTestCase):
    def test_it_accepts_and_answers(self) -> None:
        client = WSClient()
        client.send_and_consume("websocket.connect", path="/echo/")
        client.send_and_consume("websocket.receive", text="hello", path="/echo/")
        assert client.receive(json=False) == "hello"
        client.send_and_consume("websocket.receive", {"bytes": b"\x00"}, path="/echo/")
        assert client.receive() == {"bytes": b"\x00"}
        client.send_and_consume("websocket.disconnect", path="/echo/")
        assert client.receive() is None

    def test_it_may_close_after_it_has_sent(self) -> None:
        client = WSClient()
        client.send_and_consume("websocket.receive", text="bye", path="/echo/")
        message = client.get_next_message(client.reply_channel)
        assert message is not None
        assert message.content == {"text": "bye", "close": True}

    def test_there_must_be_something_to_send(self) -> None:
        with pytest.raises(ValueError, match="nothing to send: pass text or bytes"):
            WebsocketConsumer.group_send("room")

    def test_a_refused_socket_fails_the_clients_check(self) -> None:
        client = WSClient()
        with apply_routes(route_class(Refusing)):
            with pytest.raises(AssertionError, match=r"Connection rejected.*'close': 4003"):
                client.send_and_consume("websocket.connect")
            client.send_and_consume("websocket.connect", check_accept=False)
        assert client.receive() == {"close": 4003}

    def test_slight_ordering_is_refused(self) -> None:
        with (
            apply_routes(Echo.as_route({"slight_ordering": True})),
            pytest.raises(ValueError, match="slight_ordering is set"),
        ):
            WSClient().send_and_consume("websocket.connect")


@routed(route_class(Room, path=r"^/(?P<room>\w+)/$"))
class TestGroups(ChannelTestCase):
    def test_a_socket_is_in_its_groups_while_it_is_open(self) -> None:
        ann = get_user_model().objects.create_user("ann")
        writer, reader = WSClient(), WSClient()
        writer.force_login(ann)
        for client in (writer, reader):
            client.send_and_consume("websocket.connect", path="/blue/")
        writer.send_and_consume("websocket.receive", text="hi", path="/blue/")
        assert writer.receive(json=False) == reader.receive(json=False) == "ann: hi"
        reader.send_and_consume("websocket.disconnect", path="/blue/")
        Group("room-blue").send({"text": "again"})
        assert writer.receive(json=False) == "again"
        assert reader.receive() is None


@routed(route_class(Api))
class TestJson(ChannelTestCase):
    def test_json_comes_and_goes(self) -> None:
        client = WSClient()
        client.send_and_consume("websocket.connect", path="/a/?b=c")
        client.send_and_consume("websocket.receive", text={"x": [1, None]}, path="/a/")
        assert client.receive() == {"got": {"x": [1, None]}, "at": "/a/"}

    def test_groups_get_json(self) -> None:
        client = WSClient()
        client.send_and_consume("websocket.connect")
        Api.group_send("api", {"news": 1}, close=True)
        message = client.get_next_message(client.reply_channel)
        assert message is not None
        assert message.content == {"text": '{"news": 1}', "close": True}

    def test_binary_frames_and_other_text_are_refused(self) -> None:
        client = WSClient()
        with pytest.raises(ValueError, match="Api got a binary frame"):
            client.send_and_consume("websocket.receive", {"bytes": b"{}"})
        with pytest.raises(ValueError, match="Expecting value"):
            client.send_and_consume("websocket.receive", text="no json")


class Counting(WebsocketConsumer):
    strict_ordering = True

    def receive(self, text: str | None = None, **kwargs: Any) -> None:  # type: ignore[override]
        self.send(text)


@routed(route_class(Counting))
class TestStrictOrdering(ChannelTestCase):
    def test_messages_wait_for_those_before_them(self) -> None:
        client = WSClient()
        client.send_and_consume("websocket.connect", {"order": 0})
        client.send_and_consume("websocket.receive", {"order": 2, "text": "second"})
        assert client.receive() is None
        client.send_and_consume("websocket.receive", {"order": 1, "text": "first"})
        client.consume("websocket.receive")
        assert [client.receive(json=False), client.receive(json=False)] == ["first", "second"]
