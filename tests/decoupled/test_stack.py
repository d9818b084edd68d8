"""What stands before a consumer works in a worker: sessions and users from the client's cookie."""

from __future__ import annotations

from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth import get_user_model
from django.contrib.sessions.backends.db import SessionStore

from channels.auth import AuthMiddlewareStack, login
from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from tests.decoupled.house import house
from tests.server.shell import dial, text

pytestmark = [pytest.mark.usefixtures("link"), pytest.mark.django_db(transaction=True)]


class Whoami(AsyncWebsocketConsumer):
    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        session = self.scope["session"]
        session["said"] = [*session.get("said", ()), text_data]
        await database_sync_to_async(session.save)()
        await self.send(f"{self.scope['user'].username} {session['said']}")


class SyncWhoami(WebsocketConsumer):
    def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        session = self.scope["session"]
        session["said"] = [*session.get("said", ()), text_data]
        session.save()
        self.send(f"{self.scope['user'].username} {session['said']}")


@pytest.mark.parametrize("consumer", [Whoami, SyncWhoami])
async def test_a_worker_s_consumer_knows_the_user_and_keeps_the_session(consumer: Any) -> None:
    user = await sync_to_async(get_user_model().objects.create_user)("ada")
    store = SessionStore()
    await login({"type": "http", "session": store}, user)
    await sync_to_async(store.save)()
    cookie = f"Cookie: sessionid={store.session_key}"
    async with house() as here:
        await here.start_worker(AuthMiddlewareStack(consumer.as_asgi()))
        for said in (["one"], ["one", "two"]):
            async with dial(here.shell, cookie) as client:
                client.send(text(said[-1]))
                assert await client.read_frame() == (0x81, f"ada {said}".encode())
        async with dial(here.shell) as client:
            client.send(text("anon"))
            assert await client.read_frame() == (0x81, b" ['anon']")
