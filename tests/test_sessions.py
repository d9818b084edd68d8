"""Sessions: loaded lazily, saved when changed, never another connection's."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.sessions.backends.base import UpdateError
from django.contrib.sessions.backends.db import SessionStore
from django.core.exceptions import SuspiciousOperation

from channels.sessions import LazySession, save_if_modified


class CountingStore(SessionStore):
    """A session store that counts saves in place of making them."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__(None)
        self.saves = 0
        self.error = error

    def save(self, must_create: bool = False) -> None:
        if self.error is not None:
            raise self.error
        self.saves += 1


def scope_with(session: Any, kind: str = "websocket") -> dict[str, Any]:
    lazy = LazySession()
    lazy._wrapped = session
    return {"type": kind, "session": lazy}


async def test_a_changed_session_is_saved_once() -> None:
    store = CountingStore()
    scope = scope_with(store)
    await save_if_modified(scope)
    assert store.saves == 0
    scope["session"]["seed"] = 1
    await save_if_modified(scope)
    await save_if_modified(scope)
    assert store.saves == 1
    scope["session"]["seed"] = 2
    await save_if_modified(scope)
    assert store.saves == 2


async def test_an_emptied_session_is_not_stored_again() -> None:
    store = CountingStore()
    scope = scope_with(store)
    scope["session"]["seed"] = 1
    scope["session"].clear()
    await save_if_modified(scope)
    assert store.saves == 0


@pytest.mark.parametrize("scope", [{}, {"session": None}, {"session": LazySession()}])
async def test_no_session_no_error(scope: dict[str, Any]) -> None:
    await save_if_modified({"type": "websocket", **scope})


async def test_http_is_left_to_the_response() -> None:
    store = CountingStore()
    scope = scope_with(store, "http")
    scope["session"]["seed"] = 1
    await save_if_modified(scope)
    assert store.saves == 0
    assert store.modified


async def test_a_deleted_session_is_suspicious_and_stays_modified() -> None:
    store = CountingStore(UpdateError())
    scope = scope_with(store)
    scope["session"]["seed"] = 1
    with pytest.raises(SuspiciousOperation, match="deleted"):
        await save_if_modified(scope)
    assert store.modified


def test_an_unresolved_session_says_so() -> None:
    with pytest.raises(ValueError, match="before SessionMiddleware resolved it"):
        LazySession()["seed"]
