"""`check --deploy` names what strangers may do, and says nothing of what is in order."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from typing import Any

import pytest
from django.core.checks import CheckMessage
from django.urls import path

from channels.auth import AuthMiddlewareStack
from channels.consumer import ClientLimits
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.kit.limits import Limits
from channels.kit.options import options_of
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security import checks
from channels.security.access import AccessMiddleware
from channels.security.tokens import TokenAuthMiddleware
from channels.security.websocket import AllowedHostsOriginValidator, WebsocketDenier
from tests.processes import SRC, run


class Chat(AsyncWebsocketConsumer):
    pass


class Wrapped:
    """A middleware of another package, which keeps what it wraps under its own name."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app(scope, receive, send)


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch, settings: Any) -> Callable[[Any], None]:
    module = types.ModuleType("site_of_the_check")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    settings.ASGI_APPLICATION = f"{module.__name__}.application"

    def serve(application: Any) -> None:
        module.application = application  # type: ignore[attr-defined]

    return serve


def route(pattern: str, application: Any) -> Any:
    return path(pattern, application)


def routes(*names: str) -> URLRouter:
    return URLRouter([route(f"{name}/", Chat.as_asgi()) for name in names])


def texts(messages: list[CheckMessage]) -> str:
    assert all(message.hint and message.id for message in messages)
    return "; ".join(f"{message.id}: {message.msg}" for message in messages)


def test_websockets_that_every_page_may_open(serve: Callable[[Any], None]) -> None:
    tokens = TokenAuthMiddleware(routes("t"), lambda token, scope: None)
    inner = URLRouter(
        [
            route("room/", AuthMiddlewareStack(routes("a", "b"))),
            route("class/", Chat),
            route("safe/", AllowedHostsOriginValidator(routes("c"))),
            route("api/", tokens),
            route("both/", AuthMiddlewareStack(tokens)),
            route("none/", WebsocketDenier.as_asgi()),
        ]
    )
    serve(Wrapped(ProtocolTypeRouter({"websocket": Wrapped(inner)})))
    said = texts(checks.check_origins())
    assert said.startswith("channels.W013: Pages of every site may open these WebSockets")
    assert said.endswith(": 'room/a/', 'room/b/', 'class/', 'both/t/'.")


def test_many_of_them(serve: Callable[[Any], None]) -> None:
    serve(ProtocolTypeRouter({"websocket": routes(*"abcdefg")}))
    assert texts(checks.check_origins()).endswith("'e/' and 2 more.")


def test_origins_that_are_checked(serve: Callable[[Any], None]) -> None:
    serve(
        ProtocolTypeRouter(
            {"websocket": AllowedHostsOriginValidator(AuthMiddlewareStack(routes("a")))}
        )
    )
    assert checks.check_origins() == []


@pytest.mark.parametrize("application", [ProtocolTypeRouter({}), object()])
def test_no_websocket_to_be_seen(serve: Callable[[Any], None], application: Any) -> None:
    serve(application)
    assert checks.check_origins() == checks.check_tickets() == []


def test_no_application_is_for_another_check(settings: Any) -> None:
    settings.ASGI_APPLICATION = "missing.application"
    assert checks.check_origins() == []


@pytest.mark.parametrize("kind", ["locmem.LocMemCache", "dummy.DummyCache"])
def test_tickets_and_a_cache_that_is_not_shared(
    serve: Callable[[Any], None], settings: Any, kind: str
) -> None:
    settings.CACHES = {"default": {"BACKEND": f"django.core.cache.backends.{kind}"}}
    serve(TokenAuthMiddleware(Chat.as_asgi()))
    assert texts(checks.check_tickets()).startswith(
        f"channels.W014: TokenAuthMiddleware takes tickets, and the default cache is a "
        f"{kind.partition('.')[2]}:"
    )
    serve(TokenAuthMiddleware(Chat.as_asgi(), lambda token, scope: None, ticket_parameter=None))
    assert checks.check_tickets() == []


def test_tickets_and_a_cache_that_is_shared(serve: Callable[[Any], None], settings: Any) -> None:
    backend = "django.core.cache.backends.db.DatabaseCache"
    settings.CACHES = {"default": {"BACKEND": backend, "LOCATION": "cached"}}
    serve(TokenAuthMiddleware(Chat.as_asgi()))
    assert checks.check_tickets() == []


def test_limits_that_are_off(serve: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHANNELS_MAX_CONNECTIONS_PER_ADDRESS", "50")
    serve(AccessMiddleware(routes("a")))
    said = texts(checks.check_limits())
    assert "--max-connections-per-address" not in said
    assert "--websocket-max-per-address" in said
    assert said.endswith("max_websockets_per_user of AccessMiddleware, client_limits of Chat.")


def test_limits_that_are_on(serve: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch) -> None:
    for option in options_of(Limits):
        if option.name in checks.CLIENT_LIMITS:
            monkeypatch.setenv(option.variables[0], "100")

    class Bounded(Chat):
        client_limits = ClientLimits(message_rate=5)

    serve(AccessMiddleware(Bounded.as_asgi(), max_websockets_per_user=10))
    assert checks.check_limits() == []


def test_an_installed_application_is_checked_with_deploy() -> None:
    environment = {"DJANGO_SETTINGS_MODULE": "tests.settings"}
    said = run("-m", "django", "check", "--deploy", cwd=SRC.parent, env=environment)
    assert "(channels.I001) Limits for one client that are off:" in said
    said = run("-m", "django", "check", cwd=SRC.parent, env=environment)
    assert "I001" not in said
