"""Routing: by the connection's protocol, by its path, by a worker's channel.

Routers are applications and nest freely.  Two rules hold the nesting together:

* a router below another finds the unmatched rest of the path in scope["path_remaining"], and
  answers a path that it does not know with Resolver404, so that the router above tries its next
  route;
* the outermost `URLRouter` raises NoRouteFound instead, and `ProtocolTypeRouter` turns that into
  HTTP 404, or into the refusal of a WebSocket.
"""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from typing import Any, Final

from django.apps import apps
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.exceptions import ImproperlyConfigured
from django.core.handlers.asgi import ASGIHandler
from django.urls.exceptions import Resolver404
from django.urls.resolvers import RegexPattern, RoutePattern, URLResolver

from channels.db import are_left_open, close_left_open
from channels.exceptions import NoRouteFound, mark_logged
from channels.kit.old_names import old_names
from channels.kit.printable import printable
from channels.kit.types import Application, Receive, Scope, Send
from channels.middleware import INNER, single_callable

logger = logging.getLogger("django.channels")

#: A route that begins with a slash, as a path or as an expression.
_SLASH: Final = re.compile(r"\^?/")
#: Routes that one log line names.
_MOST_NAMED: Final = 10
#: How many middlewares may stand between a route and the router that they wrap.
_MOST_LAYERS: Final = 64


def get_default_application() -> Any:
    """The application that the setting ASGI_APPLICATION names.

    Raises:
        ImproperlyConfigured: If the setting is missing, or its module or name cannot be had.
    """
    named = getattr(settings, "ASGI_APPLICATION", None)
    path, dot, name = named.rpartition(".") if isinstance(named, str) else ("", "", "")
    if not dot:
        raise ImproperlyConfigured("Cannot find ASGI_APPLICATION setting.")
    try:
        module = import_module(path)
    except ImportError as error:
        raise ImproperlyConfigured(
            f"Cannot import ASGI_APPLICATION module {path!r}: {error}"
        ) from error
    try:
        return getattr(module, name)
    except AttributeError:
        raise ImproperlyConfigured(
            f"Cannot find {name!r} in ASGI_APPLICATION module {path}"
        ) from None


class ProtocolTypeRouter:
    """Takes an application by scope["type"].

    Without an entry "http" HTTP goes to Django's views; without an entry "lifespan" the server's
    startup and shutdown are acknowledged.  A path without a route, below here, ends in HTTP 404 or
    a refused WebSocket (403) and one line in the log.

    Raises:
        ImproperlyConfigured: For an instance of a consumer, or `as_asgi` without its call.
        ValueError: When called with a type that has no application; one line in the log says so.
    """

    def __init__(self, application_mapping: Mapping[str, Any]) -> None:
        for kind, application in application_mapping.items():
            _require_many(application, f"The entry {kind!r}")
        self.application_mapping = application_mapping
        #: type -> (the application as it was given, the same as a single callable).
        self._adapted: dict[str, tuple[Any, Application]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:
        application = self._application(scope["type"])
        # Middleware that uses the database would fail before any consumer could see to it.
        if are_left_open():
            await close_left_open()
        try:
            return await application(scope, receive, send)
        except NoRouteFound as error:
            # With a cause the application was entered before it gave up, and may have answered
            # already; only the server can know.
            if error.__cause__ is not None or scope["type"] not in _REFUSALS:
                raise
            logger.warning("%s (%s)%s", error, scope["type"], error.hint)
            for message in _REFUSALS[scope["type"]]:
                await send(dict(message))
            return None

    def _application(self, kind: str) -> Application:
        given = self.application_mapping.get(kind)
        if given is None:
            return self._default_application(kind)
        known = self._adapted.get(kind)
        if known is None or known[0] is not given:
            known = self._adapted[kind] = (given, single_callable(given))
        return known[1]

    def _default_application(self, kind: str) -> Application:
        if kind == "http":
            return self._django
        if kind == "lifespan":
            return _acknowledge_lifespan
        found = ", ".join(map(repr, self.application_mapping)) or "no entry"
        error = ValueError(
            f"No application configured for scope type {kind!r}: ProtocolTypeRouter has {found}; "
            f"give it an entry {kind!r}."
        )
        # That says all: a traceback would lead through code that nobody has written here.
        logger.error("%s", error)
        mark_logged(error)
        raise error

    @cached_property
    def _django(self) -> Application:
        # On the first request, because settings and models may not be ready at import.  Once they
        # are, another `django.setup()` would only undo what others did to the loggers since.
        handler: Any = ASGIHandler() if apps.ready else get_asgi_application()
        application: Application = handler
        return application


async def _acknowledge_lifespan(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001
    while True:
        event = (await receive())["type"]
        await send({"type": f"{event}.complete"})
        if event == "lifespan.shutdown":
            return


#: Scope type -> how a connection without a route is refused.
_REFUSALS: Final[Mapping[str, Sequence[Mapping[str, Any]]]] = {
    "http": (
        {
            "type": "http.response.start",
            "status": 404,
            "headers": [
                (b"Content-Type", b"text/plain; charset=utf-8"),
                (b"Content-Length", b"9"),
            ],
        },
        {"type": "http.response.body", "body": b"Not Found"},
    ),
    "websocket": ({"type": "websocket.close"},),
}


@dataclass(frozen=True, slots=True)
class _Route:
    """A URL pattern made ready: what it matches, and the application in its one shape."""

    pattern: RoutePattern | RegexPattern
    application: Application
    default_args: Mapping[str, Any]


class URLRouter:
    """Takes an application by the connection's path, with Django's `path()` and `re_path()`.

    The application's scope is a copy with `path_remaining` and `url_route`, whose "args" and
    "kwargs" hold what this router and those above it captured.

    Raises:
        ImproperlyConfigured: If a route is an `include()`, leads to an instance of a consumer, or
            to `as_asgi` without its call.
        ValueError: If a route leads to another router by an unknown kind of pattern; when called
            without a path; as NoRouteFound, when called as the outermost router with a path that
            no route matches.
    """

    #: Tells a router above that a prefix is enough for its pattern to match.  A middleware around
    #: a router is looked through by its attribute `inner`; one without it sets this attribute.
    _path_routing = True

    def __init__(self, routes: Sequence[Any]) -> None:
        self.routes = routes
        self._routes = [_make_ready(route) for route in routes]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:
        path = _path_to_match(scope)
        refusal: Resolver404 | None = None
        for route in self._routes:
            inner_scope = _inner_scope(route, path, scope)
            if inner_scope is None:
                continue
            try:
                return await route.application(inner_scope, receive, send)
            except Resolver404 as error:
                if not isinstance(error, _NoRouteBelow) or error.__cause__ is not None:
                    refusal = error
        if "path_remaining" in scope:
            raise _NoRouteBelow({"path": path}) from refusal
        raise NoRouteFound(
            f"No route found for path '{printable(path)}'.", hint=self._hint()
        ) from refusal

    def _hint(self) -> str:
        """What may be wrong with the routes, for the log."""
        if leading := [route for route in self._routes if _SLASH.match(str(route.pattern))]:
            return (
                f" The route '{leading[0].pattern}' begins with a slash, which no path has here: "
                "write it without."
            )
        if not settings.DEBUG:
            return ""
        tried = ", ".join(f"'{route.pattern}'" for route in self._routes[:_MOST_NAMED])
        more = len(self._routes) - _MOST_NAMED
        return f" Tried: {tried}{f' and {more} more' if more > 0 else ''}."


class _NoRouteBelow(Resolver404):
    """A nested router knows no route; its cause, if any, came from inside an application."""


def _make_ready(route: Any) -> _Route:
    if isinstance(route, URLResolver):
        raise ImproperlyConfigured(
            f"{route}: include() is not supported in URLRouter. "
            "Use nested URLRouter instances instead."
        )
    pattern = route.pattern
    if _is_router(route.callback):
        if not isinstance(pattern, RoutePattern | RegexPattern):
            raise ValueError(f"Unsupported pattern type: {type(pattern)}")
        source = vars(pattern)["_route" if isinstance(pattern, RoutePattern) else "_regex"]
        pattern = type(pattern)(source, pattern.name, is_endpoint=False)
    _require_many(route.callback, f"The route '{route.pattern}'")
    return _Route(pattern, single_callable(route.callback), route.default_args)


def _require_many(application: Any, place: str) -> None:
    """Refuse what looks like an application and does not serve connection after connection.

    Tests hand an instance of a consumer to a middleware for one connection; in a route it would
    answer one client over another's connection.

    Raises:
        ImproperlyConfigured: For an instance of a consumer, and for `as_asgi` without its call.
    """
    for _ in range(_MOST_LAYERS):
        if inspect.ismethod(application) and application.__name__ == "as_asgi":
            name = getattr(application.__self__, "__qualname__", "It")
            raise ImproperlyConfigured(
                f"{place}: {name}.as_asgi is not called: write {name}.as_asgi()."
            )
        name = type(application).__qualname__
        if not inspect.isclass(application) and hasattr(type(application), "as_asgi"):
            raise ImproperlyConfigured(
                f"{place}: {name}(...) is one instance of a consumer, which all connections would "
                f"share: write {name}.as_asgi()."
            )
        if (application := getattr(application, INNER, None)) is None:
            return


def _is_router(callback: Any) -> bool:
    """True if the callback, or what it wraps, goes on routing by path."""
    for _ in range(_MOST_LAYERS):
        if (said := getattr(callback, "_path_routing", None)) is not None:
            return said is True
        if (callback := getattr(callback, INNER, None)) is None:
            return False
    return False


def _inner_scope(route: _Route, path: str, scope: Scope) -> Scope | None:
    """The scope for a route's application; None if it does not match."""
    match = route.pattern.match(path)
    if match is None:
        return None
    remaining, args, kwargs = match
    outer = scope.get("url_route", {})
    url_route = {
        "args": (*outer.get("args", ()), *args),
        "kwargs": {**outer.get("kwargs", {}), **kwargs, **route.default_args},
    }
    return dict(scope, path_remaining=remaining, url_route=url_route)


def _path_to_match(scope: Scope) -> str:
    path = scope.get("path_remaining", scope.get("path"))
    if path is None:
        raise ValueError("No 'path' key in connection scope, cannot route URLs")
    if "path_remaining" not in scope and (root := scope.get("root_path", "").rstrip("/")):
        if path != root and not path.startswith(root + "/"):
            raise NoRouteFound(
                f"No route found for path '{printable(path)}': it is not below '{printable(root)}'."
            )
        path = path[len(root) :]
    stripped: str = path.lstrip("/")
    return stripped


class ChannelNameRouter:
    """Takes an application by scope["channel"]: what `runworker` serves.

    Raises:
        ImproperlyConfigured: For an instance of a consumer, or `as_asgi` without its call.
        ValueError: When called without a channel in the scope, or with one that is not mapped.
    """

    def __init__(self, application_mapping: Mapping[str, Any]) -> None:
        for name, application in application_mapping.items():
            _require_many(application, f"The channel {name!r}")
        self.application_mapping = application_mapping

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:
        if "channel" not in scope:
            raise ValueError(
                f"ChannelNameRouter needs scope['channel'], which a scope of type "
                f"{scope.get('type')!r} has not; use it for the type 'channel' only."
            )
        name = scope["channel"]
        if name not in self.application_mapping:
            raise ValueError(f"No application configured for channel name {name!r}")
        return await single_callable(self.application_mapping[name])(scope, receive, send)


#: Of Channels 1.
__getattr__ = old_names(
    __name__,
    {
        "Include": "channels.legacy.routing",
        "Route": "channels.legacy.routing",
        "RouteClass": "channels.legacy.routing",
        "Router": "channels.legacy.routing",
        "connect_consumer": "channels.legacy.routing",
        "include": "channels.legacy.routing",
        "null_consumer": "channels.legacy.routing",
        "route": "channels.legacy.routing",
        "route_class": "channels.legacy.routing",
    },
)
