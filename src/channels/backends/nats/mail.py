"""Groups and inboxes of processes as subjects, of which NATS keeps nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from channels.backends.nats.connection import Message
from channels.backends.nats.jetstream import JetStream
from channels.backends.nats.names import Names
from channels.exceptions import NodeGone
from channels.layers.envelope import Envelope


class Mail(Protocol):
    """What reaches processes: their groups, and their inboxes."""

    async def open(self, stream: JetStream) -> bool:
        """Connected: hear what is sent to this process; true if it has missed nothing."""

    def shut(self) -> None:
        """The connection broke."""

    async def join(self, groups: Sequence[str]) -> None:
        """As `Transport.join`."""

    async def leave(self, groups: Sequence[str]) -> None:
        """As `Transport.leave`."""

    async def publish(self, group: str, envelope: Envelope) -> None:
        """As `Transport.publish`, to processes."""

    async def push_node(self, node: str, envelope: Envelope) -> None:
        """As `Transport.push_node`."""


class PlainMail:
    """Mail that is lost to whoever is not there.

    Args:
        on_frame: Given what comes.
    """

    def __init__(self, names: Names, node: str, on_frame: Callable[[bytes], None]) -> None:
        self._names = names
        self._node = node
        self._on_frame = on_frame
        self._subscriptions: dict[str, int] = {}
        self._stream: JetStream

    async def open(self, stream: JetStream) -> bool:
        self._stream = stream
        self._subscriptions.clear()
        stream.connection.subscribe(self._names.plain(self._names.node(self._node)), self._take)
        await stream.connection.barrier()
        return False

    def shut(self) -> None:
        self._subscriptions.clear()

    def _take(self, message: Message) -> None:
        if not message.status:
            self._on_frame(message.data)

    async def join(self, groups: Sequence[str]) -> None:
        connection = self._stream.connection
        for group in groups:
            if group not in self._subscriptions:
                subject = self._names.plain(self._names.group(group))
                self._subscriptions[group] = connection.subscribe(subject, self._take)
        await connection.barrier()

    async def leave(self, groups: Sequence[str]) -> None:
        connection = self._stream.connection
        for group in groups:
            if (number := self._subscriptions.pop(group, None)) is not None:
                connection.unsubscribe(number)
        await connection.barrier()

    async def publish(self, group: str, envelope: Envelope) -> None:
        connection = self._stream.connection
        connection.publish(self._names.plain(self._names.group(group)), envelope.encoded)
        await connection.barrier()

    async def push_node(self, node: str, envelope: Envelope) -> None:
        connection = self._stream.connection
        subject = self._names.plain(self._names.node(node))
        answer = connection.request(subject, envelope.encoded)
        try:
            await connection.barrier()
            # The node does not answer; the server does, before the barrier, if there is none.
            if answer.done():
                raise NodeGone(node)
        finally:
            answer.cancel()
