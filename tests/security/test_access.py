"""Sockets of users who have logged out, or may no longer be here, are closed; no others are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import websockets
from asgiref.sync import sync_to_async
from django.conf import settings as django_settings
from django.contrib.auth import alogout, get_user_model, login
from django.contrib.auth.models import Group
from django.contrib.sessions.backends.db import SessionStore
from django.db import transaction
from django.http import HttpRequest

from channels import auth
from channels.auth import AuthMiddlewareStack
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.kit.types import Receive, Scope, Send
from channels.layers import get_channel_layer
from channels.security.access import AccessMiddleware, end_access, recheck_access
from channels.security.access_register import Register, digest_of
from tests.applications import serving

pytestmark = pytest.mark.django_db(transaction=True)

PATIENCE = 5


@pytest.fixture(autouse=True)
def cheap(settings: Any) -> None:
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture(params=["a layer", "no layer"], autouse=True)
def layers(request: Any, settings: Any) -> None:
    memory = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
    settings.CHANNEL_LAYERS = memory if request.param == "a layer" else {}


class Echo(AsyncWebsocketConsumer):
    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        if text_data == "log out":
            await auth.logout(self.scope)
        await self.send(text_data=text_data)


@sync_to_async
def signed_in(name: str) -> tuple[Any, Any]:
    """A user of this name, and the key of a session of theirs."""
    users = get_user_model()
    user = users.objects.filter(username=name).first() or users.objects.create_user(name)
    request = HttpRequest()
    request.session = SessionStore()
    login(request, user, "django.contrib.auth.backends.ModelBackend")
    request.session.save()
    return user, request.session.session_key


@asynccontextmanager
async def site(**options: Any) -> AsyncIterator[Callable[[str], Any]]:
    """A site; gives what connects to it with the key of a session."""
    async with serving(AuthMiddlewareStack(AccessMiddleware(Echo.as_asgi(), **options))) as place:

        def connect(key: str) -> Any:
            cookie = {"Cookie": f"{django_settings.SESSION_COOKIE_NAME}={key}"}
            return websockets.connect(f"ws://{place}/", additional_headers=cookie)

        yield connect


async def closed_with(client: Any) -> int:
    async with asyncio.timeout(PATIENCE):
        await client.wait_closed()
    return int(client.close_code)


async def is_served(client: Any) -> bool:
    async with asyncio.timeout(PATIENCE):
        await client.send("hello")
        return bool(await client.recv() == "hello")


async def test_a_log_out_closes_the_sockets_of_its_session_alone() -> None:
    user, one = await signed_in("ann")
    (_, other), (_, stranger) = await signed_in("ann"), await signed_in("bob")
    async with (
        site() as connect,
        connect(one) as first,
        connect(one) as second,
        connect(other) as third,
        connect(stranger) as fourth,
    ):
        request = HttpRequest()
        request.session, request.user = SessionStore(one), user
        await alogout(request)
        assert await closed_with(first) == await closed_with(second) == 4401
        assert await is_served(third)
        assert await is_served(fourth)


async def test_a_log_out_over_a_socket_closes_it_and_the_others() -> None:
    _, key = await signed_in("ann")
    async with site() as connect, connect(key) as one, connect(key) as other:
        await one.send("log out")
        assert await closed_with(one) == await closed_with(other) == 4401


def change_password(user: Any, key: str) -> None:
    user.set_password("new")
    user.save()


def deactivate(user: Any, key: str) -> None:
    user.is_active = False
    user.save(update_fields=["is_active"])


def delete_user(user: Any, key: str) -> None:
    user.delete()


def delete_session(user: Any, key: str) -> None:
    SessionStore(key).delete()


def end_by_hand(user: Any, key: str) -> None:
    end_access(user=user)


def end_session_by_hand(user: Any, key: str) -> None:
    end_access(session_key=key)


@pytest.mark.parametrize(
    "change",
    [
        change_password,
        deactivate,
        delete_user,
        delete_session,
        end_by_hand,
        end_session_by_hand,
    ],
)
async def test_what_ends_access(change: Callable[[Any, str], None]) -> None:
    (user, key), (_, stranger) = await signed_in("ann"), await signed_in("bob")
    async with site(code=4403) as connect, connect(key) as client, connect(stranger) as other:
        await sync_to_async(change)(user, key)
        assert await closed_with(client) == 4403
        assert await is_served(other)


async def test_what_ends_no_access() -> None:
    user, key = await signed_in("ann")
    async with site() as connect, connect(key) as client:

        @sync_to_async
        def change() -> None:
            user.first_name = "Ann"
            user.save()
            user.save(update_fields=["last_login"])
            with transaction.atomic():
                end_access(user=user)
                transaction.set_rollback(True)

        await change()
        assert await is_served(client)
        # Checks run in order: once this one has ended it, those before have left it alone.
        await sync_to_async(user.delete)()
        assert await closed_with(client) == 4401


async def test_the_sites_own_rule() -> None:
    banned: set[str] = set()

    def may_stay(scope: Scope) -> bool:
        return scope["user"].get_username() not in banned

    (user, key), (other, second) = await signed_in("ann"), await signed_in("bob")
    async with site(may_stay=may_stay) as connect, connect(key) as one, connect(second) as two:
        banned.add("ann")
        await sync_to_async(recheck_access)(other)
        await sync_to_async(recheck_access)(user)
        assert await closed_with(one) == 4401
        assert await is_served(two)


def leave_group(user: Any, group: Any) -> None:
    user.groups.remove(group)


def be_left_by_group(user: Any, group: Any) -> None:
    group.user_set.remove(user)


def clear_group(user: Any, group: Any) -> None:
    group.user_set.clear()


@pytest.mark.parametrize("change", [leave_group, be_left_by_group, clear_group])
async def test_who_loses_a_group_loses_what_it_permits(
    change: Callable[[Any, Any], None],
) -> None:
    def may_stay(scope: Scope) -> bool:
        return bool(scope["user"].groups.filter(name="readers").exists())

    (ann, key), (bob, _) = await signed_in("ann"), await signed_in("bob")
    readers = await Group.objects.acreate(name="readers")
    others = await Group.objects.acreate(name="others")
    await readers.user_set.aadd(ann)
    await others.user_set.aadd(bob, ann)
    async with site(may_stay=may_stay) as connect, connect(key) as one:
        await sync_to_async(change)(ann, others)
        assert await is_served(one)
        await sync_to_async(change)(ann, readers)
        assert await closed_with(one) == 4401


async def test_time_finds_what_nobody_has_told_of() -> None:
    user, key = await signed_in("ann")
    async with site(recheck_seconds=0.05) as connect, connect(key) as client:
        assert await is_served(client)
        await get_user_model().objects.filter(pk=user.pk).aupdate(is_active=False)
        assert await closed_with(client) == 4401


async def test_a_socket_that_opens_while_its_user_logs_out_is_refused() -> None:
    _, key = await signed_in("ann")
    opening, goes_on = asyncio.Event(), asyncio.Event()
    guarded = AccessMiddleware(Echo.as_asgi())

    async def late(scope: Scope, receive: Receive, send: Send) -> None:
        # Its user has been looked up; now time passes.
        opening.set()
        await goes_on.wait()
        await guarded(scope, receive, send)

    _, other = await signed_in("bob")
    async with (
        site() as connect,
        connect(other),
        serving(AuthMiddlewareStack(late)) as place,
    ):
        cookie = {"Cookie": f"{django_settings.SESSION_COOKIE_NAME}={key}"}
        client = websockets.connect(f"ws://{place}/", additional_headers=cookie)
        task = asyncio.ensure_future(client.__aenter__())
        await asyncio.wait_for(opening.wait(), PATIENCE)
        await sync_to_async(end_access)(session_key=key)
        goes_on.set()
        with pytest.raises(websockets.InvalidStatus, match="403"):
            await asyncio.wait_for(task, PATIENCE)


async def test_how_many_sockets_a_user_may_have() -> None:
    (_, key), (_, stranger) = await signed_in("ann"), await signed_in("bob")
    async with site(max_websockets_per_user=2) as connect:
        async with connect(key) as one, connect(key) as two:
            with pytest.raises(websockets.InvalidStatus) as refused:
                await connect(key).__aenter__()
            answer = refused.value.response
            assert (answer.status_code, answer.headers["Retry-After"]) == (429, "10")
            assert b"its user has 2 WebSockets" in (answer.body or b"")
            async with connect(stranger) as other:
                assert await is_served(other)
            assert await is_served(one)
            assert await is_served(two)
        async with connect(key) as three:
            assert await is_served(three)


async def test_anonymous_sockets_and_pages_pass() -> None:
    async with site() as connect, connect("none") as client:
        assert await is_served(client)
        assert not Register.of_running_loop()._by_user


async def test_nothing_is_kept_of_sockets_that_have_gone() -> None:
    _, key = await signed_in("ann")
    async with site() as connect, connect(key) as client:
        assert await is_served(client)
        register = Register.of_running_loop()
        assert list(register._by_session) == [digest_of(key)]
    assert not register._by_user
    assert not register._by_session


async def test_a_broker_that_is_away_does_not_fail_a_log_out(
    monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    settings.CHANNEL_LAYERS = {
        "default": {
            "BACKEND": "channels.layers.RedisChannelLayer",
            "CONFIG": {"hosts": ["redis://127.0.0.1:1"], "send_timeout": 0.05},
        }
    }
    AccessMiddleware(Echo.as_asgi())
    user, key = await signed_in("ann")
    request = HttpRequest()
    request.session, request.user = SessionStore(key), user
    await alogout(request)
    assert not await sync_to_async(SessionStore(key).exists)(key)
    # Else it would go on trying to reconnect, beside the tests that come after.
    await get_channel_layer().close()


def test_mistakes_say_what_was_found() -> None:
    with pytest.raises(ValueError, match="code=1000: expected a close code from 3000 to 4999"):
        AccessMiddleware(Echo.as_asgi(), code=1000)
    with pytest.raises(ValueError, match="recheck_seconds=0"):
        AccessMiddleware(Echo.as_asgi(), recheck_seconds=0)
    with pytest.raises(ValueError, match="max_websockets_per_user=0"):
        AccessMiddleware(Echo.as_asgi(), max_websockets_per_user=0)
    with pytest.raises(TypeError, match=r"<lambda> cannot be called with \(scope\)"):
        AccessMiddleware(Echo.as_asgi(), may_stay=lambda: True)  # type: ignore[arg-type,misc]
    with pytest.raises(TypeError, match="either a user or a session_key"):
        end_access()


async def test_without_a_user_in_scope() -> None:
    with pytest.raises(ValueError, match="put AuthMiddleware around it"):
        await AccessMiddleware(Echo.as_asgi())({"type": "websocket"}, None, None)  # type: ignore[arg-type]
