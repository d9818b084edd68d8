"""Replies on their way to an open WebSocket: ready ones go straight to the socket.

A group's message comes to every member of this process as one object.  It is framed once, and no
task runs for it: with 1,000 sockets in a group that is what one message costs.
"""

from __future__ import annotations

from channels.fanout.prepared import PreparedMessage
from channels.kit.doors import Sink
from channels.kit.mailbox import Mailbox
from channels.kit.types import Message
from channels.legacy.interface.messages import ready_reply


class FrameCache:
    """The frames of the reply that came last, for all sockets of an interface server."""

    __slots__ = ("_prepared", "_reply")

    def __init__(self) -> None:
        # Kept as long as its frames, so that no other object can have its identity.
        self._reply: Message | None = None
        self._prepared: PreparedMessage | None = None

    def find(self, reply: Message) -> PreparedMessage | None:
        """The frames of a reply that is text or bytes and nothing else; None for any other."""
        if reply is not self._reply:
            self._reply, self._prepared = reply, ready_reply(reply)
        return self._prepared


class ReplyLane:
    """The layer's side of a socket's mailbox.

    A reply is written at once where the socket takes it and none waits before it; any other is
    left in the mailbox for the socket's task.
    """

    __slots__ = ("_frames", "_mailbox", "_sink")

    def __init__(self, mailbox: Mailbox, sink: Sink | None, frames: FrameCache) -> None:
        self._mailbox = mailbox
        self._sink = sink
        self._frames = frames

    @property
    def displaced(self) -> int:
        """Replies that made room for later ones."""
        return self._mailbox.displaced

    @property
    def expired(self) -> int:
        """Replies that nobody took before their deadline."""
        return self._mailbox.expired

    @property
    def layer_size(self) -> int:
        """How many replies wait."""
        return self._mailbox.layer_size

    @property
    def layer_is_clear(self) -> bool:
        """True if no reply waits or is being handled."""
        return self._mailbox.layer_is_clear

    def put_layer(self, event: Message, size: int = 0, deadline: float | None = None) -> bool:
        """Write a reply, or add it; False if it was dropped because too many wait."""
        sink, mailbox = self._sink, self._mailbox
        if sink is not None and mailbox.layer_is_clear and (form := sink.form) is not None:
            prepared = self._frames.find(event)
            if prepared is not None:
                sink.write(prepared.frame(form))
                return True
        return mailbox.put_layer(event, size, deadline)
