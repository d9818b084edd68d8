"""The stack that the tutorial builds, as one piece: what reaches the consumer at its end."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from asgiref import testing
from django import urls
from django.contrib.auth.models import AnonymousUser
from django.contrib.sessions.backends import cache

from channels.auth import AuthMiddlewareStack
from channels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from channels.kit.doors import DOOR, Door, find_mailbox, find_sink
from channels.kit.mailbox import Mailbox
from channels.kit.types import Message, Receive, Scope, Send
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import AllowedHostsOriginValidator
from tests.applications import call

re_path: Any = urls.re_path
path: Any = urls.path
#: Untyped in asgiref.
ApplicationCommunicator: Any = testing.ApplicationCommunicator


def tutorial(application: Any) -> ProtocolTypeRouter:
    routes = [re_path(r"ws/chat/(?P<room_name>\w+)/$", application)]
    return ProtocolTypeRouter(
        {"websocket": AllowedHostsOriginValidator(AuthMiddlewareStack(URLRouter(routes)))}
    )


def websocket(url: str, origin: bytes = b"http://testserver") -> Scope:
    return {"type": "websocket", "path": url, "headers": [(b"origin", origin)]}


async def test_the_consumer_gets_the_servers_own_callables_and_a_whole_scope() -> None:
    seen: list[tuple[Scope, Receive, Send]] = []

    async def consumer(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append((scope, receive, send))

    async def receive() -> Message:
        raise AssertionError("nothing to receive")

    async def send(message: Message) -> None:
        raise AssertionError("nothing to send")

    outside = websocket("/ws/chat/lobby/")
    await tutorial(consumer)(outside, receive, send)
    ((scope, given_receive, given_send),) = seen
    assert given_receive is receive
    assert given_send is send
    assert scope["url_route"] == {"args": (), "kwargs": {"room_name": "lobby"}}
    assert isinstance(scope["user"], AnonymousUser)
    assert scope["session"].is_empty()
    assert scope["cookies"] == {}
    assert outside == websocket("/ws/chat/lobby/")


async def test_the_servers_door_stays_open_through_the_stack() -> None:
    """Else every project with logged-in users would lose the short way for frames and events."""
    found: list[object] = []

    async def consumer(scope: Scope, receive: Receive, send: Send) -> None:
        found.extend((find_mailbox(scope, receive), find_sink(scope, send)))

    async def receive() -> Message:
        raise AssertionError("nothing to receive")

    async def send(message: Message) -> None:
        raise AssertionError("nothing to send")

    mailbox, sink = Mailbox(), NoSink()
    scope = websocket("/ws/chat/lobby/")
    scope["extensions"] = {DOOR: Door(receive, send, mailbox, sink)}
    await tutorial(consumer)(scope, receive, send)
    assert found == [mailbox, sink]


class NoSink:
    """A sink that takes nothing."""

    form = None

    def write(self, frame: bytes) -> None:
        raise AssertionError("nothing to write")


async def test_what_the_stack_refuses() -> None:
    async def consumer(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError("must not be reached")

    refused = [{"type": "websocket.close"}]
    assert await call(tutorial(consumer), websocket("/ws/other/")) == refused
    assert await call(tutorial(consumer), websocket("/ws/chat/a/", b"http://evil.com")) == refused


class Remembering(WebsocketConsumer):
    """Keeps the client's last word in the session."""

    def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        self.scope["session"]["last"] = text_data
        self.send(f"{self.scope['url_route']['kwargs']['room_name']}: {text_data}")


class AsyncRemembering(AsyncWebsocketConsumer):
    """The same, with coroutines."""

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self.scope["session"].aset("last", text_data)
        await self.send(f"{self.scope['url_route']['kwargs']['room_name']}: {text_data}")


class TokenMiddleware:
    """Middleware as the documentation of Channels 2 had it."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __call__(self, scope: Scope) -> Any:
        return self.inner(dict(scope, token=dict(scope["headers"])[b"authorization"]))


@pytest.fixture
def session(settings: Any) -> Any:
    """A stored session, in memory."""
    settings.SESSION_ENGINE = "django.contrib.sessions.backends.cache"
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
    settings.CHANNEL_LAYERS = {}
    store = cache.SessionStore()
    store.save()
    return store


@pytest.mark.parametrize("consumer", [Remembering, AsyncRemembering])
@pytest.mark.parametrize("form", ["as_asgi()", "class"])
async def test_a_consumers_changes_are_stored_while_it_lives(
    session: Any, monkeypatch: pytest.MonkeyPatch, consumer: Any, form: str
) -> None:
    monkeypatch.setattr("channels.db.close_old_connections", lambda **_: None)
    forms = {"as_asgi()": consumer.as_asgi, "class": lambda: consumer}
    scope = websocket("/ws/chat/lobby/")
    scope["headers"].append((b"cookie", f"sessionid={session.session_key}".encode()))
    communicator = ApplicationCommunicator(tutorial(forms[form]()), scope)
    await communicator.send_input({"type": "websocket.connect"})
    assert (await communicator.receive_output())["type"] == "websocket.accept"
    for word in ("one", "two"):
        await communicator.send_input({"type": "websocket.receive", "text": word})
        assert (await communicator.receive_output())["text"] == f"lobby: {word}"
    # The answer to a third event proves that the second was handled to its end.
    await communicator.send_input({"type": "websocket.receive", "text": "three"})
    await communicator.receive_output()
    assert cache.SessionStore(session.session_key)["last"] in {"two", "three"}
    await communicator.send_input({"type": "websocket.disconnect", "code": 1000})
    await communicator.wait()
    assert cache.SessionStore(session.session_key)["last"] == "three"


async def test_a_stack_as_channels_2_wrote_it(
    session: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("channels.db.close_old_connections", lambda **_: None)

    class Telling(WebsocketConsumer):
        def connect(self) -> None:
            self.accept()
            self.send(self.scope["token"].decode())

    application = ProtocolTypeRouter(
        {
            "websocket": TokenMiddleware(
                AuthMiddlewareStack(TokenMiddleware(URLRouter([path("ws/", Telling)])))
            )
        }
    )
    scope = websocket("/ws/")
    scope["headers"].append((b"authorization", b"secret"))
    communicator = ApplicationCommunicator(application, scope)
    await communicator.send_input({"type": "websocket.connect"})
    assert (await communicator.receive_output())["type"] == "websocket.accept"
    assert (await communicator.receive_output())["text"] == "secret"
    await communicator.send_input({"type": "websocket.disconnect", "code": 1000})
    await communicator.wait()


def test_the_middle_can_be_imported_before_settings_and_models() -> None:
    """asgi.py names these modules before it calls get_asgi_application()."""
    names = "auth db http middleware routing security.websocket sessions"
    code = "; ".join(f"import channels.{name}" for name in names.split())
    subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        check=True,
        env={"PYTHONPATH": "src"},
        timeout=30,
    )
