"""A chat with rooms, and its test suite, as sites of that time have them."""

# mypy: disable-error-code="untyped-decorator"
from __future__ import annotations

import json
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import override_settings

from channels import Channel, Group, include, route
from channels.auth import channel_session_user, channel_session_user_from_http
from channels.security.websockets import allowed_hosts_only
from channels.test import ChannelTestCase, Client, WSClient, apply_routes
from tests.legacy.routes import routed


@allowed_hosts_only
@channel_session_user_from_http
def ws_connect(message: Any, room: str) -> None:
    message.channel_session["room"] = room
    if message.user.is_anonymous:
        message.reply_channel.send({"close": True})
        return
    message.reply_channel.send({"accept": True})
    Group(f"chat-{room}").add(message.reply_channel)


@channel_session_user
def ws_receive(message: Any) -> None:
    Channel("chat-messages").send(
        {
            "room": message.channel_session["room"],
            "user": message.user.username,
            "message": message["text"],
        }
    )


@channel_session_user
def ws_disconnect(message: Any) -> None:
    Group(f"chat-{message.channel_session['room']}").discard(message.reply_channel)


def chat_message(message: Any) -> None:
    line = {"user": message["user"], "message": message["message"]}
    Group(f"chat-{message['room']}").send({"text": json.dumps(line)})


chat_routing = [
    route("websocket.connect", ws_connect, path=r"^/(?P<room>\w+)/$"),
    route("websocket.receive", ws_receive),
    route("websocket.disconnect", ws_disconnect),
]
channel_routing = [
    include(chat_routing, path=r"^/chat"),
    route("chat-messages", chat_message),
]


@routed(*channel_routing)
@override_settings(ALLOWED_HOSTS=["chat.example"])
class TestChat(ChannelTestCase):
    def enter(self, name: str, room: str = "blue") -> WSClient:
        client = WSClient()
        client.force_login(User.objects.create_user(name))
        client.set_header("Origin", "https://chat.example")
        client.send_and_consume("websocket.connect", path=f"/chat/{room}/")
        return client

    def test_a_line_is_read_in_its_room(self) -> None:
        ann, bea, eve = self.enter("ann"), self.enter("bea"), self.enter("eve", room="red")
        ann.send_and_consume("websocket.receive", text="hi", path="/chat/blue/")
        ann.consume("chat-messages")
        assert ann.receive() == bea.receive() == {"user": "ann", "message": "hi"}
        assert eve.receive() is None

    def test_a_bot_writes_to_the_queue(self) -> None:
        ann = self.enter("ann")
        content = {"room": "blue", "user": "bot", "message": "beep"}
        Client().send_and_consume("chat-messages", content)
        assert ann.receive() == {"user": "bot", "message": "beep"}

    def test_who_has_left_reads_no_more(self) -> None:
        ann = self.enter("ann")
        ann.send_and_consume("websocket.disconnect", path="/chat/blue/")
        Group("chat-blue").send({"text": "{}"})
        assert ann.receive() is None

    def test_who_has_not_logged_in_is_sent_away(self) -> None:
        client = WSClient()
        client.set_header("origin", b"https://chat.example")
        with pytest.raises(AssertionError, match="Connection rejected"):
            client.send_and_consume("websocket.connect", path="/chat/blue/")

    def test_the_message_on_the_queue(self) -> None:
        self.enter("ann").send_and_consume("websocket.receive", text="hi", path="/chat/blue/")
        message = self.get_next_message("chat-messages", require=True)
        assert message is not None
        assert message.content == {"room": "blue", "user": "ann", "message": "hi"}
        with pytest.raises(AssertionError, match="Expected a message on channel"):
            self.get_next_message("chat-messages", require=True)

    @apply_routes([route("chat-messages", ws_receive)])
    def test_other_routes_for_one_test(self) -> None:
        assert Client().get_consumer_by_channel("chat-messages") is ws_receive
