"""Sessions of long connections: only their own changes are saved, nothing past comes back."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.sessions.backends import cache
from django.core.exceptions import SuspiciousOperation

from channels.kit.types import Receive, Scope, Send
from channels.sessions import SessionMiddlewareStack, save_if_modified
from channels.stores import catch_up
from tests.applications import call
from tests.test_sessions import cached_sessions, connections_stay, request

__all__ = ["cached_sessions", "connections_stay"]


def another(key: str | None) -> Any:
    """The session as a request would load it."""
    return cache.SessionStore(key)


@pytest.mark.usefixtures("cached_sessions")
async def test_a_long_connection_saves_its_own_changes_only() -> None:
    store = cache.SessionStore()
    store.update({"theme": "light", "cart": [1], "draft": "a", "kept": 1, "gone": 1})
    store.save()

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        session = scope["session"]
        assert await session.aget("theme") == "light"
        elsewhere = another(store.session_key)
        elsewhere.update({"theme": "dark", "new": 1})
        del elsewhere["gone"]
        elsewhere.save()

        session["cart"].append(2)
        session["seed"] = 7
        del session["draft"]
        await save_if_modified(scope)
        stored = dict(another(store.session_key).items())
        assert stored == {"theme": "dark", "cart": [1, 2], "kept": 1, "new": 1, "seed": 7}
        assert dict(session.items()) == stored

        elsewhere = another(store.session_key)
        elsewhere["theme"] = "light"
        elsewhere.save()
        session["seed"] = 8
        await save_if_modified(scope)
        assert another(store.session_key)["theme"] == "light"
        assert another(store.session_key)["seed"] == 8

    scope = request("websocket", f"sessionid={store.session_key}")
    await call(SessionMiddlewareStack(application), scope)


@pytest.mark.usefixtures("cached_sessions")
async def test_a_long_connection_takes_all_its_data_to_a_new_key() -> None:
    store = cache.SessionStore()
    store["cart"] = [1]
    store.save()
    keys: list[str] = []

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await scope["session"].acycle_key()
        scope["session"]["seed"] = 7
        keys.append(scope["session"].session_key)

    scope = request("websocket", f"sessionid={store.session_key}")
    await call(SessionMiddlewareStack(application), scope)
    assert keys != [store.session_key]
    assert dict(another(keys[0]).items()) == {"cart": [1], "seed": 7}


@pytest.mark.usefixtures("cached_sessions")
@pytest.mark.parametrize("way", ["save", "asave"])
async def test_what_a_consumer_saved_itself_is_not_saved_again(
    monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    store = cache.SessionStore()
    store.save()

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        session = scope["session"]
        await session.aset("seed", 7)
        if way == "save":
            session.save()
        else:
            await session.asave()
        monkeypatch.setattr(cache.SessionStore, "save", None)
        await save_if_modified(scope)

    scope = request("websocket", f"sessionid={store.session_key}")
    await call(SessionMiddlewareStack(application), scope)
    assert another(store.session_key)["seed"] == 7


@pytest.mark.usefixtures("cached_sessions")
async def test_a_long_connection_does_not_bring_back_a_deleted_session() -> None:
    store = cache.SessionStore()
    store["cart"] = [1]
    store.save()

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        assert await scope["session"].aget("cart") == [1]
        another(store.session_key).delete()
        scope["session"]["seed"] = 7
        with pytest.raises(SuspiciousOperation):
            await save_if_modified(scope)
        scope["session"].modified = False

    scope = request("websocket", f"sessionid={store.session_key}")
    await call(SessionMiddlewareStack(application), scope)
    assert not cache.SessionStore().exists(store.session_key or "")


@pytest.mark.usefixtures("cached_sessions")
async def test_what_was_taken_over_is_not_taken_for_an_own_change() -> None:
    store = cache.SessionStore()
    store["theme"] = "light"
    store.save()

    def choose(theme: str) -> None:
        elsewhere = another(store.session_key)
        elsewhere["theme"] = theme
        elsewhere.save()

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        session = scope["session"]
        assert await session.aget("theme") == "light"
        choose("dark")
        assert catch_up(session)
        assert session["theme"] == "dark"
        choose("blue")
        session["seed"] = 7
        await save_if_modified(scope)
        assert dict(another(store.session_key).items()) == {"theme": "blue", "seed": 7}

    scope = request("websocket", f"sessionid={store.session_key}")
    await call(SessionMiddlewareStack(application), scope)


def test_other_stores_are_up_to_date_by_definition() -> None:
    assert catch_up(cache.SessionStore())
    assert catch_up({})
