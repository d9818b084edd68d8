"""One local channel as the hub sees it: where its events go."""

from __future__ import annotations

import asyncio
from typing import Protocol

from channels.kit.doors import Sink
from channels.kit.types import Message


class Lane(Protocol):
    """The layer's side of a mailbox."""

    @property
    def displaced(self) -> int:
        """Events that made room for later ones, since it was made."""

    @property
    def expired(self) -> int:
        """Events that nobody took before their deadline."""

    @property
    def layer_size(self) -> int:
        """How many events wait."""

    @property
    def layer_is_clear(self) -> bool:
        """True if a frame may pass directly, because no event waits before it."""

    def put_layer(self, event: Message, size: int = 0, deadline: float | None = None) -> bool:
        """Add a shared event, copied when it is taken; False if it was dropped."""


class Member:
    """A channel's mailbox, its loop, and the sink that ready frames may take instead.

    A frame takes the sink only while the mailbox's layer lane is clear; otherwise it would overtake
    an event that was sent before it.  Mailbox and sink are touched on their loop only; a member
    without a loop has a mailbox that any thread may fill.
    """

    __slots__ = ("loop", "mailbox", "most_groups", "sink")

    def __init__(
        self,
        mailbox: Lane,
        loop: asyncio.AbstractEventLoop | None,
        sink: Sink | None = None,
        most_groups: int | None = None,
    ) -> None:
        self.mailbox = mailbox
        self.loop = loop
        self.sink = sink
        #: How many groups it may be a member of; None: any number.
        self.most_groups = most_groups
