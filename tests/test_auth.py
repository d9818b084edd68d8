"""Users of connections: found by the session, logged in and out by Django's rules."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
import websockets
from asgiref.sync import sync_to_async
from django.contrib.auth import (
    BACKEND_SESSION_KEY,
    HASH_SESSION_KEY,
    SESSION_KEY,
    get_user_model,
    user_logged_in,
    user_logged_out,
)
from django.contrib.auth.backends import ModelBackend
from django.contrib.auth.models import AnonymousUser
from django.contrib.sessions.backends import signed_cookies
from django.contrib.sessions.backends.db import SessionStore
from django.contrib.sessions.models import Session

from channels import auth
from channels.auth import (
    AuthMiddleware,
    AuthMiddlewareStack,
    UserLazyObject,
    get_user,
    login,
    logout,
)
from channels.generic.http import AsyncHttpConsumer
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.kit.doors import DOOR
from channels.kit.types import Receive, Scope, Send
from channels.middleware import single_callable
from channels.routing import ProtocolTypeRouter
from channels.sessions import save_if_modified
from tests.applications import Recorder, call, serving

MODEL = "django.contrib.auth.backends.ModelBackend"
OTHER = "django.contrib.auth.backends.AllowAllUsersModelBackend"

database = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def connections_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests without a database may share a thread with tests that left a connection in it."""
    monkeypatch.setattr("channels.db.close_old_connections", lambda **_: None)


@pytest.fixture(autouse=True)
def cheap_passwords(settings: Any) -> None:
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture
def scope() -> Scope:
    return {"type": "websocket", "session": SessionStore(), "headers": []}


async def make_user(name: str = "ada") -> Any:
    model: Any = get_user_model()
    return await model.objects.acreate_user(username=name, password=f"{name}'s secret")


async def stored(key: str | None) -> Any:
    """The data of a session that is stored."""
    return (await Session.objects.aget(session_key=key)).get_decoded()


class Signals:
    """What Django told about logins and logouts."""

    def __init__(self) -> None:
        self.seen: list[tuple[Any, Any]] = []

    def __call__(self, *, user: Any, request: Any, **more: Any) -> None:
        self.seen.append((user, request))


@pytest.fixture
def logins() -> Iterator[Signals]:
    signals = Signals()
    user_logged_in.connect(signals)
    yield signals
    user_logged_in.disconnect(signals)


@pytest.fixture
def logouts() -> Iterator[Signals]:
    signals = Signals()
    user_logged_out.connect(signals)
    yield signals
    user_logged_out.disconnect(signals)


async def never(*args: Any) -> Any:
    raise AssertionError("left the event loop without need")


# get_user --------------------------------------------------------------------


async def test_no_session() -> None:
    expected = (
        r"Cannot find session in scope\. You should wrap your consumer in SessionMiddleware\."
    )
    with pytest.raises(ValueError, match=f"^{expected}$"):
        await get_user({"type": "websocket"})
    with pytest.raises(ValueError, match=f"^{expected}$"):
        await login({"type": "websocket"}, AnonymousUser())
    expected = expected.replace("Cannot", "Login cannot")
    with pytest.raises(ValueError, match=f"^{expected}$"):
        await logout({"type": "websocket"})


async def test_without_a_stored_session_nothing_is_looked_up(
    scope: Scope, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth, "in_thread", lambda scope, function: never)
    assert isinstance(await get_user(scope), AnonymousUser)


@database
async def test_the_user_of_the_session(scope: Scope) -> None:
    user = await make_user()
    await login(scope, user)
    await scope["session"].asave()
    found = await get_user({"session": SessionStore(scope["session"].session_key)})
    assert found == user


@database
async def test_a_backend_that_is_not_configured(scope: Scope, settings: Any) -> None:
    await login(scope, await make_user(), backend=MODEL)
    settings.AUTHENTICATION_BACKENDS = [OTHER]
    assert isinstance(await get_user(scope), AnonymousUser)


@database
async def test_a_user_who_no_longer_exists(scope: Scope) -> None:
    user = await make_user()
    await login(scope, user)
    await user.adelete()
    assert isinstance(await get_user(scope), AnonymousUser)


@database
@pytest.mark.parametrize("found", ["", "wrong", None])
async def test_a_wrong_hash_flushes_the_session(scope: Scope, found: str | None) -> None:
    session = scope["session"]
    await login(scope, await make_user())
    session["cart"] = [1, 2]
    if found is None:
        del session[HASH_SESSION_KEY]
    else:
        session[HASH_SESSION_KEY] = found
    await session.asave()
    key = session.session_key
    assert isinstance(await get_user(scope), AnonymousUser)
    assert session.is_empty()
    assert not await session.aexists(key)


@database
async def test_a_changed_password_ends_the_login(scope: Scope) -> None:
    user = await make_user()
    await login(scope, user)
    user.set_password("another")
    await user.asave()
    assert isinstance(await get_user(scope), AnonymousUser)


@database
@pytest.mark.parametrize("kind", ["http", "websocket"])
async def test_an_older_secret_key_is_honoured_and_renewed(
    scope: Scope, settings: Any, kind: str
) -> None:
    session = scope["session"]
    user = await make_user()
    settings.SECRET_KEY = "before"
    await login(scope, user)
    await session.asave()
    old_key, old_hash = session.session_key, session[HASH_SESSION_KEY]

    settings.SECRET_KEY = "after"
    settings.SECRET_KEY_FALLBACKS = ["before"]
    assert await get_user(dict(scope, type=kind)) == user
    assert session[HASH_SESSION_KEY] != old_hash
    assert session[HASH_SESSION_KEY] == user.get_session_auth_hash()
    # A WebSocket could not tell its client a new key: the login would be lost.
    assert (session.session_key == old_key) is (kind == "websocket")

    settings.SECRET_KEY_FALLBACKS = []
    assert await get_user(scope) == user
    settings.SECRET_KEY = "later"
    assert isinstance(await get_user(scope), AnonymousUser)


@database
async def test_a_session_of_a_key_that_fell_out_is_flushed(scope: Scope, settings: Any) -> None:
    settings.SECRET_KEY = "before"
    await login(scope, await make_user())
    settings.SECRET_KEY = "after"
    settings.SECRET_KEY_FALLBACKS = ["another"]
    assert isinstance(await get_user(scope), AnonymousUser)
    assert scope["session"].is_empty()


@database
@pytest.mark.parametrize("event", ["logout", "deactivation", "expiry", "nothing"])
async def test_a_long_connection_asks_again(event: str) -> None:
    user = await make_user()
    store = SessionStore()
    await login({"type": "http", "session": store}, user)
    await store.asave()

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["user"] == user
        if event == "logout":
            await logout({"session": SessionStore(store.session_key)})
        elif event == "deactivation":
            user.is_active = False
            await user.asave()
        elif event == "expiry":
            await Session.objects.aupdate(expire_date=datetime(2000, 1, 1, tzinfo=UTC))
        again = await get_user(scope)
        assert again == (user if event == "nothing" else AnonymousUser())

    scope: Scope = {
        "type": "websocket",
        "headers": [(b"cookie", f"sessionid={store.session_key}".encode())],
    }
    await call(AuthMiddlewareStack(application), scope)


class Meeting(ModelBackend):
    """Looks a user up once another connection does the same."""

    barrier = threading.Barrier(2)

    def get_user(self, user_id: Any) -> Any:
        self.barrier.wait(10)
        return AnonymousUser()


async def test_under_our_server_users_are_looked_up_in_parallel(settings: Any) -> None:
    settings.AUTHENTICATION_BACKENDS = [f"{__name__}.Meeting"]
    session = signed_cookies.SessionStore()
    session.update({SESSION_KEY: "1", BACKEND_SESSION_KEY: f"{__name__}.Meeting"})
    session.save()
    scope: Scope = {
        "type": "websocket",
        "headers": [(b"cookie", f"sessionid={session.session_key}".encode())],
        "extensions": {DOOR: None},
    }
    settings.SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"
    stack = AuthMiddlewareStack(Recorder())
    await asyncio.gather(call(stack, scope), call(stack, scope))
    assert not Meeting.barrier.broken


@database
async def test_connections_do_not_see_each_others_users(settings: Any) -> None:
    """Two users, a thousand connections each, all opened together under one stack."""
    settings.SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"
    cookies = {}
    for name in ("ada", "bob"):
        session = signed_cookies.SessionStore()
        await login({"type": "http", "session": session}, await make_user(name))
        session.save()
        cookies[name] = f"sessionid={session.session_key}".encode()

    async def whoami(scope: Scope, receive: Receive, send: Send) -> None:
        before = scope["user"].username
        await asyncio.sleep(0)
        await send({"type": "websocket.send", "text": before})
        assert scope["user"].username == before

    stack = AuthMiddlewareStack(whoami)

    async def connect(name: str) -> None:
        sent = await call(stack, {"type": "websocket", "headers": [(b"cookie", cookies[name])]})
        assert sent == [{"type": "websocket.send", "text": name}]

    for _ in range(20):
        await asyncio.gather(*(connect(name) for _ in range(50) for name in cookies))


# login -----------------------------------------------------------------------


@database
async def test_login(scope: Scope, logins: Signals) -> None:
    user = await make_user()
    await login(scope, user)
    session = scope["session"]
    assert session[SESSION_KEY] == str(user.pk)
    assert session[BACKEND_SESSION_KEY] == MODEL
    assert session[HASH_SESSION_KEY] == user.get_session_auth_hash()
    assert scope["user"] is user
    assert logins.seen == [(user, None)]
    await user.arefresh_from_db()
    assert user.last_login is not None


@database
async def test_login_is_not_saved_by_itself(scope: Scope) -> None:
    await login(scope, await make_user())
    stored = SessionStore(scope["session"].session_key)
    assert await stored.aget(SESSION_KEY) is None
    assert scope["session"].modified


@database
async def test_login_keeps_data_under_a_new_key(scope: Scope) -> None:
    scope["type"] = "http"
    session = scope["session"]
    session["cart"] = [1, 2]
    await session.asave()
    before = session.session_key
    await login(scope, await make_user())
    assert session["cart"] == [1, 2]
    assert session.session_key != before
    assert not await session.aexists(before)


@database
async def test_login_again_keeps_key_and_data(scope: Scope) -> None:
    user = await make_user()
    session = scope["session"]
    await login(scope, user)
    session["cart"] = [1, 2]
    await session.asave()
    before = session.session_key
    await login(scope, user)
    assert session.session_key == before
    assert session["cart"] == [1, 2]


@database
async def test_login_of_another_user_inherits_nothing(scope: Scope) -> None:
    session = scope["session"]
    await login(scope, await make_user("ada"))
    session["cart"] = [1, 2]
    await session.asave()
    before = session.session_key
    bob = await make_user("bob")
    await login(scope, bob)
    assert session.session_key != before
    assert "cart" not in session
    assert await get_user(scope) == bob


@database
async def test_login_after_a_new_password_inherits_nothing(scope: Scope) -> None:
    user = await make_user()
    await login(scope, user)
    scope["session"]["cart"] = [1, 2]
    user.set_password("another")
    await user.asave()
    await login(scope, user)
    assert "cart" not in scope["session"]


@database
async def test_login_takes_the_scopes_user(scope: Scope) -> None:
    scope["user"] = await make_user()
    await login(scope, None)
    assert await get_user(scope) == scope["user"]


async def test_login_without_a_user(scope: Scope) -> None:
    expected = "^User must be passed as an argument or must be present in the scope.$"
    with pytest.raises(ValueError, match=expected):
        await login(scope, None)


@database
async def test_login_with_several_backends(scope: Scope, settings: Any) -> None:
    settings.AUTHENTICATION_BACKENDS = [MODEL, OTHER]
    user = await make_user()
    with pytest.raises(ValueError, match="multiple") as refused:
        await login(scope, user)
    assert str(refused.value) == (
        "You have multiple authentication backends configured and therefore must provide the "
        "`backend` argument or set the `backend` attribute on the user."
    )
    assert "user" not in scope
    assert scope["session"].session_key is None
    await login(scope, user, backend=OTHER)
    assert scope["session"][BACKEND_SESSION_KEY] == OTHER
    user.backend = MODEL
    await login(scope, user)
    assert scope["session"][BACKEND_SESSION_KEY] == MODEL
    with pytest.raises(TypeError, match="dotted import path"):
        await login(scope, user, backend=object)  # type: ignore[arg-type]


# logout ----------------------------------------------------------------------


@database
async def test_logout(scope: Scope, logouts: Signals) -> None:
    user = await make_user()
    await login(scope, user)
    session = scope["session"]
    await session.asave()
    key = session.session_key
    await logout(scope)
    assert logouts.seen == [(user, None)]
    assert isinstance(scope["user"], AnonymousUser)
    assert session.is_empty()
    assert not await session.aexists(key)
    assert isinstance(await get_user(scope), AnonymousUser)


@database
@pytest.mark.parametrize("user", [None, AnonymousUser()])
async def test_logout_of_nobody_tells_nobody(
    scope: Scope, logouts: Signals, user: AnonymousUser | None
) -> None:
    if user is not None:
        scope["user"] = user
    scope["session"]["cart"] = [1, 2]
    await logout(scope)
    assert logouts.seen == []
    assert ("user" in scope) is (user is not None)
    assert "cart" not in scope["session"]


@database
async def test_the_key_in_the_session_has_the_models_type(scope: Scope) -> None:
    user = await make_user()
    await login(scope, user)
    assert await sync_to_async(auth._get_user_session_key)(scope["session"]) == user.pk
    with pytest.raises(KeyError):
        auth._get_user_session_key(SessionStore())


# Middleware ------------------------------------------------------------------


def test_a_user_before_its_time() -> None:
    with pytest.raises(ValueError, match=r"^Accessing scope user before it is ready\.$"):
        UserLazyObject().username  # noqa: B018


async def test_the_given_scope_is_left_alone(scope: Scope) -> None:
    recorder = Recorder()
    before = dict(scope)
    await call(AuthMiddleware(recorder), scope)
    assert isinstance(recorder.scope["user"]._wrapped, AnonymousUser)
    assert scope == before


async def test_middleware_needs_a_session() -> None:
    with pytest.raises(ValueError, match="AuthMiddleware cannot find session in scope"):
        await call(AuthMiddleware(Recorder()), {"type": "websocket"})


@database
async def test_the_stack_finds_the_user() -> None:
    user = await make_user()
    logged_in: Scope = {"type": "http", "session": SessionStore()}
    await login(logged_in, user)
    await logged_in["session"].asave()
    cookie = f"sessionid={logged_in['session'].session_key}".encode()
    recorder = Recorder()
    scope: Scope = {"type": "websocket", "headers": [(b"cookie", cookie)]}
    await call(AuthMiddlewareStack(AuthMiddlewareStack(recorder)), scope)
    assert recorder.scope["user"] == user
    assert recorder.scope["user"].username == "ada"
    assert "user" not in scope


async def test_the_inner_of_two_stacks_looks_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Scope] = []

    async def once(scope: Scope) -> Any:
        asked.append(scope)
        return AnonymousUser()

    monkeypatch.setattr(auth, "get_user", once)
    stack = AuthMiddlewareStack(AuthMiddlewareStack(Recorder()))
    await call(stack, {"type": "websocket", "headers": []})
    assert len(asked) == 1


async def test_the_stack_without_a_cookie() -> None:
    recorder = Recorder()
    await call(AuthMiddlewareStack(recorder), {"type": "websocket", "headers": []})
    assert recorder.scope["user"].is_anonymous
    assert isinstance(recorder.scope["user"], AnonymousUser)


async def test_a_user_of_other_middleware_stays(
    scope: Scope, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth, "get_user", never)
    scope["user"] = user = AnonymousUser()
    recorder = Recorder()
    await call(AuthMiddleware(recorder), scope)
    assert recorder.scope["user"] is user
    assert not hasattr(user, "_wrapped")


async def test_a_subclass_finds_users_in_its_own_way(scope: Scope) -> None:
    class ByToken(AuthMiddleware):
        async def resolve_scope(self, scope: Scope) -> None:
            scope["user"]._wrapped = "the token's user"

    recorder = Recorder()
    await call(ByToken(recorder), scope)
    assert recorder.scope["user"] == "the token's user"


async def test_a_two_step_subclass_still_finds_users(scope: Scope) -> None:
    class Counting(AuthMiddleware):
        def __call__(self, scope: Scope) -> Any:  # type: ignore[override]
            return super().__call__(dict(scope, counted=True))

    recorder = Recorder()
    await call(single_callable(Counting(recorder)), scope)
    assert recorder.scope["counted"]
    assert isinstance(recorder.scope["user"], AnonymousUser)


# login and logout where no cookie can follow ------------------------------------


@database
@pytest.mark.parametrize("owner", [None, "bob"])
async def test_login_over_a_websocket_leaves_the_stored_session_alone(owner: str | None) -> None:
    """Whoever planted its key in the browser is not logged in, and the browser loses nothing."""
    store = SessionStore()
    store["cart"] = [1, 2]
    if owner is not None:
        await login({"type": "http", "session": store}, await make_user(owner))
    await store.asave()
    before = await stored(store.session_key)
    user = await make_user("ada")

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await login(scope, user)
        assert scope["user"] is user
        assert await get_user(scope) == user
        session = scope["session"]
        assert session.session_key is None
        assert session.get("cart") == (None if owner else [1, 2])
        await logout(scope)

    headers = [(b"cookie", f"sessionid={store.session_key}".encode())]
    await call(AuthMiddlewareStack(application), {"type": "websocket", "headers": headers})
    assert await stored(store.session_key) == before
    assert await Session.objects.acount() == 1


@database
async def test_login_over_a_websocket_stores_no_session_that_no_cookie_finds() -> None:
    user = await make_user()
    keys: list[str] = []

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await login(scope, user)
        await save_if_modified(scope)
        assert not await Session.objects.aexists()
        # What a consumer saves itself is stored, and it may tell its client the key.
        await scope["session"].asave()
        keys.append(scope["session"].session_key)

    await call(AuthMiddlewareStack(application), {"type": "websocket", "headers": []})
    assert await get_user({"session": SessionStore(keys[0])}) == user


@database
async def test_login_after_the_response_began_leaves_the_stored_session_alone() -> None:
    store = SessionStore()
    store["cart"] = [1, 2]
    await store.asave()
    user = await make_user()

    async def late(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200})
        await login(scope, user)
        assert await get_user(scope) == user

    headers = [(b"cookie", f"sessionid={store.session_key}".encode())]
    await call(AuthMiddlewareStack(late), {"type": "http", "headers": headers})
    assert await stored(store.session_key) == {"cart": [1, 2]}
    assert await Session.objects.acount() == 1


class Desk(AsyncWebsocketConsumer):
    """Logs in and out over a WebSocket."""

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        if text_data == "login":
            model: Any = get_user_model()
            await login(self.scope, await model.objects.aget(username="ada"))
        elif text_data == "logout":
            await logout(self.scope)
        elif text_data == "write":
            self.scope["session"]["seed"] = 7
        await self.send(text_data=self.scope["user"].username)


class Page(AsyncHttpConsumer):
    """Logs in over HTTP, and says who is logged in and what the cart holds."""

    async def handle(self, body: bytes) -> None:
        if body == b"login":
            model: Any = get_user_model()
            await login(self.scope, await model.objects.aget(username="ada"))
        elif body:
            self.scope["session"]["cart"] = body.decode()
        session = self.scope["session"]
        said = f"{self.scope['user'].username}:{session.get('cart', '')}:{session.get('seed', '')}"
        await self.send_response(200, said.encode())


@database
async def test_a_browser_keeps_its_session_whatever_its_sockets_do() -> None:
    await make_user()
    application = ProtocolTypeRouter(
        {
            "http": AuthMiddlewareStack(Page.as_asgi()),
            "websocket": AuthMiddlewareStack(Desk.as_asgi()),
        }
    )
    async with (
        serving(application) as host,
        httpx.AsyncClient(base_url=f"http://{host}") as browser,
    ):

        async def over_a_socket(*texts: str) -> list[str | bytes]:
            cookies = "; ".join(f"{each.name}={each.value}" for each in browser.cookies.jar)
            headers = {"Cookie": cookies} if cookies else {}
            async with websockets.connect(f"ws://{host}/", additional_headers=headers) as socket:
                answers = []
                for text in texts:
                    await socket.send(text)
                    answers.append(await socket.recv())
                return answers

        assert await over_a_socket("write", "login") == ["", "ada"]
        assert not await Session.objects.aexists()

        assert (await browser.post("/", content=b"book")).text == ":book:"
        assert await over_a_socket("login", "write") == ["ada", "ada"]
        assert (await browser.get("/")).text == ":book:"

        planted = browser.cookies["sessionid"]
        answer = await browser.post("/", content=b"login")
        assert answer.text == "ada:book:"
        assert answer.headers["vary"] == "Cookie"
        assert browser.cookies["sessionid"] != planted
        assert await over_a_socket("login", "write") == ["ada", "ada"]
        assert (await browser.get("/")).text == "ada:book:7"

        assert await over_a_socket("logout", "write") == ["", ""]
        assert (await browser.get("/")).text == "::"
        assert not await Session.objects.aexists()
