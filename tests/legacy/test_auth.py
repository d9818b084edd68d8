"""Users of messages."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.auth.models import AnonymousUser, User
from django.test import Client

from channels.legacy.asgi import ChannelLayerWrapper
from channels.legacy.auth import (
    channel_and_http_session_user_from_http,
    channel_session_user,
    channel_session_user_from_http,
    http_session_user,
    transfer_user,
)
from channels.legacy.message import Message
from channels.legacy.sessions import channel_session, session_for_reply_channel
from tests.legacy.conftest import MakeSite

REPLY = "websocket.send.x!y"

pytestmark = pytest.mark.django_db


@pytest.fixture
def layer(site: MakeSite, settings: Any) -> ChannelLayerWrapper:
    settings.SESSION_ENGINE = "django.contrib.sessions.backends.db"
    return site()


@pytest.fixture
def user() -> User:
    return User.objects.create_user("rosa", password="secret")


@pytest.fixture
def key(user: User) -> str:
    """The session's key of a browser in which the user is logged in."""
    browser = Client()
    browser.force_login(user)
    return str(browser.session.session_key)


def connect(layer: Any, key: str = "") -> Message:
    headers = [[b"cookie", f"sessionid={key}".encode()]] if key else []
    content = {"reply_channel": REPLY, "path": "/", "headers": headers, "order": 0}
    return Message(content, "websocket.connect", layer)


def receive(layer: Any) -> Message:
    return Message({"reply_channel": REPLY, "path": "/"}, "websocket.receive", layer)


def whose(message: Any) -> Any:
    return message.user


def test_the_clients_user_is_that_of_its_session(
    layer: ChannelLayerWrapper, user: User, key: str
) -> None:
    assert http_session_user(whose)(connect(layer, key)) == user
    assert http_session_user(whose)(connect(layer)) == AnonymousUser()


@pytest.mark.parametrize(
    "from_http", [channel_session_user_from_http, channel_and_http_session_user_from_http]
)
def test_the_user_is_taken_over_for_the_whole_socket(
    from_http: Any, layer: ChannelLayerWrapper, user: User, key: str
) -> None:
    assert channel_session_user(whose)(receive(layer)) == AnonymousUser()
    assert from_http(whose)(connect(layer, key)) == user
    assert channel_session_user(whose)(receive(layer)) == user


def test_the_clients_session_stays_with_the_socket(
    layer: ChannelLayerWrapper, user: User, key: str
) -> None:
    @channel_and_http_session_user_from_http
    def consumer(message: Any) -> Any:
        return message.user, message.http_session.session_key

    assert consumer(connect(layer, key)) == (user, key)
    assert consumer(receive(layer)) == (user, key)


@pytest.mark.parametrize(
    "from_http", [channel_session_user_from_http, channel_and_http_session_user_from_http]
)
def test_a_client_that_is_not_logged_in(from_http: Any, layer: ChannelLayerWrapper) -> None:
    assert from_http(whose)(connect(layer)) == AnonymousUser()
    assert channel_session_user(whose)(receive(layer)) == AnonymousUser()


def test_a_changed_password_ends_the_user_and_not_the_session(
    layer: ChannelLayerWrapper, user: User, key: str
) -> None:
    @channel_session_user_from_http
    def first(message: Any) -> None:
        message.channel_session["room"] = "kitchen"

    first(connect(layer, key))
    user.set_password("another")
    user.save()
    assert channel_session_user(whose)(receive(layer)) == AnonymousUser()
    session = session_for_reply_channel(REPLY)
    assert session["room"] == "kitchen"
    assert SESSION_KEY not in session
    assert http_session_user(whose)(connect(layer, key)) == AnonymousUser()


def test_a_hash_of_an_older_key_is_renewed(
    layer: ChannelLayerWrapper, user: User, key: str, settings: Any
) -> None:
    channel_session_user_from_http(whose)(connect(layer, key))
    before = session_for_reply_channel(REPLY)[HASH_SESSION_KEY]
    settings.SECRET_KEY_FALLBACKS = [settings.SECRET_KEY]
    settings.SECRET_KEY = "a newer one"
    # The row itself was signed with the older key.
    assert channel_session_user(whose)(receive(layer)) == user
    assert session_for_reply_channel(REPLY)[HASH_SESSION_KEY] != before


def test_a_consumer_class_may_have_a_user(layer: ChannelLayerWrapper, user: User, key: str) -> None:
    class Consumer:
        @channel_session_user_from_http
        def connect(self, message: Any) -> Any:
            return message.user

    assert Consumer().connect(connect(layer, key)) == user


def test_a_user_is_transferred_whole(key: str) -> None:
    store = import_module("django.contrib.sessions.backends.db").SessionStore
    target: dict[str, Any] = {"room": "kitchen"}
    transfer_user(store(key), target)
    assert target.keys() == {"room", SESSION_KEY, BACKEND_SESSION_KEY, HASH_SESSION_KEY}
    transfer_user({}, target)
    assert SESSION_KEY in target


def test_it_goes_with_the_other_decorators(
    layer: ChannelLayerWrapper, user: User, key: str
) -> None:
    channel_session_user_from_http(whose)(connect(layer, key))
    assert channel_session(channel_session_user(whose))(receive(layer)) == user
