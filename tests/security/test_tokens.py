"""Tokens and tickets let their user in, once or as long as they hold; all else is refused."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, ClassVar

import httpx
import pytest
import websockets
from asgiref.sync import sync_to_async
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AnonymousUser
from django.contrib.sessions.backends.db import SessionStore
from django.core.cache import cache
from django.core.exceptions import PermissionDenied

from channels.generic.websocket import AsyncWebsocketConsumer
from channels.kit.doors import find_sink
from channels.kit.types import Receive, Scope, Send
from channels.security.access import AccessMiddleware, end_access, recheck_access
from channels.security.tickets import issue_ticket
from channels.security.tokens import MAX_TOKEN_CHARACTERS, TokenAuthMiddleware, TokenUser
from tests.applications import serving
from tests.security.test_access import closed_with, is_served, signed_in

pytestmark = pytest.mark.django_db(transaction=True)

#: Token -> what the site says of it.
Tokens = dict[str, Any]


@pytest.fixture(autouse=True)
def clean(settings: Any) -> None:
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    settings.CHANNEL_LAYERS = {}
    cache.clear()


@pytest.fixture
async def user() -> Any:
    return (await signed_in("ann"))[0]


class Echo(AsyncWebsocketConsumer):
    scopes: ClassVar[list[Scope]] = []
    had_sink: ClassVar[list[bool]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any = None) -> None:
        self.scopes.append(scope)
        self.had_sink.append(find_sink(scope, send) is not None)
        await super().__call__(scope, receive, send)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        text = str(self.scope["user"]) if text_data == "who" else text_data
        await self.send(text_data=text)


@asynccontextmanager
async def site(tokens: Tokens | None = None, **options: Any) -> AsyncIterator[Callable[..., Any]]:
    """A site that knows these tokens; gives what connects to it."""
    Echo.scopes, Echo.had_sink = [], []

    async def authenticate(token: str, scope: Scope) -> Any:
        found = (tokens or {}).get(token)
        if isinstance(found, Exception):
            raise found
        return await get_user_model().objects.aget(pk=found) if isinstance(found, int) else found

    application = TokenAuthMiddleware(Echo.as_asgi(), authenticate, **options)
    async with serving(application) as place:

        def connect(path: str = "", token: str = "", **more: Any) -> Any:
            headers = {"Authorization": f"Bearer {token}"} if token else {}
            return websockets.connect(f"ws://{place}/{path}", additional_headers=headers, **more)

        yield connect


async def status_of(connecting: Any) -> int:
    with pytest.raises(websockets.InvalidStatus) as refused:
        await connecting.__aenter__()
    return int(refused.value.response.status_code)


async def who(client: Any) -> str:
    await client.send("who")
    return str(await asyncio.wait_for(client.recv(), 5))


@sync_to_async
def ticket_of(user: Any, **options: Any) -> str:
    return issue_ticket(user, **options)


async def test_a_token_in_the_header(user: Any) -> None:
    async with site({"good": user.pk}) as connect:
        async with connect(token="good") as client:
            assert await who(client) == "ann"
        async with connect() as client:
            assert await who(client) == "AnonymousUser"


@pytest.mark.parametrize(
    "answer", [None, PermissionDenied(), AnonymousUser()], ids=["None", "denied", "anonymous"]
)
async def test_a_token_that_is_refused(answer: Any) -> None:
    async with site({"bad": answer}) as connect:
        assert await status_of(connect(token="bad")) == 401
        assert await status_of(connect(token="x" * (MAX_TOKEN_CHARACTERS + 1))) == 401


async def test_the_token_of_a_user_who_is_not_active(user: Any) -> None:
    user.is_active = False
    await user.asave()
    async with site({"good": user.pk}) as connect:
        assert await status_of(connect(token="good")) == 401
        assert await status_of(connect(f"?ticket={await ticket_of(user)}")) == 401


async def test_pages_get_the_same_answer_and_the_user(user: Any) -> None:
    found: list[Any] = []

    async def page(scope: Scope, receive: Receive, send: Send) -> None:
        found.append(scope["user"])
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    async def authenticate(token: str, scope: Scope) -> Any:
        return user if token == "good" else None

    async with (
        serving(TokenAuthMiddleware(page, authenticate)) as place,
        httpx.AsyncClient(base_url=f"http://{place}") as client,
    ):
        assert (await client.get("/", headers={"Authorization": "bearer good"})).status_code == 204
        refused = await client.get("/", headers={"Authorization": "Bearer bad"})
        assert (refused.status_code, refused.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert found == [user]


async def test_a_token_in_the_subprotocol_is_never_agreed_to(user: Any) -> None:
    async with site({"good": user.pk}) as connect:
        async with connect(subprotocols=["chat", "bearer.good"]) as client:
            assert client.subprotocol == "chat"
            assert await who(client) == "ann"
        assert Echo.scopes[0]["subprotocols"] == ["chat"]
        # The layer's frames still take the short way.
        assert Echo.had_sink == [True]
        assert await status_of(connect(subprotocols=["bearer.good"])) == 400
        assert await status_of(connect(subprotocols=["chat", "bearer.bad"])) == 401


async def test_two_tokens_are_none(user: Any) -> None:
    async with site({"good": user.pk}) as connect:
        both = connect(token="good", subprotocols=["chat", "bearer.good"])
        assert await status_of(both) == 401
        assert await status_of(connect(f"?ticket={await ticket_of(user)}", token="good")) == 401


async def test_a_token_that_expires_ends_its_socket(user: Any) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=0.4)
    tokens = {"soon": TokenUser(user, soon), "old": (user, time.time() - 1), "good": user.pk}
    async with (
        site(tokens) as connect,
        connect(token="soon") as client,
        connect(token="good") as other,
    ):
        assert await is_served(client)
        assert await closed_with(client) == 4401
        assert await is_served(other)
        assert await status_of(connect(token="old")) == 401


async def test_what_ends_a_users_access_ends_a_tokens_socket(user: Any) -> None:
    tokens = {"one": user.pk}
    async with site(tokens) as connect, connect(token="one") as client:
        await sync_to_async(recheck_access)(user)
        assert await is_served(client)
        # Revoked: the site knows it no more.
        tokens.clear()
        await sync_to_async(recheck_access)(user)
        assert await closed_with(client) == 4401
        tokens["one"] = user.pk
        async with connect(token="one") as another:
            user.set_password("new")
            await user.asave()
            assert await closed_with(another) == 4401


async def test_a_session_of_another_user_has_no_say(user: Any) -> None:
    _, key = await signed_in("bob")
    checked: list[str] = []

    def may_stay(scope: Scope) -> bool:
        checked.append(scope["user"].get_username())
        return True

    async def authenticate(token: str, scope: Scope) -> Any:
        scope["session"] = SessionStore(key)
        return user

    guarded = AccessMiddleware(Echo.as_asgi(), may_stay=may_stay)
    async with serving(TokenAuthMiddleware(guarded, authenticate)) as place:
        header = {"Authorization": "Bearer x"}
        async with websockets.connect(f"ws://{place}/", additional_headers=header) as client:
            await sync_to_async(end_access)(session_key=key)
            await sync_to_async(recheck_access)(user)
            assert await is_served(client)
            # Checks run in order: once this one has ended it, that one has left it alone.
            await sync_to_async(user.delete)()
            assert await closed_with(client) == 4401
    assert set(checked) == {"ann"}


async def test_a_ticket_lets_in_once(user: Any, caplog: pytest.LogCaptureFixture) -> None:
    ticket = await ticket_of(user)
    async with site() as connect:
        async with connect(f"room/?after=1&ticket={ticket}") as client:
            assert await who(client) == "ann"
        assert await status_of(connect(f"?ticket={ticket}")) == 401
    assert ticket not in caplog.text


async def test_two_at_once_with_one_ticket(user: Any) -> None:
    ticket = await ticket_of(user)
    async with site() as connect:
        got = await asyncio.gather(
            *(connect(f"?ticket={ticket}").__aenter__() for _ in range(5)), return_exceptions=True
        )
        entered = [each for each in got if not isinstance(each, BaseException)]
        assert len(entered) == 1
        await entered[0].close()


async def test_tickets_that_are_refused(user: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    good, late = await ticket_of(user), await ticket_of(user, seconds=10)
    async with site() as connect:
        assert await status_of(connect("?ticket=")) == 401
        assert await status_of(connect(f"?ticket={good}x")) == 401
        assert await status_of(connect(f"?ticket={good}&ticket={good}")) == 401
        now = time.time()
        monkeypatch.setattr(time, "time", lambda: now + 11)
        assert await status_of(connect(f"?ticket={late}")) == 401
        monkeypatch.undo()
        user.set_password("new")
        await user.asave()
        assert await status_of(connect(f"?ticket={good}")) == 401
    async with (
        site(ticket_parameter=None) as connect,
        connect("?ticket=of-another-kind") as client,
    ):
        assert await who(client) == "AnonymousUser"


async def test_a_tickets_socket_ends_with_the_session_it_was_issued_in() -> None:
    user, key = await signed_in("ann")
    async with (
        site() as connect,
        connect(f"?ticket={await ticket_of(user, session_key=key)}") as client,
        connect(f"?ticket={await ticket_of(user)}") as other,
    ):
        await sync_to_async(SessionStore(key).delete)()
        assert await closed_with(client) == 4401
        assert await is_served(other)
        await sync_to_async(recheck_access)(user)
        assert await is_served(other)


def test_a_ticket_needs_no_escape(user: Any) -> None:
    assert not set(issue_ticket(user)) & set("&=+%#?/ ")


async def test_mistakes_say_what_was_found(user: Any, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(TypeError, match="authenticate='x': expected a function"):
        TokenAuthMiddleware(Echo.as_asgi(), "x")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"<lambda> cannot be called with \(token, scope\)"):
        TokenAuthMiddleware(Echo.as_asgi(), lambda token: None)  # type: ignore[arg-type,misc]
    with pytest.raises(TypeError, match="neither tokens nor tickets"):
        TokenAuthMiddleware(Echo.as_asgi(), ticket_parameter=None)
    with pytest.raises(TypeError, match="logged in: found"):
        issue_ticket(AnonymousUser())
    with pytest.raises(ValueError, match="seconds=0"):
        issue_ticket(user, seconds=0)
    async with site({"odd": "ann"}) as connect:
        assert await status_of(connect(token="odd")) == 500
    assert "authenticate returned a str: expected a user" in caplog.text


def by_row(users: Any, token: str, scope: Scope) -> Any:
    return users.objects.filter(username=token).first()


async def test_a_plain_function_may_use_the_database(user: Any) -> None:
    application = TokenAuthMiddleware(Echo.as_asgi(), partial(by_row, get_user_model()))
    async with serving(application) as place:
        header = {"Authorization": "Bearer ann"}
        async with websockets.connect(f"ws://{place}/", additional_headers=header) as client:
            assert await who(client) == "ann"
