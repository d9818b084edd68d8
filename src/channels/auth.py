"""Users of connections, by Django's sessions and authentication backends.

Each function makes one hop to a thread for all that it reads and writes: Django's own async
forms make one for every query, and know nothing of session engines and backends that have
only sync methods.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from django.conf import settings
from django.contrib.auth import (
    BACKEND_SESSION_KEY,
    HASH_SESSION_KEY,
    SESSION_KEY,
    get_user_model,
    load_backend,
    user_logged_in,
    user_logged_out,
)
from django.utils.crypto import constant_time_compare
from django.utils.functional import LazyObject, empty

from channels.kit.old_names import old_names
from channels.kit.types import Receive, Scope, Send
from channels.middleware import NEXT_STEP, BaseMiddleware
from channels.sessions import CookieMiddleware, SessionMiddleware, in_thread, may_change_key
from channels.signals import session_ended
from channels.stores import catch_up, unbind

_NO_SESSION = "Cannot find session in scope. You should wrap your consumer in SessionMiddleware."


async def get_user(scope: Scope) -> Any:
    """The user that the scope's session names, or an AnonymousUser.

    A long connection may ask again at any time: both session and user are then as stored by now,
    so that a logout elsewhere, an expired session or a deactivated user is noticed.

    A session whose hash no longer fits, because the password has changed, is flushed.  One that
    fits a key of SECRET_KEY_FALLBACKS gets a new hash; its own key changes too, unless the client
    cannot be told the new one any more: over a WebSocket, and once a response has begun.

    Raises:
        ValueError: If the scope has no session.
    """
    if "session" not in scope:
        raise ValueError(_NO_SESSION)
    session = scope["session"]
    # No key: nothing is stored, so there is nothing to load and no reason to leave the loop.
    if getattr(session, "session_key", "?") is None and SESSION_KEY not in session:
        return anonymous()
    return await in_thread(scope, find_user)(session, may_change_key(scope))


async def login(scope: Scope, user: Any, backend: str | None = None) -> None:
    """Log a user in: into the scope's session and scope["user"].

    The session gets a new key, or is emptied if it was another user's.  It is saved as every
    changed session is; save it yourself to have it stored at once.  Receivers of `user_logged_in`
    get `request=None`.

    Over a WebSocket, and once a response has begun, no cookie can tell the client a new key, and
    whoever has planted the old one in its browser must not be logged in with it (session
    fixation).  Unless the session is this user's already, the login then holds for this connection
    alone: the client's stored session stays as it is, and the connection goes on with a session
    without a key, which is not saved unless you do so.

    Args:
        user: None takes scope["user"].
        backend: Dotted name of the authentication backend, where several are configured.

    Raises:
        ValueError: If there is no session, no user, or no telling which backend.
    """
    if "session" not in scope:
        raise ValueError(_NO_SESSION)
    user = scope.get("user") if user is None else user
    if user is None:
        raise ValueError("User must be passed as an argument or must be present in the scope.")
    await in_thread(scope, _login)(scope, user, backend)


async def logout(scope: Scope) -> None:
    """Log the scope's user out: the session is deleted, scope["user"] becomes anonymous.

    Receivers of `user_logged_out` get `request=None`; an anonymous user sends no signal.

    Raises:
        ValueError: If the scope has no session.
    """
    if "session" not in scope:
        raise ValueError(f"Login cannot find session in scope. {_NO_SESSION.partition('. ')[2]}")
    await in_thread(scope, _logout)(scope)


def _get_user_session_key(session: Any) -> Any:
    """The primary key in the session, as the user model has it; KeyError if there is none."""
    return get_user_model()._meta.pk.to_python(session[SESSION_KEY])


def find_user(session: Any, may_cycle_key: bool) -> Any:
    """The user that a session names, or an AnonymousUser; blocks on database and session store.

    Args:
        may_cycle_key: Whether the session may get another key; see `get_user`.
    """
    if not catch_up(session):
        return anonymous()
    try:
        user_key = _get_user_session_key(session)
        backend_path = session[BACKEND_SESSION_KEY]
    except KeyError:
        return anonymous()
    if backend_path not in settings.AUTHENTICATION_BACKENDS:
        return anonymous()
    user: Any = load_backend(backend_path).get_user(user_key)
    if user is None or (
        hasattr(user, "get_session_auth_hash") and not _verify(session, user, may_cycle_key)
    ):
        return anonymous()
    return user


def _verify(session: Any, user: Any, may_cycle_key: bool) -> bool:
    """Compare the session's hash with the user's; renew one of an older key, flush a wrong one."""
    found = session.get(HASH_SESSION_KEY) or ""
    current = user.get_session_auth_hash()
    if found and constant_time_compare(found, current):
        return True
    older: Any = getattr(user, "get_session_auth_fallback_hash", tuple)()
    if found and any(constant_time_compare(found, each) for each in older):
        if may_cycle_key:
            session.cycle_key()
        session[HASH_SESSION_KEY] = current
        return True
    session.flush()
    return False


def _login(scope: Scope, user: Any, backend: str | None) -> None:
    session = scope["session"]
    session_hash = user.get_session_auth_hash() if hasattr(user, "get_session_auth_hash") else ""
    backend_path = _backend_path(user, backend)
    client_can_follow = may_change_key(scope)
    if SESSION_KEY not in session:
        if client_can_follow:
            session.cycle_key()
        else:
            unbind(session, keeps_data=True)
    elif _get_user_session_key(session) != user.pk or (
        session_hash and not constant_time_compare(session.get(HASH_SESSION_KEY, ""), session_hash)
    ):
        # Another user's, or another password's: nothing of it may be handed on.
        if client_can_follow:
            session.flush()
        else:
            unbind(session, keeps_data=False)
    session[SESSION_KEY] = user._meta.pk.value_to_string(user)
    session[BACKEND_SESSION_KEY] = backend_path
    session[HASH_SESSION_KEY] = session_hash
    scope["user"] = user
    user_logged_in.send(sender=user.__class__, request=None, user=user)


def _backend_path(user: Any, backend: str | None) -> str:
    path = backend or getattr(user, "backend", None)
    if path is None:
        configured = settings.AUTHENTICATION_BACKENDS
        if len(configured) != 1:
            raise ValueError(
                "You have multiple authentication backends configured and therefore must provide "
                "the `backend` argument or set the `backend` attribute on the user."
            )
        path = configured[0]
    if not isinstance(path, str):
        raise TypeError(f"backend must be a dotted import path string (got {path!r}).")
    return path


def _logout(scope: Scope) -> None:
    user = scope.get("user")
    # Before the session goes, so that receivers find out who logged out.
    if user is not None and getattr(user, "is_authenticated", True):
        user_logged_out.send(sender=user.__class__, request=None, user=user)
    key = getattr(scope["session"], "session_key", None)
    scope["session"].flush()
    if key:
        session_ended.send(sender=user.__class__, session_key=key)
    if "user" in scope:
        scope["user"] = anonymous()


def anonymous() -> Any:
    """The user of a connection that nobody is logged in on."""
    # Not at import: asgi.py names this module before the models are loaded.
    from django.contrib.auth.models import AnonymousUser  # noqa: PLC0415

    return AnonymousUser()


class UserLazyObject(LazyObject):  # type: ignore[type-arg]  # generic in its stubs only
    """The user in a scope, until AuthMiddleware has found out who it is."""

    def _setup(self) -> None:
        raise ValueError("Accessing scope user before it is ready.")


class AuthMiddleware(BaseMiddleware):
    """Puts the session's user into scope["user"]; needs scope["session"].

    A user that is in the scope already stays.  The user is looked up once, as the connection
    opens; ask `get_user` again to notice a logout elsewhere.
    """

    def populate_scope(self, scope: Scope) -> None:
        """Give the scope its `user`, not resolved yet.

        Raises:
            ValueError: If the scope has no session.
        """
        if "session" not in scope:
            raise ValueError(
                "AuthMiddleware cannot find session in scope: put SessionMiddleware around it, or "
                "use AuthMiddlewareStack."
            )
        if "user" not in scope:
            scope["user"] = UserLazyObject()

    async def resolve_scope(self, scope: Scope) -> None:
        """Look the user up; override it to find users in another way."""
        user = scope["user"]
        if isinstance(user, UserLazyObject) and user._wrapped is empty:
            user._wrapped = await get_user(scope)

    async def __call__(
        self, scope: Scope, receive: Receive = NEXT_STEP, send: Send = NEXT_STEP
    ) -> Any:
        if send is NEXT_STEP:
            # super().__call__(scope) of a two-step subclass.
            return partial(AuthMiddleware.__call__, self, scope)
        scope = dict(scope)
        self.populate_scope(scope)
        await self.resolve_scope(scope)
        return await super().__call__(scope, receive, send)


def AuthMiddlewareStack(inner: Any) -> CookieMiddleware:  # noqa: N802 - a public name
    """AuthMiddleware with the session and cookie middleware that it needs."""
    return CookieMiddleware(SessionMiddleware(AuthMiddleware(inner)))


#: Of Channels 1.
__getattr__ = old_names(
    __name__,
    {
        "channel_and_http_session_user_from_http": "channels.legacy.auth",
        "channel_session_user": "channels.legacy.auth",
        "channel_session_user_from_http": "channels.legacy.auth",
        "http_session_user": "channels.legacy.auth",
        "transfer_user": "channels.legacy.auth",
    },
)
