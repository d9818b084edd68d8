"""One browser window in one room."""

import hashlib
import time
from typing import Any
from urllib.parse import parse_qs

from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncJsonWebsocketConsumer
from channels.layers import broadcast
from django.db import IntegrityError

from chat import history, protocol
from chat.models import Room
from chat.protocol import Name, Older, Ping, Post, Refused, Request
from chat.rate import Allowance

#: A connection is closed after this many refusals in a row.
MAX_REFUSALS = 30
#: Refusals per second that do not count: a page that waits as told gets at most two a second.
REFUSALS_FORGIVEN = 4.0

find_room = database_sync_to_async(history.find_room)
missed_since = database_sync_to_async(history.missed_since)
page_before = database_sync_to_async(history.page_before)
keep = database_sync_to_async(history.keep)
check_free = database_sync_to_async(history.check_free)


def session_group(session_key: str) -> str:
    """The group of all windows of one guest; hashed, since group names are no secret."""
    return f"session.{hashlib.sha256(session_key.encode()).hexdigest()[:32]}"


class RoomConsumer(AsyncJsonWebsocketConsumer):
    #: The clock of the rate limits, in seconds.
    clock = staticmethod(time.monotonic)
    room: Room | None = None
    #: The name of the signed-in user, None for a guest.
    user: str | None = None

    async def connect(self) -> None:
        self.allowance = Allowance(clock=self.clock)
        self.tolerance = Allowance(MAX_REFUSALS - 1, REFUSALS_FORGIVEN, self.clock)
        self.joined: list[str] = []

        self.room = await find_room(self.scope["url_route"]["kwargs"]["label"])
        if self.room is None:
            # Accepted first: a browser cannot tell a refused handshake from a server that is down.
            await self.accept()
            await self.close(protocol.NO_SUCH_ROOM, "There is no such room.")
            return
        if self.scope["user"].is_authenticated:
            # AccessMiddleware closes the windows of members.
            self.user = self.scope["user"].get_username()
        elif not await self.join_as_guest():
            await self.accept()
            await self.close(protocol.SIGNED_OUT, "You have signed in in another window.")
            return
        # Joins the group before it reads the history: a message sent in between arrives twice
        # instead of not at all.
        await self.join(self.room.group)
        missed = await missed_since(self.room, self.number("first"), self.number("after"))
        await self.accept()
        await self.send_json(
            protocol.welcome_event(
                self.user, missed.messages, is_complete=missed.is_complete, kept=missed.kept
            )
        )

    async def join_as_guest(self) -> bool:
        """Join the group that is told of a guest's sign-in; False if one was missed."""
        session = self.scope["session"]
        key = session.session_key
        if key is None:
            return True
        await self.join(session_group(key))
        # A sign-in replaces the guest's session: the old one is deleted.
        return await database_sync_to_async(session.exists)(key)

    async def disconnect(self, code: int) -> None:
        for group in self.joined:
            await self.channel_layer.group_discard(group, self.channel_name)

    async def receive(
        self, text_data: str | None = None, bytes_data: bytes | None = None, **kwargs: Any
    ) -> None:
        try:
            request = protocol.parse(text_data)
            wait = self.allowance.take()
            if wait:
                key = str(request.key) if isinstance(request, Post) else None
                raise Refused("too_fast", "Too many messages at once: wait a moment.", key, wait)
            await self.answer(request)
        except Refused as refusal:
            await self.refuse(refusal)

    async def answer(self, request: Request) -> None:
        match request:
            case Ping():
                await self.send_json({"type": "pong"})
            case Post():
                await self.post(request)
            case Older():
                messages, has_more = await page_before(self.room, request.before)
                await self.send_json(protocol.older_event(messages, has_more=has_more))
            case Name():
                handle = protocol.clean_handle(request.handle)
                await check_free(handle)
                self.remember(handle)
                await self.send_json({"type": "named", "handle": handle})

    async def post(self, post: Post) -> None:
        """Store a post and broadcast it to the room, once, however often the browser sends it."""
        if self.user is None:
            handle = protocol.clean_handle(post.handle, str(post.key))
            post = Post(post.key, handle, post.text)
        try:
            message, is_new = await keep(self.room, post, self.user)
        except IntegrityError:
            await self.close(protocol.NO_SUCH_ROOM, "The room has been deleted.")
            return
        if message.room_id != self.room.pk:
            raise Refused("bad_request", "This key belongs to a post elsewhere.", str(post.key))
        if is_new:
            await broadcast(self.room.group, json=protocol.message_event(message))
        else:
            await self.send_json(protocol.message_event(message))

    def remember(self, handle: str) -> None:
        """Put a guest's name into the session, which is saved after this handler."""
        session = self.scope["session"]
        if self.user is None and session.session_key and session.get("guest_name") != handle:
            session["guest_name"] = handle

    async def refuse(self, refusal: Refused) -> None:
        await self.send_json(refusal.as_event())
        if self.tolerance.take():
            await self.close(protocol.MISBEHAVED, "Too many refused requests.")

    async def session_ended(self, event: dict[str, Any]) -> None:
        await self.close(protocol.SIGNED_OUT, "You have signed in in another window.")

    async def room_deleted(self, event: dict[str, Any]) -> None:
        await self.close(protocol.NO_SUCH_ROOM, "The room has been deleted.")

    async def join(self, group: str) -> None:
        await self.channel_layer.group_add(group, self.channel_name)
        self.joined.append(group)

    def number(self, name: str) -> int:
        """A message's id from the query string; 0 if it is missing or not a number."""
        value = parse_qs(self.scope["query_string"].decode("latin-1")).get(name, ["0"])[0]
        return int(value) if value.isascii() and value.isdecimal() and len(value) < 19 else 0
