"""From an event's type to the method that handles it.

Types arrive through channel layers too, and projects build them from what users sent.  So a type
reaches only methods that are meant as handlers: none with a leading underscore, and none of the
verbs that a consumer has for its own use, `send`, `close`, `dispatch` and the like.

A type that reaches none may have any length, and a group sends it to each of its members: it is cut
in errors, and one line in five seconds tells of it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

from channels.exceptions import UnknownMessageType
from channels.kit.printable import printable
from channels.kit.throttle import Throttle, and_more
from channels.kit.types import Message
from channels.layers.registry import channel_layers

logger: Final = logging.getLogger("django.channels")

_throttle: Final = Throttle(5.0)

#: The methods of our own classes that handle events.
HANDLERS: Final = frozenset(
    {
        "http_disconnect",
        "http_request",
        "websocket_connect",
        "websocket_disconnect",
        "websocket_receive",
        "websocket_release",
        "websocket_resume",
    }
)


#: In the place of a handler's name.
NO_HANDLER: Final = "none"
#: An outbound event, which needs no handler.
_FRAME: Final = "websocket_send"
#: Characters of a type whose method's name is remembered.
_LONGEST_KNOWN: Final = 100


def get_handler_name(message: Message) -> str:
    """The name of the method that handles a message.

    Raises:
        UnknownMessageType: If the message has no type, or one that would name a private method.
    """
    if "type" not in message:
        raise UnknownMessageType("Incoming message has no 'type' attribute")
    kind = message["type"]
    if not isinstance(kind, str):
        raise UnknownMessageType(
            f"The type of a message is a string: found {printable(repr(kind))}."
        )
    # Programs build types of what users sent: a long one is not kept.
    return _known_name_of(kind) if len(kind) <= _LONGEST_KNOWN else _name_of(kind)


def _name_of(kind: str) -> str:
    name = kind.replace(".", "_")
    if name.startswith("_"):
        raise UnknownMessageType("Malformed type in message (leading underscore)")
    return name


_known_name_of = lru_cache(maxsize=1024)(_name_of)


def verbs_of(consumer: type) -> frozenset[str]:
    """The public names that a consumer class has from our classes and that handle no event."""
    names: set[str] = set()
    for base in consumer.__mro__:
        if base.__module__.partition(".")[0] == "channels":
            names.update(vars(base), vars(base).get("__annotations__", ()))
    return frozenset(name for name in names - HANDLERS if not name.startswith("_"))


def find_handler(
    consumer: object, message: Message, verbs: frozenset[str]
) -> Callable[[Message], Any]:
    """The bound method that handles a message.

    Raises:
        UnknownMessageType: If no method does, or the type names one of `verbs`.
    """
    name, kind = get_handler_name(message), message["type"]
    if name in verbs:
        raise UnknownMessageType(
            f"Message type '{printable(kind)}' names {type(consumer).__name__}.{name}, which is "
            "not a handler: give the message a type that is no method of the base classes."
        )
    handler: Callable[[Message], Any] | None = getattr(consumer, name, None)
    if handler is None or not callable(handler):
        text = f"No handler for message type {printable(kind)}"
        if len(name) <= _LONGEST_KNOWN and name.isidentifier():
            text += f": expected a method {type(consumer).__name__}.{name}"
        raise UnknownMessageType(text)
    return handler


def handler_label(consumer: type, message_type: Any) -> str:
    """The name of a handler in metrics and spans, "none" for messages that no handler has.

    Only names that the class has, for whoever sends to a layer can make up types.
    """
    name = message_type.replace(".", "_") if isinstance(message_type, str) else ""
    is_known = name == _FRAME or (name.isidentifier() and hasattr(consumer, name))
    return name if is_known else NO_HANDLER


def log_no_layer(consumer: type, alias: str) -> None:
    """Log that the layer which a consumer class names is not there; it serves without one."""
    held_back = _throttle.admit(f"{consumer.__qualname__} without a layer")
    if held_back is not None:
        logger.warning(
            "%s has no channel layer: CHANNEL_LAYERS has no %r, which its channel_layer_alias "
            "names.%s",
            consumer.__qualname__,
            alias,
            and_more(held_back),
        )


def no_layer_text(alias: str) -> str:
    """Why a consumer's `channel_layer` is None, and what to write into the settings."""
    found = ", ".join(map(repr, channel_layers.configs)) or "none"
    return (
        f"There is no channel layer: CHANNEL_LAYERS in the settings has no {alias!r} (found: "
        f'{found}). Add "{alias}": {{"BACKEND": "channels.layers.InMemoryChannelLayer"}}.'
    )


def log_unknown(consumer: type, error: UnknownMessageType) -> None:
    """Log that a consumer ended by a message that it has no handler for."""
    name = consumer.__qualname__
    held_back = _throttle.admit(name)
    if held_back is not None:
        logger.error("%s was ended by a message: %s%s", name, error, and_more(held_back))
