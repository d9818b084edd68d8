"""One session with another process, and what its carrier asks of the transport."""

from __future__ import annotations

from collections import Counter
from typing import Any, Protocol

from channels.decoupled.options import LinkOptions
from channels.kit.types import Message


class PeerLink:
    """One session with another process.

    Attributes:
        peer: The other's inbox.
        is_alive: False once the session is over.
        missed: Heartbeats since the other was heard.
    """

    __slots__ = ("is_alive", "missed", "peer")

    def __init__(self, peer: str) -> None:
        self.peer = peer
        self.is_alive = True
        self.missed = 0

    @property
    def has_room(self) -> bool:
        """False while more than `link_bytes` wait for the peer."""
        raise NotImplementedError

    def put(self, message: Message, size: int) -> None:
        """Send a message behind all that were put before; does not wait."""
        raise NotImplementedError

    def beat(self) -> None:
        """A heartbeat has passed: say that this side lives."""
        raise NotImplementedError

    def end(self) -> None:
        """The session is over: nothing of it is sent any more."""
        raise NotImplementedError

    def close(self) -> None:
        """Tell the peer that the session is over, and end it."""
        self.end()


class LinkHost(Protocol):
    """The transport, as its carriers see it."""

    options: LinkOptions
    counters: Counter[str]
    #: Peer -> the session with it.
    links: dict[str, PeerLink]

    @property
    def inbox(self) -> str:
        """The channel of this process, by which the others know it."""

    def admit(self, link: PeerLink) -> bool:
        """Begin a session, in the place of the one with this peer; False if there are too many."""

    def heard(self, link: PeerLink, raw: Any) -> None:
        """A message arrived."""

    def room(self, link: PeerLink) -> None:
        """`has_room` is true again."""

    def lost(self, link: PeerLink) -> None:
        """The session has ended."""

    def fall_over(self, link: PeerLink, waiting: list[tuple[Message, int]]) -> None:
        """The socket cannot be had: say what waits for the peer through the layer."""

    def drop(self, counter: str, text: str, *parts: object) -> None:
        """Count something, and log the first in a while."""
