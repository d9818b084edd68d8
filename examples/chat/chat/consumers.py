"""One browser window in one room."""

import hashlib
from typing import Any
from urllib.parse import parse_qs

from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncJsonWebsocketConsumer
from channels.layers import broadcast
from django.db import IntegrityError

from chat import history, protocol
from chat.models import Room
from chat.protocol import Ping, Post, Refused
from chat.rate import Allowance

#: Refusals after which a connection is closed; a page of ours does not come near it.
MOST_REFUSALS = 30

find_room = database_sync_to_async(history.find_room)
missed_since = database_sync_to_async(history.missed_since)
keep = database_sync_to_async(history.keep)
belongs_to_a_member = database_sync_to_async(history.belongs_to_a_member)


def session_group(session_key: str) -> str:
    """The group of all windows of one signed-in browser; the key itself stays secret."""
    return f"session.{hashlib.sha256(session_key.encode()).hexdigest()[:32]}"


class RoomConsumer(AsyncJsonWebsocketConsumer):
    room: Room | None = None
    #: The name of the signed-in user, None for a guest.
    user: str | None = None

    async def connect(self) -> None:
        self.allowance = Allowance()
        self.refusals = 0
        self.joined: list[str] = []
        self.free_handle = ""

        self.room = await find_room(self.scope["url_route"]["kwargs"]["label"])
        if self.room is None:
            # Accepted first: a refused handshake looks to a browser like a server that is down.
            await self.accept()
            await self.close(protocol.NO_SUCH_ROOM, "There is no such room.")
            return
        if self.scope["user"].is_authenticated:
            self.user = self.scope["user"].get_username()
            await self.join(session_group(self.scope["session"].session_key))
        # First in the group, then the history: what comes in between arrives twice, never not.
        await self.join(self.room.group)
        missed = await missed_since(self.room, self.last_seen())
        await self.accept()
        await self.send_json(
            protocol.welcome_event(self.user, missed.messages, is_complete=missed.is_complete)
        )

    async def disconnect(self, code: int) -> None:
        for group in self.joined:
            await self.channel_layer.group_discard(group, self.channel_name)

    async def receive(
        self, text_data: str | None = None, bytes_data: bytes | None = None, **kwargs: Any
    ) -> None:
        try:
            request = protocol.parse(text_data)
            key = str(request.key) if isinstance(request, Post) else None
            wait = self.allowance.take()
            if wait:
                raise Refused("too_fast", "Too many messages at once: wait a moment.", key, wait)
            if isinstance(request, Ping):
                await self.send_json({"type": "pong"})
            else:
                await self.post(request)
        except Refused as refusal:
            await self.refuse(refusal)

    async def post(self, post: Post) -> None:
        """Keep a post and show it to the room, once, however often it is sent."""
        handle = self.user or await self.guest_handle(post)
        try:
            message, is_new = await keep(self.room, handle, post)
        except IntegrityError:
            await self.close(protocol.NO_SUCH_ROOM, "The room has been deleted.")
            return
        if message.room_id != self.room.pk:
            raise Refused("bad_request", "This key belongs to a post elsewhere.", str(post.key))
        if is_new:
            await broadcast(self.room.group, json=protocol.message_event(message))
        else:
            await self.send_json(protocol.message_event(message))

    async def guest_handle(self, post: Post) -> str:
        """The name a guest chose, unless it is empty, too long, or that of someone signed up."""
        protocol.check_handle(post.handle, str(post.key))
        if post.handle != self.free_handle:
            if await belongs_to_a_member(post.handle):
                raise Refused(
                    "bad_handle",
                    f"{post.handle} is a member's name: sign in, or choose another.",
                    str(post.key),
                )
            self.free_handle = post.handle
        return post.handle

    async def refuse(self, refusal: Refused) -> None:
        self.refusals += 1
        await self.send_json(refusal.as_event())
        if self.refusals >= MOST_REFUSALS:
            await self.close(protocol.MISBEHAVED, "Too many refused requests.")

    async def signed_out(self, event: dict[str, Any]) -> None:
        await self.close(protocol.SIGNED_OUT, "You have signed out.")

    async def room_deleted(self, event: dict[str, Any]) -> None:
        await self.close(protocol.NO_SUCH_ROOM, "The room has been deleted.")

    async def join(self, group: str) -> None:
        await self.channel_layer.group_add(group, self.channel_name)
        self.joined.append(group)

    def last_seen(self) -> int:
        """The number of the last message that the window has, by its `?after=`."""
        after = parse_qs(self.scope["query_string"].decode("latin-1")).get("after", ["0"])[0]
        return int(after) if after.isascii() and after.isdecimal() and len(after) < 19 else 0
