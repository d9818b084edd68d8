"""Reading queues: as many messages are taken from the broker as readers wait here.

A message that arrives when its reader has gone goes back to the head of its queue, so that another
process gets it.
"""

from __future__ import annotations

from channels.exceptions import MalformedEnvelope
from channels.kit.types import Message
from channels.layers.envelope import Envelope, decode_envelope
from channels.layers.process.inboxes import Inbox
from channels.layers.process.link import Link
from channels.layers.process.local import LocalChannels
from channels.layers.process.reception import Reception


class Queues:
    """The readers of this process; any thread and loop."""

    def __init__(self, local: LocalChannels, link: Link, reception: Reception) -> None:
        self._local = local
        self._link = link
        self._reception = reception

    def take(self, channel: str) -> Message | None:
        """A message that has come for a channel with this node's mark, without waiting; or None.

        Where a reader is behind it spares 1.5 of the 8 µs that a message takes.
        """
        inbox = self._local.inboxes.get(channel)
        if inbox is None or not inbox.is_own or not len(inbox):
            return None
        message = inbox.get_nowait()
        if not len(inbox):
            self._local.tidy(channel)
        return message

    async def receive(self, channel: str) -> Message:
        """The next message of a queue, or of a channel of this node for which `take` has none.

        Cancel safety: a cancelled call takes nothing.
        """
        await self._link.start()
        with self._local.lock:
            inbox = self._local.inbox(channel)
            inbox.readers += 1
        is_queue = not inbox.is_own
        completed = False
        try:
            if is_queue:
                self._ask(channel, inbox)
            message = await inbox.get()
            completed = True
            return message
        finally:
            with self._local.lock:
                inbox.readers -= 1
            if is_queue:
                self._leave(channel, inbox, completed)
            self._local.tidy(channel)

    def on_pulled(self, queue: str, data: Envelope | bytes) -> None:
        """One was taken from a queue for us."""
        try:
            envelope = data if isinstance(data, Envelope) else decode_envelope(data)
        except MalformedEnvelope as error:
            self._reception.count_malformed(error)
            self.ask_again(queue)
            return
        event = self._reception.open(envelope, queue)
        if event is None:
            # Void or unreadable; it has used up demand.
            self.ask_again(queue)
            return
        with self._local.lock:
            inbox = self._local.inboxes.get(queue)
            if inbox is not None and inbox.readers:
                inbox.put_pulled(event.message, event.size, event.deadline, envelope)
                return
        self._link.tell(lambda: self._link.transport.give_back(queue, [envelope]))

    def ask_again(self, queue: str | None = None) -> None:
        """Tell the transport what is in demand: in one queue, or in all."""
        for name in [queue] if queue is not None else list(self._local.inboxes):
            inbox = self._local.inboxes.get(name)
            if inbox is not None and inbox.readers and not inbox.is_own:
                self._ask(name, inbox)

    def _ask(self, queue: str, inbox: Inbox) -> None:
        with self._local.lock:
            count = max(0, inbox.readers - len(inbox))
        self._link.tell(lambda: self._link.transport.demand(queue, count))

    def _leave(self, queue: str, inbox: Inbox, completed: bool) -> None:
        """A reader has left, with its message or without."""
        if not completed:
            self._ask(queue, inbox)
        with self._local.lock:
            if inbox.readers or not len(inbox):
                return
            unread = [source for *_, source in inbox.take_all() if isinstance(source, Envelope)]
        self._link.tell(lambda: self._link.transport.give_back(queue, unread))
