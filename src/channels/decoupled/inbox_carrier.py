"""Sessions through the channel layer: how they begin and travel, and how losses are made good.

Each process has one channel of its own.  Between two of them batches are numbered, kept until the
other has confirmed them, and sent again if it has not.

Close order: what is on its way; a reset to each peer; the channel, so that nothing new arrives; the
tasks.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final

from channels.decoupled.inbox_link import InboxLink, OutgoingBatch, payload_bytes
from channels.decoupled.messages import VERSION, Side, check_envelope
from channels.decoupled.peer_link import LinkHost
from channels.exceptions import ChannelFull, ChannelLayerUnavailable, MalformedMessage
from channels.fanout.delivery import Member
from channels.kit.tasks import TaskScope
from channels.kit.types import Message

logger: Final = logging.getLogger("django.channels.decoupled")

#: Between two attempts to reach a layer that is full or unavailable, in seconds.
RETRY_SECONDS: Final = 0.05
#: Resets that are on their way at once; more are not sent.
MOST_NOTES: Final = 100


class InboxCarrier:
    """This process's channel, and its sessions with others that are carried by the layer."""

    def __init__(self, layer: Any, side: Side, host: LinkHost) -> None:
        self._layer = layer
        self._side: Side = side
        self._host = host
        self._tasks = TaskScope("links through the channel layer")
        self._notes = TaskScope("resets between edge and worker")
        self._has_sent = asyncio.Event()
        #: The channel of this process.
        self.inbox = ""

    # Life.

    async def start(self) -> None:
        """Take a channel and read it."""
        self.inbox = await self._layer.new_channel(self._side)
        if hasattr(self._layer, "attach"):
            lane = _InboxLane(self._arrived)
            self._layer.attach(self.inbox, Member(lane, asyncio.get_running_loop()))
        else:
            self._tasks.spawn(self._read(), name="inbox")

    async def drain(self) -> None:
        """Wait until all is sent."""
        while any(each.is_sending or each.has_waiting for each in self._links()):
            self._has_sent.clear()
            await self._has_sent.wait()

    def _links(self) -> list[InboxLink]:
        return [each for each in self._host.links.values() if isinstance(each, InboxLink)]

    async def close(self, seconds: float) -> None:
        """Read nothing more; peers are told of the end for so long at most."""
        await self._notes.join(seconds)
        if hasattr(self._layer, "detach"):
            self._layer.detach(self.inbox)
        await self._notes.close()
        await self._tasks.close()

    # To others.

    def new_link(self, peer: str) -> InboxLink:
        """A session that nothing is said in yet."""
        return InboxLink(peer, self._host.options.link_bytes, self)

    def wake(self, link: InboxLink) -> None:
        """Send what a session has to send."""
        if not link.is_sending and link.is_alive:
            link.is_sending = True
            self._tasks.spawn(self._send_all(link), name=f"to {link.peer}")

    async def _send_all(self, link: InboxLink) -> None:
        """Send until nothing is left, or must wait for the other's confirmation."""
        try:
            while link.is_alive:
                had_room = link.has_room
                if link.repeats:
                    link.repeats = False
                    for batch in link.unconfirmed:
                        self._host.counters["batches_repeated"] += 1
                        await self._send(link, batch)
                elif (next_one := link.next_batch()) is not None:
                    if not had_room and link.has_room:
                        self._host.room(link)
                    await self._send(link, next_one)
                elif link.confirms_now:
                    await self._send(link, link.empty_batch())
                else:
                    return
        finally:
            link.is_sending = False
            self._has_sent.set()

    async def _send(self, link: InboxLink, batch: OutgoingBatch) -> None:
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
                self._host.drop("sends_retried", "%s is out of reach: %s", link.peer, error)
                await asyncio.sleep(RETRY_SECONDS)
            except Exception:
                logger.exception("A message to %s cannot be sent.", link.peer)
                link.close()
                self._host.lost(link)
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
                raise MalformedMessage(f"{envelope['type']} belongs into no inbox.")
        except MalformedMessage as error:
            self._host.drop("malformed", "What came to the inbox is dropped: %s", error)
        except Exception:
            # Nothing that anyone sends ends an edge or a worker.
            self._host.counters["failed"] += 1
            logger.exception("A message to %s could not be handled.", self.inbox)

    def _on_reset(self, envelope: Message) -> None:
        link = self._host.links.get(envelope["sender"])
        if isinstance(link, InboxLink) and link.mine == envelope["session"]:
            self._host.lost(link)

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
                self._host.heard(link, message)
        elif messages and batch["number"] <= link.seen:
            self._host.counters["batches_doubled"] += 1
            link.confirms_now = True
        elif messages:
            # One before it was lost on the way: both come again, for they are not confirmed.
            self._host.counters["gaps"] += 1
        if link.confirms_now or link.has_waiting:
            self.wake(link)

    def _link_of(self, batch: Message) -> InboxLink | None:
        """The session that a batch belongs to, a new one if it begins one; None: drop the batch."""
        peer, theirs, to = batch["sender"], batch["session"], batch["to"]
        known = self._host.links.get(peer)
        if known is not None and not isinstance(known, InboxLink):
            # Of a session before the one that its socket carries; or its socket's end is not known
            # here yet, and the batch will come again.
            return None
        if known is not None and known.theirs == theirs:
            return known
        if to is not None:
            if known is not None and known.mine == to and known.theirs is None:
                known.theirs = theirs
                return known
            # It speaks to a session that is over here.
            self.reset(peer, theirs)
            return None
        if batch["number"] != 1:
            # Its first batch is missing, and it does not know of an answer: it will come again.
            return None
        if known is not None and known.theirs is None:
            # Both have begun at the same time.
            known.theirs = theirs
            return known
        link = self.new_link(peer)
        link.theirs = theirs
        return link if self._host.admit(link) else None

    def reset(self, peer: str, theirs: bytes | None) -> None:
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
            self._host.drop("sends_failed", "%s could not be told: %s", peer, error)


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
