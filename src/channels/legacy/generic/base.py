"""The class that every class-based consumer of Channels 1 extends."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, Final

from channels.legacy.auth import channel_session_user
from channels.legacy.message import Message
from channels.legacy.routing import RouteClass
from channels.legacy.sessions import channel_session, enforce_ordering

Handler = Callable[..., Any]

#: The keyword argument that a demultiplexer gives to the consumers of its streams.
MULTIPLEXER: Final = "multiplexer"


class BaseConsumer:
    """Handles messages of several channels, each with a method; an instance lives for one message.

    Making an instance handles the message, so that the class is a consumer like any function.

    Attributes:
        method_mapping: Channel -> name of the method that handles its messages.
        channel_session: Whether `message.channel_session` is there.
        channel_session_user: Whether `message.channel_session` and `message.user` are there.
    """

    method_mapping: Mapping[str, str] = {}
    channel_session: bool = False
    channel_session_user: bool = False

    def __init__(self, message: Message, **kwargs: Any) -> None:
        self.message = message
        #: The named groups of the route that matched.
        self.kwargs = kwargs
        self.dispatch(message, **kwargs)

    @classmethod
    def channel_names(cls) -> set[str]:
        """The channels that a route to this class reads."""
        return set(cls.method_mapping)

    @classmethod
    def as_route(cls, attrs: Mapping[str, Any] | None = None, **filters: Any) -> RouteClass:
        """A route to this class, or to a subclass with other class attributes.

        Args:
            attrs: The class attributes that differ.
            filters: As for `route_class`.

        Raises:
            TypeError: If `attrs` is neither None nor a mapping.
        """
        if attrs is not None and not isinstance(attrs, Mapping):
            raise TypeError(f"attrs={attrs!r}: expected a dict of class attributes.")
        chosen = type(cls.__name__, (cls,), dict(attrs)) if attrs else cls
        return RouteClass(chosen, **filters)

    def get_handler(self, message: Message, **kwargs: Any) -> Handler:  # noqa: ARG002 - overridden
        """The method for a message, in the decorators that the class attributes ask for."""
        handler: Handler = getattr(self, self.method_mapping[message.channel.name])
        if self.channel_session_user:
            return channel_session_user(handler)
        if self.channel_session:
            return channel_session(handler)
        return handler

    def dispatch(self, message: Message, **kwargs: Any) -> Any:
        """Handle a message."""
        return self.get_handler(message, **kwargs)(message, **kwargs)


def in_order(handler: Handler) -> Handler:
    """`enforce_ordering`, but for messages that a demultiplexer hands on.

    A socket's messages are counted whole, and one stream sees a part of them.  So a demultiplexer
    enforces the order for all of its streams if one of them asks for it, by this attribute.
    """
    ordered = enforce_ordering(handler)

    @functools.wraps(handler)
    def handle(message: Message, **kwargs: Any) -> Any:
        return (handler if MULTIPLEXER in kwargs else ordered)(message, **kwargs)

    vars(handle)["strict_ordering"] = True
    return handle
