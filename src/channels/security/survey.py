"""What stands between the server and each WebSocket consumer of an application.

Middleware is looked through by the attributes under which it keeps what it wraps: `inner` here and
by convention, `application` and `app` elsewhere.  What hides it otherwise ends the way.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from channels.middleware import INNER
from channels.routing import ProtocolTypeRouter, URLRouter

_WRAPPED: Final = (INNER, "application", "app")
#: No application is built so deep; a middleware that wraps itself would be.
_MOST_STEPS: Final = 64


@dataclass(frozen=True, slots=True)
class WebsocketRoute:
    """One way through an application."""

    #: The patterns of the routers on it, one behind the other.
    path: str
    #: Routers and middleware, the outermost first.
    through: tuple[Any, ...]
    #: A consumer's application, or what cannot be looked into.
    end: Any

    def passes(self, *kinds: type) -> bool:
        """True if an instance of one of these classes stands on it."""
        return any(isinstance(each, kinds) for each in self.through)

    @property
    def consumer_class(self) -> Any:
        """The consumer at its end, or None."""
        return getattr(self.end, "consumer_class", None)


def websocket_routes(
    application: Any, path: str = "", through: Sequence[Any] = ()
) -> Iterator[WebsocketRoute]:
    """All ways that a WebSocket can take through an application."""
    here = (*through, application)
    if isinstance(application, ProtocolTypeRouter):
        below = application.application_mapping.get("websocket")
        if below is not None:
            yield from websocket_routes(below, path, here)
    elif isinstance(application, URLRouter):
        for route in application.routes:
            yield from websocket_routes(route.callback, f"{path}{route.pattern}", here)
    elif hasattr(application, "as_asgi"):
        # A consumer's class, which a route may name without as_asgi().
        yield from websocket_routes(application.as_asgi(), path, through)
    else:
        kept = getattr(application, "__dict__", {})
        wrapped = next((kept[name] for name in _WRAPPED if name in kept), None)
        if callable(wrapped) and len(through) < _MOST_STEPS:
            yield from websocket_routes(wrapped, path, here)
        else:
            yield WebsocketRoute(path, tuple(through), application)
