"""Users of messages, by the socket's session or the client's own."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, Final

from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY

from channels.auth import find_user
from channels.legacy.sessions import (
    channel_and_http_session,
    channel_session,
    find_message,
    http_session,
)

Consumer = Callable[..., Any]

#: What a session holds of its user.
_USER_KEYS: Final = (SESSION_KEY, BACKEND_SESSION_KEY, HASH_SESSION_KEY)


class _UserKeys(dict[str, Any]):
    """The user's keys of a socket's session, which itself must not lose its key."""

    def flush(self) -> None:
        """Forget the user: the password was changed."""
        self.clear()


def transfer_user(from_session: Any, to_session: Any) -> None:
    """Make the user of a session that of another one too; nothing happens if it has none."""
    if BACKEND_SESSION_KEY in from_session:
        for key in _USER_KEYS:
            if key in from_session:
                to_session[key] = from_session[key]


def channel_session_user(consumer: Consumer) -> Consumer:
    """Give the consumer `message.user`, by the socket's session; implies `channel_session`.

    Without one, and once the password was changed, it is an AnonymousUser.
    """

    @wraps(consumer)
    @channel_session
    def with_user(*args: Any, **kwargs: Any) -> Any:
        message = find_message(args)
        message.user = _socket_user(message.channel_session)
        return consumer(*args, **kwargs)

    return with_user


def _socket_user(session: Any) -> Any:
    before = _UserKeys((key, session[key]) for key in _USER_KEYS if key in session)
    now = _UserKeys(before)
    user = find_user(now, may_cycle_key=False)
    if now != before:
        for key in before.keys() - now.keys():
            del session[key]
        session.update(now)
    return user


def http_session_user(consumer: Consumer) -> Consumer:
    """Give the consumer `message.user`, by the client's session; implies `http_session`."""

    @wraps(consumer)
    @http_session
    def with_user(*args: Any, **kwargs: Any) -> Any:
        message = find_message(args)
        session = {} if message.http_session is None else message.http_session
        message.user = find_user(session, may_cycle_key=False)
        return consumer(*args, **kwargs)

    return with_user


def channel_session_user_from_http(consumer: Consumer) -> Consumer:
    """On connect: take the client's user over into the socket's session, as `message.user`.

    Later consumers of the socket have it by `channel_session_user`.
    """

    return http_session(channel_session(_taking_over(consumer)))


def channel_and_http_session_user_from_http(consumer: Consumer) -> Consumer:
    """The same, with `channel_and_http_session`.

    On a consumer of later messages it takes the user over anew.
    """
    return channel_and_http_session(_taking_over(consumer))


def _taking_over(consumer: Consumer) -> Consumer:
    inner = channel_session_user(consumer)

    @wraps(consumer)
    def with_user(*args: Any, **kwargs: Any) -> Any:
        message = find_message(args)
        if message.http_session is not None:
            transfer_user(message.http_session, message.channel_session)
        return inner(*args, **kwargs)

    return with_user
