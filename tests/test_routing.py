"""Routers: by protocol, by path, by channel; what is passed on, and what no route becomes."""

from __future__ import annotations

import logging
import sys
import types
from collections.abc import Callable
from typing import Any

import pytest
from asgiref import testing
from django import urls
from django.core.exceptions import ImproperlyConfigured
from django.urls.exceptions import Resolver404
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from channels.consumer import AsyncConsumer
from channels.exceptions import NoRouteFound
from channels.kit.types import Receive, Scope, Send
from channels.middleware import BaseMiddleware
from channels.routing import (
    ChannelNameRouter,
    ProtocolTypeRouter,
    URLRouter,
    get_default_application,
)
from channels.testing import WebsocketCommunicator
from tests.applications import Recorder, call, serving
from tests.test_middleware import Consumer, TwoStepConsumer, TwoStepMiddleware

#: Untyped, because their stubs know of views only.
path: Any = urls.path
re_path: Any = urls.re_path
include: Any = urls.include
ApplicationCommunicator: Any = testing.ApplicationCommunicator


def at(url: str, **more: Any) -> Scope:
    return {"type": "websocket", "path": url, **more}


# ProtocolTypeRouter ----------------------------------------------------------


async def test_protocols_are_told_apart() -> None:
    websocket, http = Recorder(), Recorder()
    router = ProtocolTypeRouter({"websocket": websocket, "http": http})
    await call(router, {"type": "websocket"})
    await call(router, {"type": "http"})
    assert (websocket.scope["type"], http.scope["type"]) == ("websocket", "http")


async def test_an_unknown_protocol() -> None:
    router = ProtocolTypeRouter({"websocket": Recorder()})
    with pytest.raises(ValueError, match="No application configured for scope type 'telnet'"):
        await call(router, {"type": "telnet"})


async def test_a_websocket_without_an_entry_is_one_line_with_what_to_do(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with serving(ProtocolTypeRouter({"http": Recorder()})) as place:
        with pytest.raises(InvalidStatus, match="500"):
            async with connect(f"ws://{place}/chat/"):
                pass
    (line,) = [each for each in caplog.records if each.levelname == "ERROR"]
    assert line.getMessage() == (
        "No application configured for scope type 'websocket': ProtocolTypeRouter has 'http'; "
        "give it an entry 'websocket'."
    )
    assert line.exc_info is None


async def test_the_mapping_may_change_later() -> None:
    first, second = Recorder(), Recorder()
    router = ProtocolTypeRouter({"websocket": first})
    await call(router, {"type": "websocket"})
    router.application_mapping["websocket"] = second  # type: ignore[index]
    await call(router, {"type": "websocket"})
    assert (len(first.scopes), len(second.scopes)) == (1, 1)


async def test_consumer_class_and_two_step_application_as_entries() -> None:
    TwoStepConsumer.scopes.clear()
    Consumer.recorder.scopes.clear()
    router = ProtocolTypeRouter({"websocket": Consumer, "http": TwoStepConsumer})
    await call(router, {"type": "websocket"})
    await call(router, {"type": "http"})
    assert Consumer.recorder.scopes == [{"type": "websocket"}]
    assert TwoStepConsumer.scopes == [{"type": "http"}]


async def test_http_without_an_entry_goes_to_django() -> None:
    scope = {
        "type": "http",
        "method": "GET",
        "path": "/nothing-here/",
        "query_string": b"",
        "headers": [(b"host", b"testserver")],
        "http_version": "1.1",
        "scheme": "http",
    }
    communicator = ApplicationCommunicator(ProtocolTypeRouter({}), scope)
    await communicator.send_input({"type": "http.request"})
    assert (await communicator.receive_output())["status"] == 404
    body = (await communicator.receive_output())["body"]
    assert b"The requested resource was not found" in body
    await communicator.wait()


async def test_lifespan_without_an_entry_is_acknowledged() -> None:
    sent = await call(
        ProtocolTypeRouter({}),
        {"type": "lifespan"},
        {"type": "lifespan.startup"},
        {"type": "lifespan.shutdown"},
    )
    assert sent == [{"type": "lifespan.startup.complete"}, {"type": "lifespan.shutdown.complete"}]


async def test_no_route_refuses_the_websocket_in_one_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    router = ProtocolTypeRouter({"websocket": BaseMiddleware(URLRouter([]))})
    with caplog.at_level(logging.WARNING, logger="django.channels"):
        sent = await call(router, at("/no\nwhere/"))
    assert sent == [{"type": "websocket.close"}]
    (record,) = caplog.records
    assert record.getMessage() == "No route found for path 'no\\nwhere/'. (websocket)"
    assert record.exc_info is None


async def test_no_route_is_http_404() -> None:
    router = ProtocolTypeRouter({"http": URLRouter([])})
    start, body = await call(router, {"type": "http", "path": "/nowhere/"})
    assert start["status"] == 404
    assert (b"Content-Length", str(len(body["body"])).encode()) in start["headers"]


async def test_no_route_of_another_type_is_raised() -> None:
    router = ProtocolTypeRouter({"custom": URLRouter([])})
    with pytest.raises(NoRouteFound):
        await call(router, {"type": "custom", "path": "/nowhere/"})


# URLRouter -------------------------------------------------------------------


async def test_arguments() -> None:
    positional, named = Recorder(), Recorder()
    router = URLRouter(
        [
            re_path(r"^page/(\d+)/(\w+)/$", positional),
            path("book/<int:number>/<slug:name>/", named),
        ]
    )
    await call(router, at("/page/7/end/"))
    assert positional.scope["url_route"] == {"args": ("7", "end"), "kwargs": {}}
    await call(router, at("/book/7/alice-in/"))
    assert named.scope["url_route"] == {"args": (), "kwargs": {"number": 7, "name": "alice-in"}}


async def test_default_arguments_win_over_captured_ones() -> None:
    recorder = Recorder()
    router = URLRouter([path("<name>/", recorder, {"name": "fixed", "extra": 1})])
    await call(router, at("/given/"))
    assert recorder.scope["url_route"]["kwargs"] == {"name": "fixed", "extra": 1}


@pytest.mark.parametrize("maker", ["path", "re_path"])
async def test_nesting(maker: str) -> None:
    recorder, other = Recorder(), Recorder()
    if maker == "path":
        inner = URLRouter([path("book/<book>/", recorder), path("test/", other)])
        outer = URLRouter([path("universe/<int:planet>/", inner, {"default": 42})])
        kwargs: dict[str, Any] = {"planet": 1, "book": "dune", "default": 42}
    else:
        inner = URLRouter([re_path(r"^book/(?P<book>\w+)/$", recorder), re_path(r"^test/$", other)])
        outer = URLRouter([re_path(r"^universe/(?P<planet>\d+)/", inner, {"default": 42})])
        kwargs = {"planet": "1", "book": "dune", "default": 42}
    await call(outer, at("/universe/1/book/dune/"))
    assert recorder.scope["url_route"] == {"args": (), "kwargs": kwargs}
    assert recorder.scope["path_remaining"] == ""
    assert recorder.scope["path"] == "/universe/1/book/dune/"
    await call(outer, at("/universe/1/test/"))
    assert other.scope["url_route"]["kwargs"] == {"planet": kwargs["planet"], "default": 42}


async def test_of_two_arguments_of_one_name_the_inner_wins() -> None:
    recorder = Recorder()
    inner = URLRouter([path("<name>/", recorder, {"extra": "inner"})])
    await call(URLRouter([path("<name>/", inner, {"extra": "outer"})]), at("/a/b/"))
    assert recorder.scope["url_route"]["kwargs"] == {"name": "b", "extra": "inner"}


async def test_positional_arguments_add_up() -> None:
    recorder = Recorder()
    outer = URLRouter([re_path(r"^a/(\d)/", URLRouter([re_path(r"^b/(\d)/$", recorder)]))])
    await call(outer, at("/a/1/b/2/"))
    assert recorder.scope["url_route"]["args"] == ("1", "2")


async def test_the_outer_router_goes_on_where_the_inner_knows_no_route() -> None:
    first, second, third = Recorder(), Recorder(), Recorder()
    outer = URLRouter(
        [
            path("universe/", URLRouter([path("no-match/", first)])),
            path("universe/", URLRouter([path("match/", second)])),
            re_path(r"", third),
        ]
    )
    await call(outer, at("/universe/match/"))
    await call(outer, at("/universe/other/"))
    assert (len(first.scopes), len(second.scopes), len(third.scopes)) == (0, 1, 1)


async def test_the_given_scope_is_left_alone() -> None:
    recorder = Recorder()
    scope = at("/a/")
    await call(URLRouter([path("a/", recorder)]), scope)
    assert scope == at("/a/")


async def test_the_given_routes_are_left_alone() -> None:
    route = path("a/", URLRouter([path("b/", Recorder())]))
    before = route.pattern
    URLRouter([route])
    assert route.pattern is before


@pytest.mark.parametrize("url", ["/a/", "a/", "//a/", "///a/"])
async def test_leading_slashes_do_not_matter(url: str) -> None:
    recorder = Recorder()
    await call(URLRouter([path("a/", recorder)]), at(url))
    assert recorder.scope["path_remaining"] == ""


@pytest.mark.parametrize("url", ["/b/", "/a", "/a/b", "/", "", "/a/\n"])
async def test_no_route_found(url: str) -> None:
    router = URLRouter([path("a/", Recorder())])
    expected = f"No route found for path {url.lstrip('/')!r}."
    with pytest.raises(ValueError, match="No route found") as caught:
        await call(router, at(url))
    assert str(caught.value) == expected
    assert isinstance(caught.value, NoRouteFound)


async def test_no_path_in_scope() -> None:
    with pytest.raises(ValueError, match="No 'path' key in connection scope, cannot route URLs"):
        await call(URLRouter([]), {"type": "websocket"})


async def test_a_nested_router_refuses_in_djangos_way() -> None:
    with pytest.raises(Resolver404):
        await call(URLRouter([]), at("/a/", path_remaining="a/"))


async def test_resolver404_of_an_application_tries_the_next_route() -> None:
    async def refusing(scope: Scope, receive: Receive, send: Send) -> None:
        raise Resolver404({"path": "elsewhere"})

    recorder = Recorder()
    await call(URLRouter([path("a/", refusing), path("a/", recorder)]), at("/a/"))
    assert len(recorder.scopes) == 1

    # Nothing is answered in its place: it may have answered itself already.
    nested = URLRouter([path("", URLRouter([path("a/", refusing)]))])
    router = ProtocolTypeRouter({"websocket": nested})
    with pytest.raises(NoRouteFound) as caught:
        await call(router, at("/a/"))
    assert isinstance(caught.value.__cause__, Resolver404)


async def test_an_error_of_an_application_is_its_own() -> None:
    async def failing(scope: Scope, receive: Receive, send: Send) -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await call(URLRouter([path("a/", failing), path("a/", Recorder())]), at("/a/"))


@pytest.mark.parametrize("root", ["/app", "/app/"])
async def test_root_path_is_taken_off(root: str) -> None:
    recorder = Recorder()
    inner = URLRouter([path("b/", recorder)])
    await call(URLRouter([path("a/", inner)]), at("/app/a/b/", root_path=root))
    assert recorder.scope["path"] == "/app/a/b/"


@pytest.mark.parametrize("url", ["/application/a/", "/a/", "/ap"])
async def test_a_path_outside_of_the_root_path(url: str) -> None:
    router = URLRouter([re_path("", Recorder())])
    with pytest.raises(ValueError, match="'/app'"):
        await call(router, at(url, root_path="/app"))


def test_include_is_refused() -> None:
    route = path("a/", include([path("b/", Recorder())]))
    with pytest.raises(ImproperlyConfigured) as caught:
        URLRouter([route])
    assert str(caught.value) == (
        f"{route}: include() is not supported in URLRouter. Use nested URLRouter instances instead."
    )


def test_an_unknown_kind_of_pattern_before_a_router_is_refused() -> None:
    route = types.SimpleNamespace(pattern=object(), callback=URLRouter([]), default_args={})
    with pytest.raises(ValueError, match="Unsupported pattern type"):
        URLRouter([route])


async def test_a_router_behind_class_middleware() -> None:
    recorder = Recorder()
    wrapped = BaseMiddleware(BaseMiddleware(URLRouter([path("b/", recorder)])))
    await call(URLRouter([path("a/", wrapped)]), at("/a/b/"))
    assert recorder.scope["path_remaining"] == ""


async def test_a_router_behind_function_middleware_shows_itself_by_attribute() -> None:
    recorder = Recorder()
    inner = URLRouter([path("b/", recorder)])

    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        await inner(scope, receive, send)

    with pytest.raises(NoRouteFound):
        await call(URLRouter([path("a/", wrapped)]), at("/a/b/"))
    wrapped._path_routing = True  # type: ignore[attr-defined]
    await call(URLRouter([path("a/", wrapped)]), at("/a/b/"))
    assert len(recorder.scopes) == 1


async def test_a_route_ends_where_the_attribute_says_so() -> None:
    wrapped = BaseMiddleware(URLRouter([path("b/", Recorder())]))
    wrapped._path_routing = False  # type: ignore[attr-defined]
    with pytest.raises(NoRouteFound):
        await call(URLRouter([path("a/", wrapped)]), at("/a/b/"))


async def test_a_router_behind_two_step_middleware() -> None:
    recorder = Recorder()
    wrapped = TwoStepMiddleware(URLRouter([path("b/", recorder)]))
    await call(URLRouter([path("a/", wrapped)]), at("/a/b/"))
    assert recorder.scope["seen"] is True


async def test_consumer_class_and_two_step_application_as_routes() -> None:
    Consumer.recorder.scopes.clear()
    TwoStepConsumer.scopes.clear()
    router = URLRouter([path("a/", Consumer), path("b/", TwoStepConsumer)])
    await call(router, at("/a/"))
    await call(router, at("/b/"))
    assert Consumer.recorder.scope["path"] == "/a/"
    assert TwoStepConsumer.scopes[0]["path"] == "/b/"


# ChannelNameRouter -----------------------------------------------------------


async def test_channels_are_told_apart() -> None:
    Consumer.recorder.scopes.clear()
    thumbnails = Recorder()
    router = ChannelNameRouter({"thumbnails": thumbnails, "mail": Consumer})
    await call(router, {"type": "channel", "channel": "thumbnails"})
    await call(router, {"type": "channel", "channel": "mail"})
    assert thumbnails.scope["channel"] == "thumbnails"
    assert Consumer.recorder.scope["channel"] == "mail"


async def test_unknown_and_missing_channels() -> None:
    router = ChannelNameRouter({"thumbnails": Recorder()})
    with pytest.raises(ValueError, match="No application configured for channel name 'mail'"):
        await call(router, {"type": "channel", "channel": "mail"})
    with pytest.raises(ValueError, match=r"needs scope\['channel'\]"):
        await call(router, {"type": "websocket"})


# get_default_application -----------------------------------------------------


def test_the_default_application(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("site_of_the_test")
    module.application = Recorder()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    settings.ASGI_APPLICATION = "site_of_the_test.application"
    assert get_default_application() is module.application

    settings.ASGI_APPLICATION = "site_of_the_test.missing"
    with pytest.raises(
        ImproperlyConfigured,
        match="Cannot find 'missing' in ASGI_APPLICATION module site_of_the_test",
    ):
        get_default_application()


@pytest.mark.parametrize("value", [None, "", "application", 7])
def test_no_default_application(settings: Any, value: Any) -> None:
    settings.ASGI_APPLICATION = value
    with pytest.raises(ImproperlyConfigured, match=r"Cannot find ASGI_APPLICATION setting\."):
        get_default_application()


def test_a_default_application_that_cannot_be_imported_keeps_its_cause(settings: Any) -> None:
    settings.ASGI_APPLICATION = "no.such.site.application"
    with pytest.raises(
        ImproperlyConfigured, match=r"Cannot import ASGI_APPLICATION module 'no\.such\.site'"
    ) as caught:
        get_default_application()
    assert isinstance(caught.value.__cause__, ImportError)


class Alone(AsyncConsumer):
    pass


@pytest.mark.parametrize(
    "route",
    [
        lambda application: URLRouter([path("chat/", application)]),
        lambda application: URLRouter([path("chat/", BaseMiddleware(application))]),
        lambda application: ProtocolTypeRouter({"websocket": application}),
        lambda application: ProtocolTypeRouter({"websocket": BaseMiddleware(application)}),
        lambda application: ChannelNameRouter({"jobs": application}),
    ],
    ids=["path", "path-middleware", "type", "type-middleware", "channel"],
)
@pytest.mark.parametrize(
    ("application", "said"),
    [
        (
            Alone,
            r"(chat/|websocket|jobs)': Alone\(\.\.\.\) is one instance.*write Alone\.as_asgi\(\)",
        ),
        (
            lambda: Alone.as_asgi,
            r"(chat/|websocket|jobs)': Alone\.as_asgi is not called: write Alone\.as_asgi\(\)",
        ),
    ],
    ids=["instance", "uncalled"],
)
def test_what_serves_one_connection_only_is_refused(
    route: Callable[[Any], Any], application: Callable[[], Any], said: str
) -> None:
    with pytest.raises(ImproperlyConfigured, match=said):
        route(application())


@pytest.mark.parametrize(
    ("routes", "debug", "said"),
    [
        (
            [path("a/", Alone.as_asgi()), path("/chat/", Alone.as_asgi())],
            False,
            "No route found for path 'chat/'. (websocket) The route '/chat/' begins with a slash, "
            "which no path has here: write it without.",
        ),
        (
            [re_path(r"^/ws/", Alone.as_asgi())],
            False,
            "No route found for path 'chat/'. (websocket) The route '^/ws/' begins with a slash, "
            "which no path has here: write it without.",
        ),
        (
            [path("a/", Alone.as_asgi()), path("b/", Alone.as_asgi())],
            True,
            "No route found for path 'chat/'. (websocket) Tried: 'a/', 'b/'.",
        ),
        (
            [path(f"{number}/", Alone.as_asgi()) for number in range(12)],
            True,
            "No route found for path 'chat/'. (websocket) Tried: '0/', '1/', '2/', '3/', '4/', "
            "'5/', '6/', '7/', '8/', '9/' and 2 more.",
        ),
        ([path("a/", Alone.as_asgi())], False, "No route found for path 'chat/'. (websocket)"),
    ],
)
async def test_a_path_without_a_route_is_told_with_what_may_be_wrong(
    routes: list[Any],
    debug: bool,
    said: str,
    caplog: pytest.LogCaptureFixture,
    settings: Any,
) -> None:
    settings.DEBUG = debug
    communicator = WebsocketCommunicator(
        ProtocolTypeRouter({"websocket": URLRouter(routes)}), "/chat/"
    )
    assert (await communicator.connect())[0] is False
    assert caplog.messages == [said]
