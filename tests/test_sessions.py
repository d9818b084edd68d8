"""Cookies and sessions: read from the request, saved when changed, never another connection's."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from http.cookies import SimpleCookie
from typing import Any

import pytest
from django.contrib.sessions.backends import cache, signed_cookies
from django.contrib.sessions.backends.base import UpdateError
from django.contrib.sessions.backends.db import SessionStore
from django.contrib.sessions.models import Session
from django.core.exceptions import SuspiciousOperation
from django.http import parse_cookie
from hypothesis import given
from hypothesis import strategies as st

from channels import sessions
from channels.kit.types import Message, Receive, Scope, Send
from channels.sessions import (
    CookieMiddleware,
    InstanceSessionWrapper,
    LazySession,
    SessionMiddleware,
    SessionMiddlewareStack,
    parse_cookies,
    save_if_modified,
)
from tests.applications import Recorder, call, cpu_seconds_between_turns

OK = {"type": "http.response.start", "status": 200}
BODY = {"type": "http.response.body", "body": b""}


def request(kind: str = "http", *cookies: str) -> Scope:
    return {"type": kind, "headers": [(b"cookie", cookie.encode("latin1")) for cookie in cookies]}


def set_cookies(message: Message) -> SimpleCookie:
    """The cookies that a message sets."""
    jar = SimpleCookie()
    for name, value in message.get("headers", ()):
        if name.lower() == b"set-cookie":
            jar.load(value.decode())
    return jar


@pytest.fixture(autouse=True)
def connections_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests without a database may share a thread with tests that left a connection in it."""
    monkeypatch.setattr("channels.db.close_old_connections", lambda **_: None)


@pytest.fixture
def cached_sessions(settings: Any) -> None:
    """Sessions in the process's memory: no database, and still a real store."""
    settings.SESSION_ENGINE = "django.contrib.sessions.backends.cache"
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}


# CookieMiddleware ------------------------------------------------------------


async def test_cookies_of_the_request() -> None:
    recorder = Recorder()
    await call(CookieMiddleware(recorder), request("websocket", 'a=1; b="two words"; caf\xe9=x'))
    assert recorder.scope["cookies"] == {"a": "1", "b": "two words", "caf\xe9": "x"}


async def test_cookies_in_several_fields_as_http2_has_them() -> None:
    recorder = Recorder()
    await call(CookieMiddleware(recorder), request("http", "a=1", "b=2"))
    assert recorder.scope["cookies"] == {"a": "1", "b": "2"}


async def test_no_cookies() -> None:
    recorder = Recorder()
    scope: Scope = {"type": "http", "headers": []}
    await call(CookieMiddleware(recorder), scope)
    assert recorder.scope["cookies"] == {}
    assert "cookies" not in scope


#: What may stand in a cookie's name and value, and what parsers trip over.
SIGNS = st.text(alphabet='a=;"\\ 01237\n\x85,é', max_size=40)


@given(text=SIGNS | st.builds('a="{}"'.format, SIGNS))
def test_cookies_are_what_django_finds_in_them(text: str) -> None:
    assert parse_cookies(text) == parse_cookie(text)


#: The worst that a header field of 16 KiB, the bound of our server, makes of one cookie or of many.
FIELD = 16_384
WORST_COOKIES = {
    "backslashes": 'a="' + "\\" * (FIELD - 4) + '"',
    "octal": 'a="' + "\\101" * (FIELD // 4 - 1) + '"',
    "escapes of both kinds": 'a="' + "\\a\\101" * (FIELD // 6 - 1) + '"',
    "letters and escapes": 'a="' + "x\\y" * (FIELD // 3 - 2) + '"',
    "quoted octal values": 'a="\\101";' * (FIELD // 9),
    "quoted escapes": '"\\a";' * (FIELD // 5),
    "quotes": '"";' * (FIELD // 3),
    "separators": ";" * FIELD,
    "names": "".join(f"{number:x};" for number in range(FIELD // 5)),
    "cookies": "".join(f"{number:x}=;" for number in range(FIELD // 6)),
}


@pytest.mark.parametrize("worst", WORST_COOKIES.values(), ids=WORST_COOKIES)
async def test_no_cookies_hold_the_loop_for_5_ms(worst: str) -> None:
    """Four fields fill the bound of a whole header; between them the loop turns."""
    stretches = await cpu_seconds_between_turns(
        CookieMiddleware(Recorder()), lambda: request("http", *[worst] * 4)
    )
    assert len(stretches) >= 4
    assert max(stretches) < 0.005


async def test_cookies_need_headers() -> None:
    with pytest.raises(ValueError, match=r"CookieMiddleware needs scope\['headers'\]"):
        await call(CookieMiddleware(Recorder()), {"type": "channel"})


def test_set_cookie_to_the_byte() -> None:
    message: Message = {"headers": []}
    CookieMiddleware.set_cookie(message, "Testing-Key", "testing-value")
    assert message["headers"] == [
        (b"Set-Cookie", b"Testing-Key=testing-value; Path=/; SameSite=lax")
    ]


def test_set_cookie_with_everything() -> None:
    message: Message = {}
    CookieMiddleware.set_cookie(
        message,
        "key",
        "value",
        expires="Wed, 21 Oct 2037 07:28:00 GMT",
        path="/chat",
        domain="example.com",
        secure=True,
        httponly=True,
        samesite="Strict",
    )
    assert message["headers"][0][1] == (
        b"key=value; Domain=example.com; expires=Wed, 21 Oct 2037 07:28:00 GMT; HttpOnly; "
        b"Path=/chat; SameSite=Strict; Secure"
    )


@pytest.mark.parametrize("naive", [False, True])
def test_set_cookie_expires_at_a_moment(naive: bool) -> None:
    message: Message = {}
    moment = datetime.now(UTC) + timedelta(hours=1)
    CookieMiddleware.set_cookie(
        message, "key", "value", expires=moment.replace(tzinfo=None) if naive else moment
    )
    cookie = set_cookies(message)["key"]
    assert 3590 <= int(cookie["max-age"]) <= 3601
    assert cookie["expires"].endswith("GMT")


def test_set_cookie_for_a_while() -> None:
    message: Message = {}
    CookieMiddleware.set_cookie(message, "key", "value", max_age=timedelta(minutes=1))
    assert set_cookies(message)["key"]["max-age"] == "60"
    assert set_cookies(message)["key"]["expires"]


def test_set_cookie_leaves_a_shared_list_of_headers_alone() -> None:
    shared = [(b"X-Always", b"1")]
    message: Message = {"headers": shared}
    CookieMiddleware.set_cookie(message, "key", "value")
    assert shared == [(b"X-Always", b"1")]
    assert len(message["headers"]) == 2


def test_samesite_is_checked() -> None:
    with pytest.raises(AssertionError, match="samesite"):
        CookieMiddleware.set_cookie({}, "key", "value", samesite="sometimes")


@pytest.mark.parametrize(
    ("key", "secure"), [("key", False), ("__Host-key", True), ("__Secure-key", True)]
)
def test_delete_cookie(key: str, secure: bool) -> None:
    message: Message = {}
    CookieMiddleware.delete_cookie(message, key, path="/chat", domain="example.com")
    cookie = set_cookies(message)[key]
    assert (cookie.value, cookie["max-age"], cookie["path"]) == ("", "0", "/chat")
    assert cookie["expires"] == "Thu, 01 Jan 1970 00:00:00 GMT"
    assert bool(cookie["secure"]) is secure


# SessionMiddleware, HTTP ------------------------------------------------------


class Visit:
    """An HTTP application that changes the session and answers."""

    def __init__(self, start: Message = OK, **values: Any) -> None:
        self.start = start
        self.values = values
        self.session: Any = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.session = scope["session"]
        for key, value in self.values.items():
            await self.session.aset(key, value)
        await send(self.start)
        await send(BODY)


@pytest.mark.django_db(transaction=True)
async def test_a_changed_session_is_saved_and_named_in_a_cookie() -> None:
    visit = Visit(seed=7)
    start, body = await call(SessionMiddlewareStack(visit), request())
    cookie = set_cookies(start)["sessionid"]
    assert cookie.value == visit.session.session_key
    assert (cookie["httponly"], cookie["path"], cookie["samesite"]) == (True, "/", "Lax")
    assert cookie["max-age"] == str(60 * 60 * 24 * 14)
    assert cookie["expires"].endswith("GMT")
    assert await SessionStore(cookie.value).aget("seed") == 7
    assert body == BODY

    again = Visit()
    start, _ = await call(
        SessionMiddlewareStack(again), request("http", f"sessionid={cookie.value}")
    )
    assert await again.session.aget("seed") == 7
    assert "sessionid" not in set_cookies(start)


@pytest.mark.usefixtures("cached_sessions")
@pytest.mark.parametrize("samesite", ["Lax", "Strict", "None", False])
async def test_cookie_settings(settings: Any, samesite: Any) -> None:
    settings.SESSION_COOKIE_NAME = "mine"
    settings.SESSION_COOKIE_PATH = "/chat"
    settings.SESSION_COOKIE_DOMAIN = "example.com"
    settings.SESSION_COOKIE_SECURE = True
    settings.SESSION_COOKIE_HTTPONLY = False
    settings.SESSION_COOKIE_SAMESITE = samesite
    settings.SESSION_EXPIRE_AT_BROWSER_CLOSE = True
    start, _ = await call(SessionMiddlewareStack(Visit(seed=1)), request())
    cookie = set_cookies(start)["mine"]
    assert (cookie["path"], cookie["domain"], cookie["secure"]) == ("/chat", "example.com", True)
    assert (cookie["httponly"], cookie["max-age"], cookie["expires"]) == ("", "", "")
    assert cookie["samesite"] == (samesite or "")


@pytest.mark.usefixtures("cached_sessions")
async def test_an_invalid_samesite_setting(settings: Any) -> None:
    settings.SESSION_COOKIE_SAMESITE = "Hello"
    with pytest.raises(AssertionError, match="samesite"):
        await call(SessionMiddlewareStack(Visit(seed=1)), request())


@pytest.mark.usefixtures("cached_sessions")
async def test_save_every_request_also_saves_what_was_not_loaded(settings: Any) -> None:
    store = cache.SessionStore()
    store["seed"] = 1
    store.save()
    scope = request("http", f"sessionid={store.session_key}")
    start, _ = await call(SessionMiddlewareStack(Visit()), scope)
    assert "headers" not in start
    settings.SESSION_SAVE_EVERY_REQUEST = True
    start, _ = await call(SessionMiddlewareStack(Visit()), scope)
    assert set_cookies(start)["sessionid"].value == store.session_key


@pytest.mark.usefixtures("cached_sessions")
async def test_an_emptied_session_loses_its_cookie(settings: Any) -> None:
    settings.SESSION_COOKIE_PATH = "/chat"
    store = cache.SessionStore()
    store["seed"] = 1
    store.save()

    async def flush(scope: Scope, receive: Receive, send: Send) -> None:
        await scope["session"].aflush()
        await send(OK)

    scope = request("http", f"sessionid={store.session_key}")
    (start,) = await call(SessionMiddlewareStack(flush), scope)
    cookie = set_cookies(start)["sessionid"]
    assert (cookie.value, cookie["max-age"], cookie["path"]) == ("", "0", "/chat")


@pytest.mark.usefixtures("cached_sessions")
@pytest.mark.parametrize("status", [500, 503])
async def test_nothing_is_saved_when_the_server_fails(status: int) -> None:
    visit = Visit(dict(OK, status=status), seed=1)
    start, _ = await call(SessionMiddlewareStack(visit), request())
    assert not set_cookies(start)
    assert visit.session.session_key is None


@pytest.mark.usefixtures("cached_sessions")
async def test_nothing_is_saved_when_the_application_raises() -> None:
    kept: list[Any] = []

    async def fail(scope: Scope, receive: Receive, send: Send) -> None:
        kept.append(scope["session"])
        await scope["session"].aset("seed", 1)
        raise KeyError("mine")

    for kind in ("http", "websocket"):
        with pytest.raises(KeyError, match="mine"):
            await call(SessionMiddlewareStack(fail), request(kind))
    assert [session.session_key for session in kept] == [None, None]


@pytest.mark.usefixtures("cached_sessions")
async def test_a_change_after_the_response_began_is_saved_too() -> None:
    async def late(scope: Scope, receive: Receive, send: Send) -> None:
        await scope["session"].aset("seed", 1)
        await send(OK)
        await scope["session"].aset("seed", 2)
        await send(BODY)

    start, _ = await call(SessionMiddlewareStack(late), request())
    assert cache.SessionStore(set_cookies(start)["sessionid"].value)["seed"] == 2


@pytest.mark.usefixtures("cached_sessions")
async def test_a_late_first_change_stores_nothing_that_no_cookie_names() -> None:
    kept: list[Any] = []

    async def late(scope: Scope, receive: Receive, send: Send) -> None:
        await send(OK)
        await scope["session"].aset("seed", 2)
        kept.append(scope["session"])

    await call(SessionMiddlewareStack(late), request())
    assert kept[0].session_key is None


@pytest.mark.django_db(transaction=True)
async def test_a_session_deleted_meanwhile_is_suspicious() -> None:
    store = SessionStore()
    await store.asave()

    async def stale(scope: Scope, receive: Receive, send: Send) -> None:
        await scope["session"].aset("seed", 1)
        await Session.objects.all().adelete()
        await send(OK)

    with pytest.raises(SuspiciousOperation, match="deleted"):
        await call(SessionMiddlewareStack(stale), request("http", f"sessionid={store.session_key}"))


@pytest.mark.usefixtures("cached_sessions")
async def test_a_message_that_the_application_sends_to_everyone_stays_as_it_is() -> None:
    constant = dict(OK, headers=[(b"X-Always", b"1")])
    await call(SessionMiddlewareStack(Visit(constant, seed=1)), request())
    assert constant == dict(OK, headers=[(b"X-Always", b"1")])


@pytest.mark.usefixtures("cached_sessions")
@pytest.mark.parametrize(
    ("headers", "vary"),
    [
        ([], [b"Cookie"]),
        ([(b"Vary", b"Accept")], [b"Accept", b"Cookie"]),
        ([(b"vary", b"Accept, COOKIE")], [b"Accept, COOKIE"]),
        ([(b"vary", b"*")], [b"*"]),
    ],
)
async def test_caches_are_told_that_a_response_depends_on_the_session(
    headers: list[Any], vary: list[bytes]
) -> None:
    async def read(scope: Scope, receive: Receive, send: Send) -> None:
        await scope["session"].aget("seed")
        await send(dict(OK, headers=tuple(headers)))

    for cookies in ((), ("sessionid=unknown",)):
        (start,) = await call(SessionMiddlewareStack(read), request("http", *cookies))
        assert [value for name, value in start["headers"] if name.lower() == b"vary"] == vary


@pytest.mark.usefixtures("cached_sessions")
async def test_a_response_without_the_session_is_for_every_client() -> None:
    start, _ = await call(SessionMiddlewareStack(Visit()), request("http"))
    assert "headers" not in start


async def test_a_session_in_the_cookie_itself(settings: Any) -> None:
    settings.SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"
    start, _ = await call(SessionMiddlewareStack(Visit(seed=7)), request())
    value = set_cookies(start)["sessionid"].value
    assert signed_cookies.SessionStore(value)["seed"] == 7


async def test_sessions_need_cookies() -> None:
    with pytest.raises(ValueError, match=r"SessionMiddleware needs scope\['cookies'\]"):
        await call(SessionMiddleware(Recorder()), {"type": "websocket"})


@pytest.mark.usefixtures("cached_sessions")
async def test_the_outer_of_two_session_middlewares_does_the_work() -> None:
    visit = Visit(seed=1)
    start, _ = await call(SessionMiddlewareStack(SessionMiddlewareStack(visit)), request())
    assert [name for name, _ in start["headers"]] == [b"Set-Cookie", b"Vary"]
    assert set_cookies(start)["sessionid"].value == visit.session.session_key


@pytest.mark.usefixtures("cached_sessions")
async def test_a_session_that_the_scope_has_already_stays() -> None:
    recorder = Recorder()
    own = {"mine": 1}
    await call(SessionMiddlewareStack(recorder), dict(request("websocket"), session=own))
    assert recorder.scope["session"] is own


# SessionMiddleware, WebSocket ---------------------------------------------------


@pytest.mark.usefixtures("cached_sessions")
async def test_a_websocket_keeps_the_servers_own_send() -> None:
    seen: list[Send] = []

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(send)

    async def receive() -> Message:
        raise AssertionError("nothing to receive")

    async def send(message: Message) -> None:
        raise AssertionError("nothing to send")

    stack = SessionMiddlewareStack(application)
    await stack(request("websocket"), receive, send)
    await stack(request("http"), receive, send)
    assert seen[0] is send
    assert seen[1] is not send


@pytest.mark.usefixtures("cached_sessions")
async def test_a_subclass_sets_the_cookie_on_accept(monkeypatch: pytest.MonkeyPatch) -> None:
    class OnAccept(InstanceSessionWrapper):
        save_message_types = ("http.response.start", "websocket.accept")
        cookie_response_message_types = ("http.response.start", "websocket.accept")

    monkeypatch.setattr(sessions, "InstanceSessionWrapper", OnAccept)
    visit = Visit({"type": "websocket.accept"}, seed=1)
    accept, _ = await call(SessionMiddlewareStack(visit), request("websocket"))
    assert set_cookies(accept)["sessionid"].value == visit.session.session_key


@pytest.mark.usefixtures("cached_sessions")
async def test_a_message_that_carries_no_cookie_deletes_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class SavesOnAccept(InstanceSessionWrapper):
        save_message_types = ("websocket.accept",)

    monkeypatch.setattr(sessions, "InstanceSessionWrapper", SavesOnAccept)
    visit = Visit({"type": "websocket.accept"})
    accept, _ = await call(SessionMiddlewareStack(visit), request("websocket", "sessionid=gone"))
    assert accept == {"type": "websocket.accept"}


@pytest.mark.usefixtures("cached_sessions")
async def test_a_websocket_saves_what_its_application_changed() -> None:
    store = cache.SessionStore()
    store.save()

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await scope["session"].aset("seed", 1)

    scope = request("websocket", f"sessionid={store.session_key}")
    assert await call(SessionMiddlewareStack(application), scope) == []
    assert cache.SessionStore(store.session_key)["seed"] == 1


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("cookies", [(), ("sessionid=never-stored",)])
async def test_a_websocket_stores_nothing_that_no_cookie_finds(cookies: tuple[str, ...]) -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await scope["session"].aset("seed", 1)
        await save_if_modified(scope)

    await call(SessionMiddlewareStack(application), request("websocket", *cookies))
    assert not await Session.objects.aexists()


@pytest.mark.django_db(transaction=True)
async def test_a_websocket_goes_on_saving_a_session_that_it_saved_itself() -> None:
    keys: list[str] = []

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await scope["session"].asave()
        keys.append(scope["session"].session_key)
        await scope["session"].aset("seed", 1)
        await save_if_modified(scope)

    await call(SessionMiddlewareStack(application), request("websocket"))
    assert await SessionStore(keys[0]).aget("seed") == 1


@pytest.mark.usefixtures("cached_sessions")
async def test_connections_do_not_see_each_others_sessions() -> None:
    """Two users, a thousand requests each, all in flight together, one shared application."""
    constant = dict(OK, headers=[])

    async def whoami(scope: Scope, receive: Receive, send: Send) -> None:
        before = await scope["session"].aget("owner")
        await asyncio.sleep(0)
        await scope["session"].aset("owner", before)
        await asyncio.sleep(0)
        await send(constant)
        await send(dict(BODY, body=before.encode()))

    keys = {}
    for owner in ("ada", "bob"):
        store = cache.SessionStore()
        store["owner"] = owner
        store.save()
        keys[owner] = store.session_key
    stack = SessionMiddlewareStack(whoami)

    async def visit(owner: str) -> None:
        scope = request("http", f"sessionid={keys[owner]}")
        start, body = await call(stack, scope)
        assert body["body"] == owner.encode()
        assert set_cookies(start)["sessionid"].value == keys[owner]
        assert [name for name, _ in start["headers"]] == [b"Set-Cookie", b"Vary"]

    for _ in range(20):
        await asyncio.gather(*(visit(owner) for _ in range(50) for owner in keys))


# save_if_modified --------------------------------------------------------------


class CountingStore(SessionStore):
    """A session store that counts saves in place of making them."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__("a-key-of-32-characters-is-stored")
        self._session_cache: dict[str, Any] = {}
        self.saves = 0
        self.error = error

    def delete(self, session_key: str | None = None) -> None:
        """There is nothing to delete."""

    def save(self, must_create: bool = False) -> None:
        if self.error is not None:
            raise self.error
        self.saves += 1


def scope_with(session: Any, kind: str = "websocket") -> Scope:
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
    scope["session"].flush()
    await save_if_modified(scope)
    assert store.saves == 0


@pytest.mark.parametrize(
    "scope", [{}, {"session": None}, {"session": {}}, {"session": LazySession()}]
)
async def test_no_session_no_error(scope: Scope) -> None:
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
