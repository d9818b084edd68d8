"""The client of sockets: headers, cookies, sessions, users, order."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.http import parse_cookie

from channels import route
from channels.auth import channel_session_user_from_http
from channels.handler import AsgiRequest
from channels.sessions import http_session
from channels.test import HttpClient, WSClient
from tests.legacy.conftest import MakeSite

SEEN: list[Any] = []


@http_session  # type: ignore[untyped-decorator]
def look(message: Any) -> None:
    SEEN.append(message)


def tell_user(message: Any) -> None:
    message.reply_channel.send({"accept": True})
    message.reply_channel.send({"text": message.user.get_username()})


ROUTES = [
    route("websocket.receive", look),
    route("websocket.connect", channel_session_user_from_http(tell_user)),
]


@pytest.fixture
def client(site: MakeSite) -> WSClient:
    site(ROUTES)
    SEEN.clear()
    return WSClient()


@pytest.mark.django_db
class TestMessages:
    def look(self, client: WSClient, *args: Any, **kwargs: Any) -> Any:
        client.send_and_consume("websocket.receive", *args, **kwargs)
        return SEEN.pop()

    def test_a_path_with_a_query(self, client: WSClient) -> None:
        message = self.look(client, path="/chat/?room=1&a=?")
        assert (message["path"], message["query_string"]) == ("/chat/", "room=1&a=?")
        assert "query_string" not in self.look(client, path="/chat/")

    def test_cookies_and_headers_as_a_server_sends_them(self, client: WSClient) -> None:
        client.set_cookie("foo", "not-bar")
        client.set_cookie("foo", "bar")
        client.set_cookie("qux", "qu;x")
        client.set_header("X-Colour", "red")
        client.set_header("x-shape", b"round")
        message = self.look(client)
        request = AsgiRequest(message.with_content({"method": "GET", **message.content}))
        assert client.get_cookies() == request.COOKIES
        assert request.COOKIES["qux"] == "qu;x"
        assert request.headers["X-Colour"] == "red"
        assert request.headers["X-Shape"] == "round"
        assert parse_cookie(client.headers["cookie"].decode()) == client.get_cookies()
        with pytest.raises(ValueError, match=r"call that"):
            client.set_header("Cookie", "a=b")

    def test_text_that_is_no_string_is_json(self, client: WSClient) -> None:
        assert self.look(client, text={"a": 1})["text"] == '{"a": 1}'
        assert self.look(client, {"text": [1]})["text"] == "[1]"
        assert self.look(client, text="plain")["text"] == "plain"
        assert "text" not in self.look(client, {"bytes": b"1"})

    def test_messages_are_numbered_if_they_shall(self, client: WSClient) -> None:
        ordered = WSClient(ordered=True)
        assert [self.look(ordered)["order"] for _ in range(3)] == [0, 1, 2]
        with pytest.raises(ValueError, match=r"content has order=7, which a client"):
            ordered.send("websocket.receive", {"order": 7})
        assert "order" not in self.look(client)

    def test_its_session_is_the_consumers(self, client: WSClient) -> None:
        client.session["colour"] = "red"
        client.session.save()
        assert self.look(client).http_session["colour"] == "red"


@pytest.mark.django_db
class TestUsers:
    def test_it_logs_in_with_credentials(self, client: WSClient) -> None:
        users = get_user_model().objects
        users.create_user("ann", password="secret")
        users.create_user("old", password="secret", is_active=False)
        assert not client.login(username="ann", password="wrong")
        assert not client.login(username="old", password="secret")
        assert client.login(username="ann", password="secret")
        client.send_and_consume("websocket.connect")
        assert client.receive(json=False) == "ann"

    def test_it_logs_in_without(self, client: WSClient) -> None:
        client.force_login(get_user_model().objects.create_user("bea"))
        client.send_and_consume("websocket.connect")
        assert client.receive(json=False) == "bea"

    def test_it_is_nobody_before(self, client: WSClient) -> None:
        client.send_and_consume("websocket.connect")
        assert client.receive(json=False) == ""


def test_its_former_name() -> None:
    assert HttpClient is WSClient
