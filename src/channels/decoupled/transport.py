"""Messages between an edge and its workers, through the channel layer's inboxes.

The one file that knows how they travel.  Each process has one channel of its own.  Between two of
them there is a session: batches are numbered, kept until the other has confirmed them, and sent
again if it has not; so every message arrives once and in order, or the session ends on both sides.

    it ends by                                                    then
    `heartbeat_misses` heartbeats without a word                  on_dead here; `reset` tells the
                                                                  other when it speaks again
    `reset`: the other has ended it                               on_dead here
    the other begins a new one                                    on_dead here, and it begins
    a message that the layer refuses for good                     on_dead here, and reset there

Time is counted in heartbeats and not read from a clock: a process that was stopped and goes on has
missed one, and reads what waits for it before it misses another.

Belongs to one event loop.  Close order: the channel, so that nothing new arrives; what is on its
way, for as long as `close` was given; a reset to each peer; the tasks.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from typing import Any, Final, Protocol

from channels.decoupled.messages import (
    OVERHEAD_BYTES,
    VERSION,
    Side,
    check_envelope,
    check_message,
)
from channels.decoupled.options import LinkOptions
from channels.decoupled.peer_link import OutgoingBatch, PeerLink, payload_bytes
from channels.exceptions import ChannelFull, ChannelLayerUnavailable, MalformedMessage
from channels.fanout.member import Member
from channels.kit.tasks import TaskScope
from channels.kit.throttle import Throttle, and_more
from channels.kit.types import Message

logger: Final = logging.getLogger("django.channels.decoupled")

#: Between two attempts to reach a layer that is full or unavailable, in seconds.
RETRY_SECONDS: Final = 0.05
#: Resets and offers that are on their way at once; more are not sent.
MOST_NOTES: Final = 100

_throttle: Final = Throttle(5.0)


class LinkEvents(Protocol):
    """Edge or worker: what it is told, on its loop; it must not wait."""

    def on_message(self, peer: str, message: Message) -> None:
        """A message of the other side's arrived, checked."""

    def on_room(self, peer: str) -> None:
        """`has_room` is true again."""

    def on_dead(self, peer: str) -> None:
        """The session has ended: nothing that was said in it may be relied on any more."""


class InboxTransport:
    """This process's end of all its sessions.

    Args:
        side: Which side of the table in `messages` this is.
    """

    def __init__(self, layer: Any, side: Side, options: LinkOptions, listener: LinkEvents) -> None:
        self._layer = layer
        self._side: Side = side
        self._other: Side = "worker" if side == "edge" else "edge"
        self._options = options
        self._listener = listener
        self._links: dict[str, PeerLink] = {}
        self._tasks = TaskScope("a link between edge and worker")
        self._notes = TaskScope("notes between edge and worker")
        self._has_sent = asyncio.Event()
        #: The channel of this process.
        self.inbox = ""
        self.counters: Counter[str] = Counter()

    # Life.

    async def start(self) -> None:
        """Take a channel and read it."""
        self.inbox = await self._layer.new_channel(self._side)
        if hasattr(self._layer, "attach"):
            lane = _InboxLane(self._arrived)
            self._layer.attach(self.inbox, Member(lane, asyncio.get_running_loop()))
        else:
            self._tasks.spawn(self._read(), name="inbox")
        self._tasks.spawn(self._beat(), name="heartbeat")

    async def close(self, seconds: float) -> None:
        """Send what waits, for so long at most; then end every session."""
        try:
            async with asyncio.timeout(seconds):
                while any(each.is_sending or each.has_waiting for each in self._links.values()):
                    self._has_sent.clear()
                    await self._has_sent.wait()
        except TimeoutError:
            logger.warning("What was said last may not have reached every edge or worker.")
        for link in list(self._links.values()):
            link.end()
            self._reset(link.peer, link.theirs)
        self._links.clear()
        await self._notes.join(seconds)
        if hasattr(self._layer, "detach"):
            self._layer.detach(self.inbox)
        await self._notes.close()
        await self._tasks.close()

    @property
    def peers(self) -> list[str]:
        """The inboxes of those that live."""
        return list(self._links)

    # To others.

    def post(self, peer: str, message: Message, size: int = OVERHEAD_BYTES) -> bool:
        """Send a message, behind all that were posted to this peer before; does not wait.

        Returns:
            False if there are too many peers already: nothing is sent.
        """
        link = self._links.get(peer)
        if link is None:
            link = self._new_link(peer)
            if link is None:
                return False
        link.put(message, size)
        self._wake(link)
        return True

    def is_known(self, peer: str) -> bool:
        """True while there is a session with this peer."""
        return peer in self._links

    def has_room(self, peer: str) -> bool:
        """False while more than `link_bytes` wait for a peer."""
        link = self._links.get(peer)
        return link is None or link.has_room

    async def offer(self, message: Message) -> None:
        """Put an offer into the queue of offers.

        Raises:
            ChannelFull: If the queue is full.
            ChannelLayerUnavailable: If the layer cannot be reached.
        """
        envelope = {"type": "decoupled.offer", "version": VERSION, "edge": self.inbox, **message}
        await self._layer.send(self._options.offers, envelope)

    def _new_link(self, peer: str) -> PeerLink | None:
        if len(self._links) >= self._options.max_peers:
            self._drop("peers_refused", "%s peers are known: no more are listened to", peer)
            return None
        link = self._links[peer] = PeerLink(peer, self._options.link_bytes)
        return link

    def _wake(self, link: PeerLink) -> None:
        if not link.is_sending and link.is_alive:
            link.is_sending = True
            self._tasks.spawn(self._send_all(link), name=f"to {link.peer}")

    async def _send_all(self, link: PeerLink) -> None:
        """Send until nothing is left, or must wait for the other's confirmation."""
        try:
            while link.is_alive:
                had_room = link.has_room
                if link.repeats:
                    link.repeats = False
                    for batch in link.unconfirmed:
                        self.counters["batches_repeated"] += 1
                        await self._send(link, batch)
                elif (next_one := link.next_batch()) is not None:
                    if not had_room and link.has_room:
                        self._listener.on_room(link.peer)
                    await self._send(link, next_one)
                elif link.confirms_now:
                    await self._send(link, link.empty_batch())
                else:
                    return
        finally:
            link.is_sending = False
            self._has_sent.set()

    async def _send(self, link: PeerLink, batch: OutgoingBatch) -> None:
        while link.is_alive:
            link.told()
            envelope = {
                "type": "decoupled.batch",
                "version": VERSION,
                "sender": self.inbox,
                "session": link.mine,
                "to": link.theirs,
                "number": batch.number,
                "seen": link.seen,
                "messages": batch.messages,
            }
            try:
                await self._layer.send(link.peer, envelope)
            except (ChannelFull, ChannelLayerUnavailable) as error:
                self._drop("sends_retried", "%s is out of reach: %s", link.peer, error)
                await asyncio.sleep(RETRY_SECONDS)
            except Exception:
                logger.exception("A message to %s cannot be sent.", link.peer)
                self._die(link, tell=True)
            else:
                batch.ticks = 0
                return

    # From others.

    async def _read(self) -> None:
        """For a layer that delivers by `receive` alone."""
        while True:
            try:
                self._arrived(await self._layer.receive(self.inbox))
            except Exception:
                logger.exception("Cannot receive from %s; trying again.", self.inbox)
                await asyncio.sleep(RETRY_SECONDS)

    def _arrived(self, raw: Any) -> None:
        """Something came into this process's channel, from whomever."""
        try:
            envelope = check_envelope(raw)
            if envelope["type"] == "decoupled.reset":
                self._on_reset(envelope)
            elif envelope["type"] == "decoupled.batch":
                self._on_batch(envelope)
            else:
                raise MalformedMessage("An offer belongs into the queue of offers.")
        except MalformedMessage as error:
            self._drop("malformed", "What came to the inbox is dropped: %s", error)
        except Exception:
            # Nothing that anyone sends ends an edge or a worker.
            self.counters["failed"] += 1
            logger.exception("A message to %s could not be handled.", self.inbox)

    def _on_reset(self, envelope: Message) -> None:
        link = self._links.get(envelope["sender"])
        if link is not None and link.mine == envelope["session"]:
            self._die(link)

    def _on_batch(self, batch: Message) -> None:
        link = self._link_of(batch)
        if link is None:
            return
        link.missed = 0
        link.confirmed(batch["seen"])
        messages: list[Any] = batch["messages"]
        if messages and batch["number"] == link.seen + 1:
            link.saw(payload_bytes(messages))
            for message in messages:
                if not link.is_alive:
                    return
                self._hear(link, message)
        elif messages and batch["number"] <= link.seen:
            self.counters["batches_doubled"] += 1
            link.confirms_now = True
        elif messages:
            # One before it was lost on the way: both come again, for they are not confirmed.
            self.counters["gaps"] += 1
        if link.confirms_now or link.has_waiting:
            self._wake(link)

    def _hear(self, link: PeerLink, raw: Any) -> None:
        try:
            message = check_message(raw, self._other)
        except MalformedMessage as error:
            self._drop("malformed", "A message is dropped: %s", error)
            return
        try:
            self._listener.on_message(link.peer, message)
        except Exception:
            self.counters["failed"] += 1
            logger.exception("A message of %s could not be handled.", link.peer)

    def _link_of(self, batch: Message) -> PeerLink | None:
        """The session that a batch belongs to, a new one if it begins one; None: drop the batch."""
        peer, theirs, to = batch["sender"], batch["session"], batch["to"]
        link = self._links.get(peer)
        if link is not None and link.theirs == theirs:
            return link
        if to is not None:
            if link is not None and link.mine == to and link.theirs is None:
                link.theirs = theirs
                return link
            # It speaks to a session that is over here.
            self._reset(peer, theirs)
            return None
        if batch["number"] != 1:
            # Its first batch is missing, and it does not know of an answer: it will come again.
            return None
        if link is not None and link.theirs is not None:
            self._die(link)
            link = None
        # If there is one, both have begun at the same time.
        link = link or self._new_link(peer)
        if link is not None:
            link.theirs = theirs
        return link

    # Life and death of others.

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self._options.heartbeat)
            for link in list(self._links.values()):
                self._tick(link)

    def _tick(self, link: PeerLink) -> None:
        link.missed += 1
        if link.missed > self._options.heartbeat_misses:
            logger.warning(
                "%s was silent for %s heartbeats of %g s: it counts as dead.",
                link.peer,
                self._options.heartbeat_misses,
                self._options.heartbeat,
            )
            self._die(link)
            return
        link.tick()
        self._wake(link)

    def _die(self, link: PeerLink, *, tell: bool = False) -> None:
        if self._links.get(link.peer) is not link:
            return
        del self._links[link.peer]
        link.end()
        self.counters["peers_lost"] += 1
        if tell:
            self._reset(link.peer, link.theirs)
        self._listener.on_dead(link.peer)

    def _reset(self, peer: str, theirs: bytes | None) -> None:
        """Tell a peer that its session is over here, once; it finds out by itself otherwise."""
        if theirs is None or len(self._notes) >= MOST_NOTES:
            return
        note = {
            "type": "decoupled.reset",
            "version": VERSION,
            "sender": self.inbox,
            "session": theirs,
        }
        self._notes.spawn(self._send_note(peer, note), name=f"reset of {peer}")

    async def _send_note(self, peer: str, note: Message) -> None:
        try:
            await self._layer.send(peer, note)
        except Exception as error:
            self._drop("sends_failed", "%s could not be told: %s", peer, error)

    def _drop(self, counter: str, text: str, *parts: object) -> None:
        """Count something, and log the first in a while."""
        self.counters[counter] += 1
        held_back = _throttle.admit(f"{self._side} {counter}")
        if held_back is not None:
            logger.warning(text + "%s", *parts, and_more(held_back))


class _InboxLane:
    """Hands what the layer delivers on at once; the bounds are those of the sessions."""

    #: What the layer's statistics ask of a lane.
    displaced = expired = layer_size = 0
    layer_is_clear = False

    def __init__(self, take: Callable[[Any], None]) -> None:
        self._take = take

    def put_layer(self, event: Message, size: int = 0, deadline: float | None = None) -> bool:  # noqa: ARG002 - the shape of a lane
        self._take(event)
        return True
