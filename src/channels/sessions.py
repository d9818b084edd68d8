"""Django sessions for connections: who loads them, when they are saved, how the cookie is set.

An HTTP connection saves its session as the response starts, because the cookie travels in its
headers.  A WebSocket has no later response: its session is saved after each handler that changed
it, under the key that the client's cookie holds already.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from asgiref.sync import sync_to_async
from django.contrib.sessions.backends.base import SessionBase, UpdateError
from django.core.exceptions import SuspiciousOperation
from django.utils.functional import LazyObject, empty

from channels.kit.types import Scope

Session: TypeAlias = SessionBase


class LazySession(LazyObject):  # type: ignore[type-arg]  # generic in its stubs only
    """The session in a scope: known by name before the middleware has found its key."""

    def _setup(self) -> None:
        raise ValueError(
            "The session was used before SessionMiddleware resolved it: read scope['session'] "
            "inside the application that the middleware wraps."
        )


async def save_if_modified(scope: Scope) -> None:
    """Save the scope's session if it was changed since it was loaded or last saved.

    Does nothing for a scope without a resolved session, and for HTTP, whose session is saved as
    the response starts.  What is saved is the whole session: of two connections that change one
    session at once, the later one wins, as between two Django requests.

    Raises:
        SuspiciousOperation: If the session has been deleted meanwhile, by a logout for example.
    """
    session = resolved_session(scope)
    if session is None or not session.modified or scope.get("type") == "http":
        return
    # Reset first: what a concurrent handler changes while the thread saves is saved next time.
    session.modified = False
    try:
        await _save(session)
    except BaseException:
        session.modified = True
        raise


def resolved_session(scope: Scope) -> Session | None:
    """The session behind scope["session"], or None if there is none or none was resolved yet."""
    found: Any = scope.get("session")
    if isinstance(found, LazyObject):
        found = found._wrapped
        return None if found is empty else found
    return found if hasattr(found, "modified") else None


async def _save(session: Session) -> None:
    def save() -> None:
        # An emptied session was deleted by flush(), or never stored.
        if not session.is_empty():
            session.save()

    try:
        await sync_to_async(save)()
    except UpdateError:
        raise SuspiciousOperation(
            "The session was deleted while this connection used it; the user may have logged out "
            "elsewhere."
        ) from None
