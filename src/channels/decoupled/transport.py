"""Messages between an edge and its workers: sessions, each by one of two carriers.

    carrier          where                        order, and each once, by
    socket_carrier   both on one machine          the stream of a Unix socket
    inbox_carrier    everywhere                   numbered batches through the layer's inboxes

The worker begins a session, with its first claim: over the socket that the offer names if it can be
reached, else through the layer.  A session stays with its carrier until it ends, so that what is
said of one connection takes one way.  Every message arrives once and in order, or the session ends
on both sides:

    it ends by                                                    then
    `heartbeat_misses` heartbeats without a word                  on_dead here, and there when it
                                                                  speaks again
    the socket's end                                              on_dead here
    `reset`, which says that the other has ended it               on_dead here
    the other begins a new one                                    on_dead here, and it begins
    a message that the layer refuses for good                     on_dead here, and reset there

Time is counted in heartbeats and not read from a clock: a process that was stopped and goes on has
missed one, and reads what waits for it before it misses another.

Belongs to one event loop.  Close order: each carrier sends what waits, for as long as `close` was
given, and tells each peer that the session is over; the tasks.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from typing import Any, Final, Protocol

from channels.decoupled.inbox_carrier import InboxCarrier
from channels.decoupled.messages import OVERHEAD_BYTES, VERSION, Side, check_message
from channels.decoupled.options import LinkOptions
from channels.decoupled.peer_link import PeerLink
from channels.decoupled.socket_carrier import SocketCarrier
from channels.exceptions import MalformedMessage
from channels.kit.tasks import TaskScope
from channels.kit.throttle import Throttle, and_more
from channels.kit.types import Message

logger: Final = logging.getLogger("django.channels.decoupled")

_throttle: Final = Throttle(5.0)


class LinkEvents(Protocol):
    """Edge or worker: what it is told, on its loop; it must not wait."""

    def on_message(self, peer: str, message: Message) -> None:
        """A message of the other side's arrived, checked."""

    def on_room(self, peer: str) -> None:
        """`has_room` is true again."""

    def on_dead(self, peer: str) -> None:
        """The session has ended: nothing that was said in it may be relied on any more."""


class LinkTransport:
    """This process's end of all its sessions.

    Args:
        side: Which side of the table in `messages` this is.
    """

    def __init__(self, layer: Any, side: Side, options: LinkOptions, listener: LinkEvents) -> None:
        self._layer = layer
        self._side: Side = side
        self._other: Side = "worker" if side == "edge" else "edge"
        self.options = options
        self._listener = listener
        self.links: dict[str, PeerLink] = {}
        self._inboxes = InboxCarrier(layer, side, self)
        self._sockets = SocketCarrier(side, self)
        self._tasks = TaskScope("links between edge and worker")
        self.counters: Counter[str] = Counter()

    # Life.

    async def start(self) -> None:
        """Take a channel and read it; an edge also listens for workers on its machine."""
        await self._inboxes.start()
        if self._side == "edge":
            await self._sockets.listen()
        self._tasks.spawn(self._beat(), name="heartbeat")

    async def close(self, seconds: float) -> None:
        """Send what waits, for so long at most; then end every session."""
        try:
            async with asyncio.timeout(seconds):
                await self._inboxes.drain()
        except TimeoutError:
            logger.warning("What was said last may not have reached every edge or worker.")
        for link in self.links.values():
            link.close()
        self.links.clear()
        await self._inboxes.close(seconds)
        await self._sockets.close(seconds)
        await self._tasks.close()

    @property
    def inbox(self) -> str:
        """The channel of this process."""
        return self._inboxes.inbox

    @property
    def peers(self) -> list[str]:
        """The inboxes of those that live."""
        return list(self.links)

    def statistics(self) -> Counter[str]:
        """Counters since the start, and how many peers are reached over a socket."""
        found = Counter(self.counters)
        found["sockets"] = self._sockets.count
        return found

    # To others.

    def meet(self, offer: Message) -> None:
        """Begin a session with the edge that made an offer, if there is none."""
        if offer["edge"] not in self.links:
            link = self._sockets.dial(offer)
            if link is not None and not self.admit(link):
                link.end()

    def post(self, peer: str, message: Message, size: int = OVERHEAD_BYTES) -> bool:
        """Send a message, behind all that were posted to this peer before; does not wait.

        Returns:
            False if there are too many peers already: nothing is sent.
        """
        link = self.links.get(peer)
        if link is None:
            link = self._inboxes.new_link(peer)
            if not self.admit(link):
                return False
        link.put(message, size)
        return True

    def tell(self, peer: str, message: Message, size: int) -> None:
        """As `post`, but nothing is sent if there is no session with this peer."""
        link = self.links.get(peer)
        if link is not None:
            link.put(message, size)

    def has_room(self, peer: str) -> bool:
        """False while more than `link_bytes` wait for a peer."""
        link = self.links.get(peer)
        return link is None or link.has_room

    async def offer(self, message: Message) -> None:
        """Put an offer into the queue of offers.

        Raises:
            ChannelFull: If the queue is full.
            ChannelLayerUnavailable: If the layer cannot be reached.
        """
        envelope = {
            "type": "decoupled.offer",
            "version": VERSION,
            "edge": self.inbox,
            **self._sockets.address,
            **message,
        }
        await self._layer.send(self.options.offers, envelope)

    # From the carriers.

    def admit(self, link: PeerLink) -> bool:
        """Begin a session, in the place of the one with this peer; False if there are too many."""
        former = self.links.get(link.peer)
        if former is not None:
            self.lost(former)
        if len(self.links) >= self.options.max_peers:
            self.drop("peers_refused", "%s peers are known: no more are listened to", link.peer)
            return False
        self.links[link.peer] = link
        return True

    def heard(self, link: PeerLink, raw: Any) -> None:
        """A message arrived: check it, and hand it on."""
        try:
            message = check_message(raw, self._other)
        except MalformedMessage as error:
            self.drop("malformed", "A message is dropped: %s", error)
            return
        try:
            self._listener.on_message(link.peer, message)
        except Exception:
            self.counters["failed"] += 1
            logger.exception("A message of %s could not be handled.", link.peer)

    def room(self, link: PeerLink) -> None:
        """`has_room` of a session is true again."""
        self._listener.on_room(link.peer)

    def lost(self, link: PeerLink) -> None:
        """A session has ended."""
        if self.links.get(link.peer) is not link:
            return
        del self.links[link.peer]
        link.end()
        self.counters["peers_lost"] += 1
        self._listener.on_dead(link.peer)

    def fall_over(self, link: PeerLink, waiting: list[tuple[Message, int]]) -> None:
        """The peer's socket cannot be had: say what waits through the layer."""
        if self.links.get(link.peer) is not link:
            return
        self.counters["sockets_refused"] += 1
        del self.links[link.peer]
        for message, size in waiting:
            self.post(link.peer, message, size)
        link.end()

    def drop(self, counter: str, text: str, *parts: object) -> None:
        """Count something, and log the first in a while."""
        self.counters[counter] += 1
        held_back = _throttle.admit(f"{self._side} {counter}")
        if held_back is not None:
            logger.warning(text + "%s", *parts, and_more(held_back))

    # Life and death of others.

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self.options.heartbeat)
            self._sockets.beat()
            for link in list(self.links.values()):
                self._tick(link)

    def _tick(self, link: PeerLink) -> None:
        link.missed += 1
        if link.missed <= self.options.heartbeat_misses:
            link.beat()
            return
        logger.warning(
            "%s was silent for %s heartbeats of %g s: it counts as dead.",
            link.peer,
            self.options.heartbeat_misses,
            self.options.heartbeat,
        )
        self.lost(link)
