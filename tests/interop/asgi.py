"""The chat that runs under every server: groups, users, sessions, events, and a long memory."""

from __future__ import annotations

import json
from typing import Any

from django.core.asgi import get_asgi_application
from django.urls import path, re_path

from channels.auth import AuthMiddlewareStack
from channels.generic.http import AsyncHttpConsumer
from channels.generic.websocket import (
    AsyncJsonWebsocketConsumer,
    AsyncWebsocketConsumer,
    WebsocketConsumer,
)
from channels.layers import get_channel_layer
from channels.routing import ProtocolTypeRouter, URLRouter

#: The codes that consumers were told when their clients went, in order.
farewells: list[int] = []


class ChatConsumer(AsyncJsonWebsocketConsumer):
    """A room: says who speaks, keeps the visited rooms in the session."""

    async def connect(self) -> None:
        self.room = self.scope["url_route"]["kwargs"]["room"]
        await self.channel_layer.group_add(self.room, self.channel_name)
        self.scope["session"]["rooms"] = [*self.scope["session"].get("rooms", []), self.room]
        await self.accept()
        await self.send_json({"you are": str(self.scope["user"])})

    async def receive_json(self, content: Any, **kwargs: Any) -> None:
        if content.get("direct"):
            text = json.dumps({"direct": content["direct"]})
            await self.channel_layer.group_send(self.room, {"type": "websocket.send", "text": text})
            return
        said = {"type": "chat.message", "text": content["text"], "by": str(self.scope["user"])}
        await self.channel_layer.group_send(self.room, said)

    async def chat_message(self, event: dict[str, Any]) -> None:
        await self.send_json({"by": event["by"], "text": event["text"]})

    async def disconnect(self, code: int) -> None:
        await self.channel_layer.group_discard(self.room, self.channel_name)


class SyncChatConsumer(WebsocketConsumer):
    """Sync code: its own thread, the same answers."""

    def connect(self) -> None:
        self.accept()
        self.send(text_data=self.scope["path"])

    def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        self.send(text_data=(text_data or "").upper())


class EchoConsumer(AsyncWebsocketConsumer):
    """An echo that obeys a few words, and remembers how its clients went."""

    async def connect(self) -> None:
        offered = self.scope["subprotocols"]
        await self.accept("chat.v2" if "chat.v2" in offered else None)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        if text_data == "raise":
            raise RuntimeError("as asked")
        if text_data == "close":
            await self.close(code=4321, reason="as asked")
        else:
            await self.send(text_data=text_data, bytes_data=bytes_data)

    async def disconnect(self, code: int) -> None:
        farewells.append(code)


class RefusingConsumer(AsyncWebsocketConsumer):
    async def connect(self) -> None:
        await self.close()


class FailingConsumer(AsyncWebsocketConsumer):
    async def connect(self) -> None:
        raise RuntimeError("as asked")


class HeaderConsumer(AsyncWebsocketConsumer):
    async def connect(self) -> None:
        await self.accept(headers=[(b"x-room", b"blue"), (b"set-cookie", b"seen=1")])
        await self.close(3001)


class EventsConsumer(AsyncHttpConsumer):
    """Server-sent events that go on where the client stopped."""

    async def handle(self, body: bytes) -> None:
        last = dict(self.scope["headers"]).get(b"last-event-id", b"0")
        await self.send_headers(headers=[(b"content-type", b"text/event-stream")])
        for number in range(int(last) + 1, 4):
            event = b"id: %d\ndata: event %d\n\n" % (number, number)
            await self.send_body(event, more_body=True)
        await self.send_body(b"")


class FarewellsConsumer(AsyncHttpConsumer):
    async def handle(self, body: bytes) -> None:
        await self.send_response(200, json.dumps(farewells).encode())


class PublishConsumer(AsyncHttpConsumer):
    """Speak in a room from outside, over plain HTTP."""

    async def handle(self, body: bytes) -> None:
        message = {"type": "chat.message", "text": body.decode(), "by": "outside"}
        await get_channel_layer().group_send(self.scope["url_route"]["kwargs"]["room"], message)
        await self.send_response(202, b"sent")


def route(pattern: str, target: Any, kind: Any = path) -> Any:
    """A route to an application: Django's stubs know views only."""
    return kind(pattern, target)


application = ProtocolTypeRouter(
    {
        "http": URLRouter(
            [
                route("events/", EventsConsumer.as_asgi()),
                route("farewells/", FarewellsConsumer.as_asgi()),
                route("publish/<room>/", PublishConsumer.as_asgi()),
                route("", get_asgi_application(), re_path),
            ]
        ),
        "websocket": AuthMiddlewareStack(
            URLRouter(
                [
                    route("ws/chat/<room>/", ChatConsumer.as_asgi()),
                    route("ws/sync/", SyncChatConsumer.as_asgi()),
                    route("ws/echo/", EchoConsumer.as_asgi()),
                    route("ws/refuse/", RefusingConsumer.as_asgi()),
                    route("ws/fail/", FailingConsumer.as_asgi()),
                    route("ws/headers/", HeaderConsumer.as_asgi()),
                ]
            )
        ),
    }
)
