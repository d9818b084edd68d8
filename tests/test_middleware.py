"""BaseMiddleware, and the older forms of applications that it and the routers take."""

from __future__ import annotations

import inspect
from functools import partial
from typing import Any

import pytest
from django.urls import path

from channels.auth import AuthMiddlewareStack
from channels.kit.types import Receive, Scope, Send
from channels.middleware import BaseMiddleware, is_double_callable, single_callable
from channels.routing import ChannelNameRouter, ProtocolTypeRouter, URLRouter
from channels.security.websocket import AllowedHostsOriginValidator
from channels.sessions import CookieMiddleware
from tests.applications import Recorder, call


class TwoStepMiddleware:
    """As projects wrote it for Channels 2: the scope first, receive and send later."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __call__(self, scope: Scope) -> Any:
        return self.inner(dict(scope, seen=True))


class TwoStepAsyncMiddleware:
    """The Channels 2 way to await something first: an instance per connection."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __call__(self, scope: Scope) -> Any:
        return partial(self.run, dict(scope, seen=True))

    async def run(self, scope: Scope, receive: Receive, send: Send) -> None:
        instance = self.inner(scope)
        await instance(receive, send)


class TwoStepConsumer:
    """An ASGI 2 application: a class whose instance is one connection."""

    scopes: list[Scope] = []  # noqa: RUF012

    def __init__(self, scope: Scope) -> None:
        self.scope = scope

    async def __call__(self, receive: Receive, send: Send) -> None:
        self.scopes.append(self.scope)


class Consumer:
    """A class in the shape of a consumer's."""

    recorder = Recorder()

    @classmethod
    def as_asgi(cls) -> Recorder:
        return cls.recorder


async def test_the_inner_application_gets_a_copy_of_the_scope() -> None:
    recorder = Recorder()
    scope = {"type": "websocket"}
    middleware = BaseMiddleware(recorder)
    assert middleware.inner is recorder
    await call(middleware, scope)
    recorder.scope["more"] = 1
    assert scope == {"type": "websocket"}


async def test_a_subclass_changes_the_scope_and_calls_on() -> None:
    class Named(BaseMiddleware):
        async def __call__(self, scope: Scope, receive: Any = None, send: Any = None) -> Any:
            scope["name"] = "Ada"
            return await super().__call__(scope, receive, send)

    recorder = Recorder()
    await call(Named(recorder), {"type": "websocket"})
    assert recorder.scope["name"] == "Ada"


async def test_hooks_run_once_in_order() -> None:
    order: list[str] = []

    class Hooked(BaseMiddleware):
        def populate_scope(self, scope: Scope) -> None:
            scope["populated"] = True
            order.append("populate")

        async def resolve_scope(self, scope: Scope) -> None:
            assert scope["populated"]
            order.append("resolve")

    class Calling(Hooked):
        async def __call__(self, scope: Scope, receive: Any = None, send: Any = None) -> Any:
            self.populate_scope(scope)
            await self.resolve_scope(scope)
            return await super().__call__(scope, receive, send)

    recorder = Recorder()
    outside: Scope = {"type": "websocket"}
    await call(Hooked(recorder), outside)
    assert recorder.scope["populated"]
    assert "populated" not in outside
    assert order == ["populate", "resolve"]
    await call(Calling(recorder), outside)
    assert order == ["populate", "resolve"] * 2


async def test_a_two_step_subclass() -> None:
    class Older(BaseMiddleware):
        def __call__(self, scope: Scope) -> Any:  # type: ignore[override]
            return super().__call__(dict(scope, seen=True))

    class Direct(BaseMiddleware):
        def __call__(self, scope: Scope) -> Any:  # type: ignore[override]
            return self.inner(dict(scope, also=True))

    recorder = Recorder()
    await call(single_callable(Older(Direct(recorder))), {"type": "websocket"})
    assert recorder.scope == {"type": "websocket", "seen": True, "also": True}


@pytest.mark.parametrize("outer", [TwoStepMiddleware, TwoStepAsyncMiddleware])
@pytest.mark.parametrize("inner", [TwoStepMiddleware, TwoStepAsyncMiddleware, BaseMiddleware])
async def test_two_step_middleware_around_anything(outer: Any, inner: Any) -> None:
    recorder = Recorder()
    await call(single_callable(outer(inner(recorder))), {"type": "websocket"})
    assert recorder.scope["seen"] is True


async def test_two_step_middleware_inside_ours() -> None:
    recorder = Recorder()
    await call(BaseMiddleware(TwoStepMiddleware(recorder)), {"type": "websocket"})
    assert recorder.scope["seen"] is True


async def test_two_step_application() -> None:
    TwoStepConsumer.scopes.clear()
    await call(single_callable(TwoStepConsumer), {"type": "websocket"})
    await call(BaseMiddleware(TwoStepMiddleware(TwoStepConsumer)), {"type": "websocket"})
    assert TwoStepConsumer.scopes == [{"type": "websocket"}, {"type": "websocket", "seen": True}]


async def test_a_function_that_calls_its_inner_in_two_steps() -> None:
    recorder = Recorder()
    inner = BaseMiddleware(recorder)

    def application(scope: Scope) -> Any:
        return inner(dict(scope, seen=True))

    await call(single_callable(application), {"type": "websocket"})
    assert recorder.scope["seen"] is True


def test_a_consumer_class_is_made_an_application() -> None:
    application: Any = single_callable(Consumer)
    assert application is Consumer.recorder


async def three(scope: Scope, receive: Receive, send: Send) -> None:
    """One step."""


class Endpoint:
    """One step: a class that is awaited, as Starlette's endpoints are."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None: ...


@pytest.mark.parametrize(
    ("application", "double"),
    [
        (three, False),
        (partial(three), False),
        (lambda *args: None, False),
        (lambda scope: None, True),
        (Endpoint, False),
        (BaseMiddleware(three), False),
        (TwoStepMiddleware(three), True),
        (TwoStepConsumer, True),
        (len, True),
        (dict.update, False),
    ],
)
def test_which_form(application: Any, double: bool) -> None:
    assert is_double_callable(application) is double
    if not double:
        assert single_callable(application) is application


def test_hints_win_over_the_signature() -> None:
    def hinted(*args: Any) -> None: ...

    hinted._asgi_double_callable = True  # type: ignore[attr-defined]
    assert is_double_callable(hinted)
    hinted._asgi_single_callable = True  # type: ignore[attr-defined]
    assert not is_double_callable(hinted)


def test_servers_recognise_middleware_as_asgi_3() -> None:
    assert inspect.iscoroutinefunction(BaseMiddleware(three).__call__)


async def test_none_in_place_of_receive_and_send_is_a_call() -> None:
    """Unit tests of middleware call it so, and look at what their inner application gave."""

    async def inner(scope: dict[str, Any], receive: Any, send: Any) -> dict[str, Any]:
        return {**scope, "given": (receive, send)}

    class Tagged(BaseMiddleware):
        async def __call__(self, scope: Any, receive: Any = None, send: Any = None) -> Any:
            return await super().__call__({**scope, "tag": "set"}, receive, send)

    class Resolving(BaseMiddleware):
        async def resolve_scope(self, scope: dict[str, Any]) -> None:
            scope["tag"] = "set"

    for middleware in (Tagged(inner), Resolving(inner)):
        result: Any = await middleware({"type": "websocket"}, None, None)  # type: ignore[arg-type]
        assert result == {"type": "websocket", "tag": "set", "given": (None, None)}
    scope: dict[str, Any] = {"type": "websocket", "headers": [], "path": "/"}
    for stack in (
        AllowedHostsOriginValidator(AuthMiddlewareStack(Tagged(inner))),
        URLRouter([path("", AuthMiddlewareStack(Tagged(inner)))]),
        ProtocolTypeRouter({"websocket": single_callable(Tagged(inner))}),
    ):
        scope["headers"] = [(b"origin", b"http://testserver")]
        result = await stack(scope, None, None)  # type: ignore[arg-type]
        assert (result["tag"], result["given"]) == ("set", (None, None))


async def test_what_the_inner_application_returns_comes_back_through_all() -> None:
    async def answer(scope: Any, receive: Any, send: Any) -> str:
        return "returned"

    inner: Any = answer
    scope: dict[str, Any] = {"type": "websocket", "path": "/x/", "headers": []}
    routed = ProtocolTypeRouter({"websocket": URLRouter([path("x/", inner)])})
    for application in (
        routed,
        CookieMiddleware(routed),
        AllowedHostsOriginValidator(routed),
        single_callable(lambda scope: lambda receive, send: inner(scope, receive, send)),
    ):
        scope["headers"] = [(b"origin", b"http://testserver")]
        assert await application(scope, receive, send) == "returned"
    by_name = ChannelNameRouter({"jobs": inner})
    assert await by_name({"type": "channel", "channel": "jobs"}, receive, send) == "returned"


async def receive() -> dict[str, Any]:
    return {"type": "websocket.disconnect"}


async def send(message: dict[str, Any]) -> None: ...
