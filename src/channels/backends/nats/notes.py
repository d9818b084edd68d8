"""Notes on messages that were delivered more than once: what JetStream does not remember of them.

    claim   a process is about to take it for its reader.  Another one, which took it before and
            lost its connection, learns from this that it is not its own.
    back    how many of its deliveries were no attempts, because it was given back untouched

They are written before what they tell of happens, so that a process that dies in between leaves a
note too many, never one too few.
"""

from __future__ import annotations

import base64
from typing import Any, Final

from channels.backends.nats.connection import Message
from channels.backends.nats.jetstream import JetStream, deliveries_of, nanoseconds
from channels.backends.nats.names import Names
from channels.exceptions import MalformedEnvelope
from channels.layers.envelope import decode_envelope

#: Seconds; a message is seldom unread for longer after it was touched.
_LIFE: Final = 86_400.0


class Notes:
    """The notes of a layer.

    Args:
        bound: How many are kept; of more the oldest go.
    """

    def __init__(self, names: Names, bound: int) -> None:
        self._names = names
        self._bound = bound

    @property
    def _stream(self) -> str:
        return f"{self._names.prefix}_N"

    def _subject(self, what: str, identity: str) -> str:
        return f"{self._names.prefix}.u.{what}.{identity}"

    async def claim(self, stream: JetStream, message: Message) -> None:
        """Note that this delivery of a message is the one that counts."""
        subject = self._subject("claim", identity_of(message.data))
        await self._write(stream, subject, message.reply.encode())

    async def is_claimed_by_another(self, stream: JetStream, message: Message) -> bool:
        """Whether it is noted that another delivery of this message counts."""
        subject = self._subject("claim", identity_of(message.data))
        found = await stream.last(self._stream, subject)
        return found is not None and base64.b64decode(found["data"]) != message.reply.encode()

    async def set_back(self, stream: JetStream, identity: str, times: int) -> None:
        """Note how often a message was given back."""
        await self._write(stream, self._subject("back", identity), str(times).encode())

    async def back(self, stream: JetStream, identity: str) -> int:
        """How often it was."""
        found = await stream.last(self._stream, self._subject("back", identity))
        return 0 if found is None else int(base64.b64decode(found["data"]))

    async def add_back(self, stream: JetStream, message: Message) -> None:
        """Note that this delivery of a message was no attempt."""
        identity = identity_of(message.data)
        before = await self.back(stream, identity) if deliveries_of(message) > 1 else 0
        await self.set_back(stream, identity, before + 1)

    async def forget_back(self, stream: JetStream, identity: str) -> None:
        """The message is finished."""
        await stream.purge(self._stream, self._subject("back", identity))

    async def _write(self, stream: JetStream, subject: str, data: bytes) -> None:
        config: dict[str, Any] = {
            "name": self._stream,
            "subjects": [f"{self._names.prefix}.u.>"],
            "max_msgs_per_subject": 1,
            "max_msgs": self._bound,
            "max_age": nanoseconds(_LIFE),
        }
        await stream.store(config, subject, data, {}, "no more notes")

    async def flush(self, stream: JetStream) -> None:
        await stream.purge(self._stream)


def identity_of(data: bytes) -> str:
    """What names a message for good, its copies included."""
    try:
        envelope = decode_envelope(data)
    except MalformedEnvelope:
        return "malformed"
    return f"{envelope.sender.hex()}.{envelope.seq}"
