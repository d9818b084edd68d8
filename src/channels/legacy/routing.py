"""Which consumer a message of Channels 1 goes to: by its channel, and by patterns on its keys.

The first route that matches wins.  A pattern is matched at the beginning of a value; its named
groups become keyword arguments of the consumer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import import_module
from typing import Any, Final, Protocol

from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

Consumer = Callable[..., Any]
Match = tuple[Consumer, dict[str, Any]]

#: Serves Django's views; imported by name, for it stands above this module.
_VIEWS: Final = "channels.legacy.handler"


class _Matchable(Protocol):
    def match(self, message: Any) -> Match | None:
        """The consumer of a message and its keyword arguments; None: it is another's."""

    def channel_names(self) -> set[str]:
        """The channels that it has consumers for."""


class Router:
    """Finds the consumer of a message.

    Attributes:
        root: An `Include` of the whole routing.
        channels: The channels that have a consumer.

    Args:
        routing: A list of routes, a dict of channels and consumers, or a dotted path to either.

    Raises:
        ImproperlyConfigured: If it is none of these, or holds something else.
    """

    def __init__(self, routing: Any) -> None:
        self.root = Include(routing)
        self.channels = self.root.channel_names()
        self._has_defaults = False

    def add_route(self, route: _Matchable) -> None:
        """Add a route after all others."""
        self.root.routing.append(route)
        self.channels |= route.channel_names()

    def match(self, message: Any) -> Match | None:
        """The consumer of a message and its keyword arguments, or None."""
        return self.root.match(message)

    def check_default(self, http_consumer: Consumer | None = None) -> None:
        """Add consumers for what a server sends and the routing does not handle, once.

        HTTP goes to Django's views; a WebSocket is accepted, what it brings is ignored.

        Args:
            http_consumer: For HTTP, in the place of Django's views.
        """
        if self._has_defaults:
            return
        self._has_defaults = True
        views = http_consumer or import_module(_VIEWS).ViewConsumer()
        self.add_route(Route("http.request", views))
        self.add_route(Route("websocket.connect", connect_consumer))
        self.add_route(Route(["websocket.receive", "websocket.disconnect"], null_consumer))

    @classmethod
    def resolve_routing(cls, routing: Any) -> list[Any]:
        """The list of routes that a dotted path, a dict or a list stands for.

        Raises:
            ImproperlyConfigured: If it stands for none.
        """
        found = routing
        if isinstance(found, str):
            try:
                found = import_string(found)
            except ImportError as error:
                raise ImproperlyConfigured(
                    f"Cannot import channel routing {routing!r}: {error}"
                ) from error
        if isinstance(found, Mapping):
            found = [Route(channel, consumer) for channel, consumer in found.items()]
        if not isinstance(found, list | tuple):
            raise ImproperlyConfigured(
                f"Channel routing must be a list of route() and include(), or a dict of channels "
                f"and consumers: found {_shown(routing, found)}."
            )
        for number, each in enumerate(found):
            if not (hasattr(each, "match") and hasattr(each, "channel_names")):
                raise ImproperlyConfigured(
                    f"Channel routing must hold route() and include(): found {each!r} at position "
                    f"{number} of {_shown(routing, found)}."
                )
        return list(found)


def _shown(routing: Any, found: Any) -> str:
    kind = f"a {type(found).__name__}"
    return f"{routing!r}, {kind}" if isinstance(routing, str) else kind


class Route:
    """A consumer of one channel or several.

    Args:
        channels: A name, or a list of names.
        consumer: A callable, or a dotted path to one.
        filters: Key of the message -> regular expression; all of them must match.

    Raises:
        ImproperlyConfigured: If the consumer is no callable, or cannot be imported.
        ValueError: If an expression has a group without a name.
    """

    def __init__(
        self, channels: str | Sequence[str], consumer: str | Consumer, **filters: Any
    ) -> None:
        self.channels: list[str] = [channels] if isinstance(channels, str) else list(channels)
        self.consumer = _consumer(consumer)
        self.filters = _compiled(filters)

    def __repr__(self) -> str:
        filters = "".join(f", {key}={each.pattern!r}" for key, each in self.filters.items())
        return f"<Route {'/'.join(self.channels)} -> {self.consumer!r}{filters}>"

    def match(self, message: Any) -> Match | None:
        """The consumer and its keyword arguments if this message is for it, else None."""
        if message.channel.name not in self.channels:
            return None
        arguments: dict[str, Any] = {}
        for key, expression in self.filters.items():
            found = expression.match(_text(message, key))
            if key not in message or found is None:
                return None
            arguments |= found.groupdict()
        return self.consumer, arguments

    def channel_names(self) -> set[str]:
        """The channels of this route."""
        return set(self.channels)


class RouteClass(Route):
    """A class-based consumer, on the channels that it names itself by `channel_names()`."""

    def __init__(self, consumer: str | Consumer, **filters: Any) -> None:
        found: Any = _consumer(consumer)
        if not hasattr(found, "channel_names"):
            raise ImproperlyConfigured(
                f"route_class() takes a class-based consumer: found {found!r}, which has no "
                "channel_names()."
            )
        super().__init__(list(found.channel_names()), found, **filters)


class Include:
    """A routing of its own, under prefixes.

    What a prefix matches is cut off the value that the routes below compare; consumers get the
    message whole.

    Args:
        routing: As for `Router`.
        prefixes: Key of the message -> regular expression; all of them must match.
    """

    def __init__(self, routing: Any, **prefixes: Any) -> None:
        self.routing: list[Any] = Router.resolve_routing(routing)
        self.prefixes = _compiled(prefixes)

    def match(self, message: Any) -> Match | None:
        """The consumer and keyword arguments of the first route that matches, or None."""
        arguments: dict[str, Any] = {}
        if self.prefixes:
            content = dict(message.content)
            for key, expression in self.prefixes.items():
                text = _text(message, key)
                found = expression.match(text)
                if key not in message or found is None:
                    return None
                content[key] = text[found.end() :]
                arguments |= found.groupdict()
            message = message.with_content(content)
        for route in self.routing:
            found_below = route.match(message)
            if found_below is not None:
                consumer, more = found_below
                return consumer, arguments | more
        return None

    def channel_names(self) -> set[str]:
        """The channels of all routes below."""
        return {name for route in self.routing for name in route.channel_names()}


def null_consumer(*_: Any, **__: Any) -> None:
    """Ignore a message."""


def connect_consumer(message: Any, **_: Any) -> None:
    """Accept a WebSocket."""
    message.reply_channel.send({"accept": True})


route = Route
route_class = RouteClass
include = Include


def _consumer(consumer: Any) -> Consumer:
    found = consumer
    if isinstance(found, str):
        try:
            found = import_string(found)
        except ImportError as error:
            raise ImproperlyConfigured(f"Cannot import consumer {consumer!r}: {error}") from error
    if not callable(found):
        raise ImproperlyConfigured(
            f"A consumer must be callable, or a dotted path to a callable: found {consumer!r}."
        )
    called: Consumer = found
    return called


def _compiled(filters: Mapping[str, Any]) -> dict[str, re.Pattern[str]]:
    compiled = {key: re.compile(expression) for key, expression in filters.items()}
    if unnamed := _with_unnamed(compiled.values()):
        raise ValueError(
            f"{unnamed!r} has a group without a name: consumers take keyword arguments only, so "
            "write (?P<name>...), or (?:...) for a group that is none."
        )
    return compiled


def _with_unnamed(expressions: Iterable[re.Pattern[str]]) -> str | None:
    return next((each.pattern for each in expressions if each.groups > len(each.groupindex)), None)


def _text(message: Any, key: str) -> str:
    """A value as expressions compare it; bytes that are no ASCII match nothing but "."."""
    value = message.get(key, "")
    return value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)
