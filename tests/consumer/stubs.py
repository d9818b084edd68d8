"""Layers and servers small enough to see through."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from contextvars import Context, copy_context
from typing import Any

from channels.fanout.delivery import Member
from channels.fanout.prepared import PLAIN
from channels.kit.doors import DOOR, Door
from channels.kit.mailbox import Mailbox
from channels.kit.types import Message, Scope


class StubLayer:
    """A layer of our kind: it puts events straight into the mailboxes that are attached."""

    def __init__(self) -> None:
        self.members: dict[str, Member] = {}
        self.groups: defaultdict[str, set[str]] = defaultdict(set)
        self.made = 0

    async def new_channel(self, prefix: str = "specific") -> str:
        self.made += 1
        return f"{prefix}.stub!{self.made}"

    def attach(self, channel: str, member: Member) -> None:
        assert channel not in self.members
        self.members[channel] = member

    def detach(self, channel: str) -> None:
        del self.members[channel]

    async def receive(self, channel: str) -> Message:
        raise AssertionError("channels that are attached are not received from")

    async def group_add(self, group: str, channel: str) -> None:
        self.groups[group].add(channel)

    async def group_discard(self, group: str, channel: str) -> None:
        self.groups[group].discard(channel)

    async def group_send(self, group: str, message: Message) -> None:
        for channel in self.groups[group]:
            self.put(channel, message)

    def put(self, channel: str, message: Message) -> None:
        self.members[channel].mailbox.put_layer(message)

    @property
    def channel(self) -> str:
        """The one channel that is attached."""
        (channel,) = self.members
        return channel


class ForeignLayer:
    """A third-party layer: it has `receive` and knows nothing of mailboxes."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[Message | Exception] = asyncio.Queue()
        self.receivers = 0

    async def new_channel(self, prefix: str = "specific") -> str:
        return "foreign!1"

    async def receive(self, channel: str) -> Message:
        assert channel == "foreign!1"
        self.receivers += 1
        try:
            found = await self.queue.get()
        finally:
            self.receivers -= 1
        if isinstance(found, Exception):
            raise found
        return found


class StubSink:
    """Takes every frame."""

    form: str | None = PLAIN

    def __init__(self) -> None:
        self.frames: list[bytes] = []

    def write(self, frame: bytes) -> None:
        self.frames.append(frame)


class ForeignServer:
    """Runs an application by ASGI's callables alone."""

    #: Of the application's task; None: a copy of the test's.
    context: Context | None = None

    def __init__(self, application: Any, scope: Scope | None = None) -> None:
        self.scope: Scope = {"type": "websocket", "path": "/"} if scope is None else scope
        self.events: asyncio.Queue[Message | Exception] = asyncio.Queue()
        self.sent: asyncio.Queue[Message] = asyncio.Queue()
        self.task = asyncio.create_task(self.run(application), context=self.context)

    async def run(self, application: Any) -> None:
        await application(self.scope, self.receive, self.send)

    async def receive(self) -> Message:
        event = await self.events.get()
        if isinstance(event, Exception):
            raise event
        return event

    async def send(self, message: Message) -> None:
        await self.sent.put(message)

    def tell(self, kind: str, **rest: Any) -> None:
        """Something happened at the client."""
        self.events.put_nowait({"type": kind, **rest})

    async def hear(self) -> Message:
        """What the application said next, or its error."""
        said = asyncio.ensure_future(self.sent.get())
        try:
            await asyncio.wait({said, self.task}, return_when=asyncio.FIRST_COMPLETED, timeout=10)
            if not said.done():
                if not self.task.done():
                    raise TimeoutError("The application said nothing.")
                self.task.result()
                raise EOFError("The application ended.")
            return said.result()
        finally:
            said.cancel()

    async def end(self) -> None:
        """Wait for the application's end; raises what it raised."""
        await asyncio.wait_for(asyncio.shield(self.task), 10)

    async def stop(self) -> None:
        self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.task


class OurServer(ForeignServer):
    """Runs an application with a door: its mailbox takes events directly."""

    def __init__(self, application: Any, scope: Scope | None = None) -> None:
        self.mailbox = Mailbox()
        self.sink = StubSink()
        super().__init__(application, scope)

    async def run(self, application: Any) -> None:
        # The door compares by identity, and a bound method is a new object each time.
        door = Door(self.receive, self.send, self.mailbox, self.sink, self.context)
        self.scope["extensions"] = {DOOR: door}
        await application(self.scope, door.receive, door.send)

    async def receive(self) -> Message:
        raise AssertionError("a consumer takes from the mailbox")

    def tell(self, kind: str, **rest: Any) -> None:
        put = self.mailbox.put_last if kind.endswith(".disconnect") else self.mailbox.put_client
        put({"type": kind, **rest})


class DrivingServer(OurServer):
    """Tells its consumers their task's context: idle ones are driven in place."""

    def __init__(self, application: Any, scope: Scope | None = None) -> None:
        self.context = copy_context()
        super().__init__(application, scope)
