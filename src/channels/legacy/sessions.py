"""Sessions for consumers: one of the socket, found by its reply channel, and the client's own.

In order, with `enforce_ordering`
    A message out of turn is put on a channel of its own, named after socket and number, and a
    session row says that it waits there.  Whoever has handled a message looks for the row of the
    next number.  The waiting side looks again, after its row is stored, whether its turn has come:
    of two workers who find that out at once, one can create the row that claims the message.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from importlib import import_module
from typing import Any, Final, overload

from django.conf import settings
from django.contrib.sessions.backends.base import CreateError

from channels.exceptions import ChannelFull
from channels.legacy.exceptions import ConsumeLater
from channels.legacy.handler import AsgiRequest
from channels.legacy.handling import handle_next
from channels.legacy.message import Message
from channels.legacy.pending import pending_message_store

logger = logging.getLogger("django.channels")

Consumer = Callable[..., Any]

#: Where a socket's session keeps the number of the message that is next.
NEXT_ORDER: Final = "__channels_next_order"
#: What a waiting message remembers of where it came from.
ORIGINAL_CHANNEL: Final = "original_channel"
#: RFC 6455, registry of close codes: "Try Again Later".
TRY_AGAIN_LATER: Final = 1013
#: How long the message is waited for that a row says is there, in seconds.
WAIT_SECONDS: Final = 5.0


def session_for_reply_channel(reply_channel: str) -> Any:
    """The session of a socket, loaded when it is first used.

    Raises:
        ValueError: If the engine keeps sessions in cookies.
    """
    return _store("chn", reply_channel)


def _store(kind: str, name: str) -> Any:
    engine = getattr(settings, "CHANNEL_SESSION_ENGINE", settings.SESSION_ENGINE)
    if engine == "django.contrib.sessions.backends.signed_cookies":
        raise ValueError(
            f"The session engine {engine} keeps sessions in the client's cookies, which no "
            "consumer can change: name another one in CHANNEL_SESSION_ENGINE."
        )
    digest = hashlib.sha1(name.encode(), usedforsecurity=False).hexdigest()
    return import_module(engine).SessionStore(session_key=f"{kind}{digest[:29]}")


def channel_session(consumer: Consumer) -> Consumer:
    """Give the consumer `message.channel_session`, a session that lasts as long as the socket.

    It is saved if it was changed, also when the consumer raised.

    Raises:
        ValueError: When called with a message that has no reply channel.
    """

    @wraps(consumer)
    def with_session(*args: Any, **kwargs: Any) -> Any:
        message = find_message(args)
        if hasattr(message, "channel_session"):
            return consumer(*args, **kwargs)
        if not message.reply_channel:
            raise ValueError(
                f"channel_session needs a message with a reply channel: found {message!r}, "
                "which has none."
            )
        session = session_for_reply_channel(message.reply_channel.name)
        # Without a row the engine would choose another key.  Of two workers one creates it.
        if not session.exists(session.session_key):
            with suppress(CreateError):
                session.save(must_create=True)
            session = session_for_reply_channel(message.reply_channel.name)
        message.channel_session = session
        try:
            return consumer(*args, **kwargs)
        finally:
            if session.modified and not session.is_empty():
                session.save()

    return with_session


def wait_channel_name(reply_channel: str, order: int) -> str:
    """The channel where a message of a socket waits for its turn."""
    return f"__wait__.{reply_channel.replace('!', '.')}.{order}"


@overload
def enforce_ordering(func: Consumer, slight: bool = False) -> Consumer: ...


@overload
def enforce_ordering(func: None = None, slight: bool = False) -> Callable[[Consumer], Consumer]: ...


def enforce_ordering(func: Consumer | None = None, slight: bool = False) -> Any:
    """Call the consumer with a socket's messages in the order in which they were sent.

    Implies `channel_session`.  It counts only among consumers that have it: put it on those of
    connect, receive and disconnect.  As many messages of a socket may wait for their turn as a
    channel of the layer may hold; a socket that needs more is closed with 1013.

    Raises:
        ValueError: For `slight`, which Channels 1.1 has dropped; and when called with a message
            without `order`.
    """
    if slight:
        raise ValueError(
            "slight=True is no more: the server holds messages back until the connection is "
            "accepted, so leave enforce_ordering out."
        )

    def decorate(consumer: Consumer) -> Consumer:
        @wraps(consumer)
        @channel_session
        def in_order(*args: Any, **kwargs: Any) -> Any:
            message = find_message(args)
            order = message.content.get("order")
            if not isinstance(order, int):
                raise ValueError(
                    f"enforce_ordering needs a message with an order: found {order!r} in "
                    f"{message!r}. It is for websocket.connect, receive and disconnect."
                )
            expected = message.channel_session.get(NEXT_ORDER, 0)
            if order > expected:
                _wait(message, order, expected)
                return None
            if order < expected:
                logger.warning(
                    "Message %s of %r was handled before; it is dropped.", order, message
                )
                return None
            return _run(consumer, message, order, args, kwargs)

        return in_order

    return decorate if func is None else decorate(func)


def _run(
    consumer: Consumer, message: Message, order: int, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    comes_again = False
    try:
        return consumer(*args, **kwargs)
    except ConsumeLater:
        comes_again = not message.__doomed__
        raise
    finally:
        if not comes_again:
            try:
                # First, or answers to the next message, by another worker, could be there before.
                pending_message_store.flush()
            finally:
                _advance(message, order + 1)


def _advance(message: Any, order: int) -> None:
    """Let the message of this number be the next, and send it on if it waits."""
    session = message.channel_session
    if session.session_key is None:
        # The consumer has deleted it, so the socket is done with.
        return
    session[NEXT_ORDER] = order
    session.save()
    # What is changed after this would overwrite what the next consumer stores.
    session.modified = False
    requeue_messages(message, order)


def requeue_messages(message: Message, order: int | None = None) -> None:
    """Send the message of a number, if it waits, to the channel that it came from.

    Args:
        message: Another one of the same socket.
        order: The number; None takes the one whose turn it is.
    """
    reply = message.reply_channel.name
    if order is None:
        order = session_for_reply_channel(reply).get(NEXT_ORDER, 0)
    waiting = _store("chw", f"{reply} {order}")
    if not waiting.exists(waiting.session_key):
        return
    claim = _store("chc", f"{reply} {order}")
    try:
        claim.save(must_create=True)
    except CreateError:
        # Another worker sends it.
        return
    try:
        # It may have been sent, and the claim deleted, between the look and the claim.
        if waiting.exists(waiting.session_key):
            _send_on(message, wait_channel_name(reply, order))
            waiting.delete()
    finally:
        claim.delete()


def _send_on(message: Message, wait_channel: str) -> None:
    layer = message.channel_layer
    _, content = layer.receive([wait_channel], block=True, timeout=WAIT_SECONDS)
    if content is None:
        logger.error("The message on %r has expired; its socket is closed.", wait_channel)
        _close(message)
        return
    channel = content.pop(ORIGINAL_CHANNEL)
    try:
        layer.send(channel, content)
    except ChannelFull:
        # What would read it may be waiting for this very thread.
        if not handle_next(channel, content):
            raise


def _close(message: Message) -> None:
    """Close a socket whose messages cannot be handled in their order any more."""
    message.reply_channel.send({"close": TRY_AGAIN_LATER}, immediately=True)


def _wait(message: Message, order: int, expected: int) -> None:
    """Put a message aside until its turn has come.

    Raises:
        ChannelFull: If it is too far from the one that is expected; its socket is closed.
    """
    reply = message.reply_channel.name
    wait_channel = wait_channel_name(reply, order)
    most = message.channel_layer.layer.get_capacity(wait_channel)
    if order - expected > most:
        # More than that cannot have come in another order only: one is lost, or takes too long.
        _close(message)
        raise ChannelFull(
            f"Message {order} of {reply} cannot wait for its turn: {most} others, from "
            f"{expected} on, may wait (the layer's capacity of {wait_channel}). Its socket is "
            "closed."
        )
    content = {**message.content, ORIGINAL_CHANNEL: message.channel.name}
    message.channel_layer.send(wait_channel, content)
    waiting = _store("chw", f"{reply} {order}")
    with suppress(CreateError):
        waiting.save(must_create=True)
    # Only now: whoever moves on from here looks for the row.
    expected = session_for_reply_channel(reply).get(NEXT_ORDER, 0)
    # Not only its own: a worker that was killed may have left the one whose turn it is.
    requeue_messages(message, min(expected, order))


def http_session(consumer: Consumer) -> Consumer:
    """Give the consumer `message.http_session`, the client's session, or None if it has none.

    Its key is the parameter `session_key` of the query string, or else the cookie.  It is saved if
    it was changed; a new one is not made, for no response could tell the client its key.

    Raises:
        ValueError: When called with a message that has no path.
    """

    @wraps(consumer)
    def with_session(*args: Any, **kwargs: Any) -> Any:
        message = find_message(args)
        if hasattr(message, "http_session"):
            return consumer(*args, **kwargs)
        message.http_session = _client_session(message)
        return _saving(message.http_session, consumer, args, kwargs)

    return with_session


def channel_and_http_session(consumer: Consumer) -> Consumer:
    """Both: the socket's session, and the client's for all messages of the socket.

    The client's key is known on connect, and kept in the socket's session for later messages.
    """

    @wraps(consumer)
    @channel_session
    def with_sessions(*args: Any, **kwargs: Any) -> Any:
        message = find_message(args)
        if hasattr(message, "http_session"):
            return consumer(*args, **kwargs)
        kept = message.channel_session.get(settings.SESSION_COOKIE_NAME)
        session = _client_session(message) if kept is None else _http_store(kept)
        if kept is None and session is not None:
            message.channel_session[settings.SESSION_COOKIE_NAME] = session.session_key
        message.http_session = session
        return _saving(session, consumer, args, kwargs)

    return with_sessions


def _saving(session: Any, consumer: Consumer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    try:
        return consumer(*args, **kwargs)
    finally:
        # After a flush there is no key that the client knows.
        if session is not None and session.modified and session.session_key is not None:
            session.save()


def _client_session(message: Message) -> Any:
    # Without its body: the consumer may want to read that.
    content = {**message.content, "body": b"", "body_channel": None}
    try:
        request = AsgiRequest(message.with_content({"method": "FAKE", **content}))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            "http_session needs a message with path and headers, as those of http.request and "
            f"websocket.connect: {message!r} cannot be read as a request: {error!r}."
        ) from error
    key = request.GET.get("session_key") or request.COOKIES.get(settings.SESSION_COOKIE_NAME)
    request.close()
    return _http_store(key) if key else None


def _http_store(key: str) -> Any:
    return import_module(settings.SESSION_ENGINE).SessionStore(session_key=key)


def find_message(args: tuple[Any, ...]) -> Any:
    """The message among a consumer's arguments: the first, or the second of a method."""
    for each in args[:2]:
        if isinstance(each, Message):
            return each
    found = ", ".join(type(each).__name__ for each in args[:2])
    raise ValueError(f"A consumer must be called with a message: found {found or 'nothing'}.")
