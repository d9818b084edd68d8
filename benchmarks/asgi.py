"""The application that is measured: public names only, so that it runs under any Channels."""

from __future__ import annotations

import json
from typing import Any

from django.urls import re_path

from channels.generic.websocket import AsyncWebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter


class TutorialConsumer(AsyncWebsocketConsumer):
    """The chat of the tutorial: each recipient's own handler encodes its own JSON."""

    async def connect(self) -> None:
        self.group = f"chat_{self.scope['url_route']['kwargs']['room']}"
        await self.channel_layer.group_add(self.group, self.channel_name)
        await self.accept()

    async def disconnect(self, code: int) -> None:
        await self.channel_layer.group_discard(self.group, self.channel_name)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        message = json.loads(text_data or "")["message"]
        await self.channel_layer.group_send(
            self.group, {"type": "chat.message", "message": message}
        )

    async def chat_message(self, event: dict[str, Any]) -> None:
        await self.send(text_data=json.dumps({"message": event["message"]}))


class BroadcastConsumer(TutorialConsumer):
    """The same chat on the direct road: the group's message is already what clients get."""

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        message = json.loads(text_data or "")["message"]
        await self.channel_layer.group_send(
            self.group, {"type": "websocket.send", "text": json.dumps({"message": message})}
        )


class EchoConsumer(AsyncWebsocketConsumer):
    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self.send(text_data=text_data, bytes_data=bytes_data)


async def hello(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """A plain request, past Django: what the server itself costs."""
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"13")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"Hello, world!"})


application = ProtocolTypeRouter(
    {
        "http": hello,
        "websocket": URLRouter(
            [
                re_path(r"^ws/chat/(?P<room>\w+)/$", TutorialConsumer.as_asgi()),
                re_path(r"^ws/broadcast/(?P<room>\w+)/$", BroadcastConsumer.as_asgi()),
                re_path(r"^ws/echo/$", EchoConsumer.as_asgi()),
            ]
        ),
    }
)
