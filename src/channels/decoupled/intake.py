"""A client's events under a server that is not ours, and hands over no mailbox."""

from __future__ import annotations

import asyncio

from channels.decoupled.backlog import LAST_EVENTS
from channels.decoupled.messages import size_of
from channels.kit.mailbox import Mailbox
from channels.kit.types import Receive


async def fill(mailbox: Mailbox, receive: Receive) -> None:
    """Put what the server says into a mailbox until the last event; waits while that is full."""
    room = asyncio.Event()
    mailbox.on_room = room.set
    while not mailbox.gone:
        event = await receive()
        if event["type"] in LAST_EVENTS:
            mailbox.put_last(event)
        else:
            mailbox.put_client(event, size_of(event))
        while mailbox.client_is_full:
            room.clear()
            await room.wait()
