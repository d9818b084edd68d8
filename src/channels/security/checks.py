"""System checks with --deploy: what strangers may do here.

channels.W013  a WebSocket that pages of every site may open, with the visitor's cookies
channels.W014  tickets, and a cache that cannot tell in every process which are used up
channels.I001  limits for one client that are off
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, Final

from django.core.cache import DEFAULT_CACHE_ALIAS, caches
from django.core.cache.backends.dummy import DummyCache
from django.core.cache.backends.locmem import LocMemCache
from django.core.checks import CheckMessage, Info, Tags, Warning, register  # noqa: A004

from channels import DEFAULT_CHANNEL_LAYER
from channels.consumer.client_limits import NO_LIMITS
from channels.exceptions import InvalidOption
from channels.kit.limits import Limits
from channels.kit.options import from_environment, options_of
from channels.routing import get_default_application
from channels.security.survey import WebsocketRoute, websocket_routes
from channels.security.tokens import TokenAuthMiddleware
from channels.security.websocket import OriginValidator
from channels.sessions import CookieMiddleware, SessionMiddleware
from channels.settings import has_routing

TAG: Final = "channels"
#: Options of the server that are off by default, because they depend on the site.
CLIENT_LIMITS: Final = (
    "max_connections_per_address",
    "max_websockets_per_address",
    "max_handshake_rate",
    "max_message_rate",
    "max_message_byte_rate",
)
#: Routes that one message names.
_MOST_NAMED: Final = 5


def routes() -> list[WebsocketRoute]:
    """The WebSocket routes of ASGI_APPLICATION; none if it cannot be had, which W002 tells."""
    if has_routing(DEFAULT_CHANNEL_LAYER):
        return []
    try:
        return [*websocket_routes(get_default_application())]
    except Exception:
        return []


def lacks_origin_check(route: WebsocketRoute) -> bool:
    """True if a page of every site may open this WebSocket, as far as can be seen from outside."""
    if route.consumer_class is None or route.passes(OriginValidator):
        return False
    # Who shows a token has to know it; a cookie comes along with every page.
    return route.passes(CookieMiddleware, SessionMiddleware) or not route.passes(
        TokenAuthMiddleware
    )


@register(TAG, Tags.security, deploy=True)
def check_origins(**_: Any) -> list[CheckMessage]:
    """Every WebSocket asks which page opens it, or for a token."""
    found = [repr(route.path) for route in routes() if lacks_origin_check(route)]
    if not found:
        return []
    more = f" and {len(found) - _MOST_NAMED} more" if len(found) > _MOST_NAMED else ""
    return [
        Warning(
            "Pages of every site may open these WebSockets, with the visitor's cookies: "
            f"{', '.join(found[:_MOST_NAMED])}{more}.",
            hint="Put AllowedHostsOriginValidator or OriginValidator (channels.security.websocket) "
            "around them, or, where no cookie counts, TokenAuthMiddleware.",
            id="channels.W013",
        )
    ]


@register(TAG, Tags.security, deploy=True)
def check_tickets(**_: Any) -> list[CheckMessage]:
    """Which tickets are used up is known in every process."""
    if not any(_takes_tickets(route) for route in routes()):
        return []
    cache = caches[DEFAULT_CACHE_ALIAS]
    if not isinstance(cache, LocMemCache | DummyCache):
        return []
    return [
        Warning(
            "TokenAuthMiddleware takes tickets, and the default cache is a "
            f"{type(cache).__name__}: each process could take a ticket once, or always.",
            hint="Let the processes share CACHES['default'] (Redis, memcached, the database), or "
            "give TokenAuthMiddleware ticket_parameter=None.",
            id="channels.W014",
        )
    ]


def _takes_tickets(route: WebsocketRoute) -> bool:
    return any(
        isinstance(each, TokenAuthMiddleware) and each.ticket_parameter for each in route.through
    )


@register(TAG, Tags.security, deploy=True)
def check_limits(**_: Any) -> list[CheckMessage]:
    """Which limits for one client are off."""
    found = [*_limits_that_are_off()]
    if not found:
        return []
    return [
        Info(
            f"Limits for one client that are off: {', '.join(found)}.",
            hint="They depend on the site; docs/topics/server.md says what each bounds.  A flag of "
            "`channels serve` is not seen here, its environment variable is.",
            id="channels.I001",
        )
    ]


def _limits_that_are_off() -> Iterator[str]:
    try:
        given = from_environment(Limits, os.environ)
    except InvalidOption:
        # The server itself tells of it.
        given = {}
    for option in options_of(Limits):
        if option.name in CLIENT_LIMITS and given.get(option.name) is None:
            yield option.flag
    found = routes()
    guards = [each for route in found for each in route.through]
    if not any(getattr(each, "max_websockets_per_user", None) for each in guards):
        yield "max_websockets_per_user of AccessMiddleware"
    consumers = {
        route.consumer_class.__qualname__: route.consumer_class
        for route in found
        if route.consumer_class
    }
    for name, consumer in sorted(consumers.items()):
        limits = getattr(consumer, "client_limits", None)
        if limits == NO_LIMITS:
            yield f"client_limits of {name}"
