"""Sessions of sockets and of clients."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest
from django.conf import settings

from channels.legacy.asgi import ChannelLayerWrapper
from channels.legacy.message import Message
from channels.legacy.sessions import (
    channel_and_http_session,
    channel_session,
    http_session,
    session_for_reply_channel,
)
from tests.legacy.conftest import ENGINES, message

pytestmark = pytest.mark.usefixtures("cached_sessions")


def stored_session(key: str | None = None, **values: Any) -> Any:
    session = import_module(settings.SESSION_ENGINE).SessionStore(key)
    session.update(values)
    session.save()
    return session


# The socket's session.


def test_a_sockets_session_lasts_from_message_to_message(
    engine: str, layer: ChannelLayerWrapper
) -> None:
    @channel_session
    def first(message: Any) -> None:
        assert message.channel_session.get("room") is None
        message.channel_session["room"] = "kitchen"

    @channel_session
    def second(message: Any, more: str) -> str:
        return f"{message.channel_session['room']} {more}"

    first(message(layer))
    assert second(message(layer), more="x") == "kitchen x"
    key = session_for_reply_channel("websocket.send.x!y").session_key
    assert key.startswith("chn")
    assert len(key) == 32
    assert session_for_reply_channel("websocket.send.x!z").session_key != key


def test_it_is_saved_after_an_error_too(layer: ChannelLayerWrapper) -> None:
    @channel_session
    def fails(message: Any) -> None:
        message.channel_session["n"] = 1
        raise LookupError

    with pytest.raises(LookupError):
        fails(message(layer))
    assert session_for_reply_channel("websocket.send.x!y")["n"] == 1


def test_a_method_of_a_consumer_class_may_have_it(layer: ChannelLayerWrapper) -> None:
    class Consumer:
        @channel_session
        def receive(self, message: Any, room: str) -> str:
            message.channel_session["room"] = room
            return room

    assert Consumer().receive(message(layer), room="x") == "x"
    assert session_for_reply_channel("websocket.send.x!y")["room"] == "x"


def test_decorators_share_one_session(layer: ChannelLayerWrapper) -> None:
    found = []

    @channel_session
    def inner(message: Any) -> None:
        found.append(message.channel_session)

    @channel_session
    def outer(message: Any) -> None:
        found.append(message.channel_session)
        inner(message)

    outer(message(layer))
    assert found[0] is found[1]


def test_what_cannot_have_a_session_is_named(layer: ChannelLayerWrapper, settings: Any) -> None:
    consumer = channel_session(lambda message: None)
    with pytest.raises(ValueError, match="needs a message with a reply channel"):
        consumer(Message({}, "jobs", layer))
    with pytest.raises(ValueError, match="must be called with a message: found str, int"):
        consumer("text", 7)
    settings.SESSION_ENGINE = f"{ENGINES}signed_cookies"
    with pytest.raises(ValueError, match="name another one in CHANNEL_SESSION_ENGINE"):
        consumer(message(layer))
    settings.CHANNEL_SESSION_ENGINE = f"{ENGINES}cache"
    consumer(message(layer))


def test_two_workers_create_a_session_at_once(
    engine: str, layer: ChannelLayerWrapper, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both have looked, and found none, before either creates it."""
    store = type(session_for_reply_channel("x.y!z"))
    exists = store.exists
    other: list[str] = []

    def looked_too_early(self: Any, key: str) -> bool:
        found = exists(self, key)
        if not other:
            other.append(key)
            store(session_key=key).save(must_create=True)
        return bool(found)

    monkeypatch.setattr(store, "exists", looked_too_early)

    @channel_session
    def consumer(message: Any) -> None:
        message.channel_session["n"] = 1

    consumer(message(layer))
    assert session_for_reply_channel("websocket.send.x!y")["n"] == 1


# The client's session.


@pytest.mark.parametrize("where", ["cookie", "query", "both"])
def test_the_clients_session_is_found(
    where: str, engine: str, layer: ChannelLayerWrapper, settings: Any
) -> None:
    session = stored_session(name="a")
    cookie = session.session_key if where == "cookie" else "other"
    content: dict[str, Any] = {"headers": [[b"cookie", f"sessionid={cookie}".encode()]]}
    if where != "cookie":
        content["query_string"] = f"session_key={session.session_key}".encode()

    @http_session
    def consumer(message: Any) -> str:
        message.http_session["seen"] = True
        return str(message.http_session["name"])

    assert consumer(message(layer, "websocket.connect", **content)) == "a"
    assert session.__class__(session.session_key)["seen"] is True


def test_a_client_without_a_session_gets_none(layer: ChannelLayerWrapper) -> None:
    @http_session
    def consumer(message: Any) -> Any:
        return message.http_session

    assert consumer(message(layer, "websocket.connect", headers=[])) is None


def test_no_session_is_made_for_a_key_that_is_not_stored(
    db: None, layer: Any, settings: Any
) -> None:
    settings.SESSION_ENGINE = f"{ENGINES}db"

    @http_session
    def consumer(message: Any) -> None:
        message.http_session["n"] = 1

    consumer(message(layer, query_string=b"session_key=abcdefghijklmnop"))
    assert not stored_session().__class__("abcdefghijklmnop").exists("abcdefghijklmnop")
    assert stored_session().model.objects.count() == 2, "those that this test has made itself"


def test_the_body_of_a_request_is_left_to_the_consumer(layer: ChannelLayerWrapper) -> None:
    channel = layer.new_channel("http.request.body?")
    layer.send(channel, {"content": b"x"})

    @http_session
    def consumer(message: Any) -> Any:
        return layer.receive([channel])[1]

    found = consumer(message(layer, "http.request", method="POST", body_channel=channel))
    assert found == {"content": b"x"}


@pytest.mark.parametrize("content", [{"headers": [[b"\xff"]]}, {"headers": 7}])
def test_what_is_no_request_has_no_client(content: Any, layer: ChannelLayerWrapper) -> None:
    consumer = http_session(lambda message: None)
    with pytest.raises(ValueError, match="cannot be read as a request"):
        consumer(message(layer, **content))
    with pytest.raises(ValueError, match="cannot be read as a request"):
        consumer(Message({}, "jobs", layer))


def test_the_clients_session_is_kept_for_the_whole_socket(layer: ChannelLayerWrapper) -> None:
    session = stored_session(name="a")
    query = f"session_key={session.session_key}".encode()

    @channel_and_http_session
    def consumer(message: Any) -> None:
        message.http_session["count"] = message.http_session.get("count", 0) + 1
        message.channel_session["count"] = message.channel_session.get("count", 0) + 1

    consumer(message(layer, "websocket.connect", query_string=query))
    consumer(message(layer))
    assert type(session)(session.session_key)["count"] == 2
    assert session_for_reply_channel("websocket.send.x!y")["count"] == 2


def test_a_socket_of_a_client_without_a_session(layer: ChannelLayerWrapper) -> None:
    @channel_and_http_session
    def consumer(message: Any) -> Any:
        return message.http_session

    assert consumer(message(layer, "websocket.connect")) is None
    assert consumer(message(layer)) is None
