"""Session stores for connections that live long.

A WebSocket loads its session once and may save it hours later, while requests of the same client
have gone on changing it.
"""

from __future__ import annotations

from copy import deepcopy
from functools import cache
from typing import Any


@cache
def long_lived(store: type[Any]) -> type[Any]:
    """A subclass of a session store that knows which changes are its own.

    It remembers what it loaded, and `catch_up` takes over what others have stored since, so that
    saving one value late does not bring back the past of all others.
    """

    class LongLivedStore(store):  # type: ignore[misc]  # the engine is known at run time only
        _loaded: dict[str, Any] | None = None
        _loaded_key: str | None = None

        def load(self) -> dict[str, Any]:
            return self._remember(super().load())

        async def aload(self) -> dict[str, Any]:
            return self._remember(await super().aload())

        def save(self, must_create: bool = False) -> None:
            super().save(must_create)
            self._saved()

        async def asave(self, must_create: bool = False) -> None:
            await super().asave(must_create)
            self._saved()

        def catch_up(self) -> bool:
            """Put this connection's changes on top of what is stored now.

            Returns False if what was loaded is not stored any more: deleted or expired.
            """
            before, now = self._loaded, self._session
            # Under a new key, after a login, nothing is stored that others could have changed.
            if before is None or self.session_key is None or self._loaded_key != self.session_key:
                return True
            stored = store(self.session_key).load()
            if stored and stored != before:
                changed = {
                    key: value
                    for key, value in now.items()
                    if key not in before or before[key] != value
                }
                removed = before.keys() - now.keys()
                self._session_cache = {
                    key: value for key, value in {**stored, **changed}.items() if key not in removed
                }
                self._remember(stored)
            return bool(stored or not before)

        def _remember(self, data: dict[str, Any]) -> dict[str, Any]:
            self._loaded, self._loaded_key = deepcopy(data), self.session_key
            return data

        def _saved(self) -> None:
            self.modified = False
            self._remember(self._session)

    # Django signs session data with the class's name in the salt.
    LongLivedStore.__qualname__ = store.__qualname__
    return LongLivedStore


def catch_up(session: Any) -> bool:
    """Take over what others stored in a long connection's session; blocks on the session store.

    Returns False if the session was deleted, or has expired, since it was loaded.
    """
    session = getattr(session, "_wrapped", session)
    return not hasattr(session, "catch_up") or bool(session.catch_up())


def unbind(session: Any, *, keeps_data: bool) -> None:
    """Make it a new session, without a key and not saved; the stored one stays as it is.

    Blocks on the session store.
    """
    session = getattr(session, "_wrapped", session)
    session._session_cache = dict(session.items()) if keeps_data else {}
    session._session_key = None
    session.modified = True
