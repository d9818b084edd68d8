"""The stack that the tutorial builds, as one piece: what reaches the consumer at its end."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

from django import urls
from django.contrib.auth.models import AnonymousUser

from channels.auth import AuthMiddlewareStack
from channels.kit.types import Message, Receive, Scope, Send
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import AllowedHostsOriginValidator
from tests.applications import call

re_path: Any = urls.re_path
path: Any = urls.path


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


async def test_what_the_stack_refuses() -> None:
    async def consumer(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError("must not be reached")

    refused = [{"type": "websocket.close"}]
    assert await call(tutorial(consumer), websocket("/ws/other/")) == refused
    assert await call(tutorial(consumer), websocket("/ws/chat/a/", b"http://evil.com")) == refused


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
