"""One local channel as the hub sees it: where its events go."""

from __future__ import annotations

import asyncio

from channels.kit.doors import Sink
from channels.kit.mailbox import Mailbox


class Member:
    """A channel's mailbox, its loop, and the sink that ready frames may take instead.

    A frame takes the sink only while the mailbox's layer lane is clear; otherwise it would overtake
    an event that was sent before it.
    """

    __slots__ = ("loop", "mailbox", "sink")

    def __init__(
        self, mailbox: Mailbox, loop: asyncio.AbstractEventLoop, sink: Sink | None = None
    ) -> None:
        self.mailbox = mailbox
        self.loop = loop
        self.sink = sink
