"""Messages that are due later: a stream of them, of which any process moves what is due.

Every process asks for what is in the stream.  One that gets a message before its time tells
JetStream to deliver it again when it is due; one that gets it then appends it to its queue, under a
name by which a second try is known, and acknowledges it.  A process that dies with one in hand
is waited for `_PATIENCE` seconds.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from channels.backends.nats.connection import Broken, Message
from channels.backends.nats.jetstream import JetStream, check, nanoseconds, next_subject
from channels.backends.nats.names import Names
from channels.backends.nats.pulls import Pull
from channels.backends.nats.queues import QueueStreams
from channels.exceptions import ChannelFull, ChannelsError, MalformedEnvelope
from channels.layers.envelope import Envelope, decode_envelope

_PATIENCE: Final = 2.0
#: Seconds between two looks whether anything has been delayed at all.
_LOOK_SECONDS: Final = 3.0
#: Seconds after which what could not be moved is tried again.
_AGAIN_SECONDS: Final = 1.0
#: Messages that may come at a time.
_MOST: Final = 100
_CONSUMER: Final = "hold"
_DUE: Final = "Channels-Due"


class Delays:
    """The delayed messages of a layer."""

    def __init__(
        self,
        names: Names,
        queues: QueueStreams,
        spawn: Callable[..., asyncio.Task[Any]],
        counters: Counter[str],
    ) -> None:
        self._names = names
        self._streams = queues
        self._spawn = spawn
        self._counters = counters
        self._moving = 0
        self._bound = 0
        self._is_quiet = False
        self._stream: JetStream | None = None
        self._pull = Pull(
            "delayed messages",
            find=self._find,
            forget=lambda _: None,
            wanted=lambda: _MOST - self._moving,
            take=self._take,
            spawn=spawn,
            retry_seconds=_LOOK_SECONDS,
        )

    @property
    def name(self) -> str:
        """Of the stream."""
        return f"{self._names.prefix}_D"

    def open(self, stream: JetStream) -> None:
        """Connected."""
        self._stream = stream
        self._pull.open(stream)

    def shut(self) -> None:
        """The connection broke."""
        self._stream = None
        self._pull.shut()

    async def quiesce(self) -> None:
        """Take nothing more, and wait for what is being moved."""
        stream, self._is_quiet = self._stream, True
        if stream is None:
            return
        self._pull.close()
        while self._moving and not stream.connection.ended.done():
            await stream.connection.barrier()

    async def push_later(
        self, stream: JetStream, envelope: Envelope, due: float, bound: int
    ) -> None:
        """As `DelayingTransport.push_later`.

        Raises:
            ChannelFull: If `bound` are held already.
        """
        full = f"{bound} delayed messages are pending already (max_delayed)."
        if bound <= 0:
            raise ChannelFull(full)
        identity = f"{envelope.sender.hex()}.{envelope.seq}"
        config = {
            "name": self.name,
            "subjects": [f"{self._names.prefix}.d.>"],
            "retention": "workqueue",
            "discard": "new",
            "max_msgs": bound,
        }
        if bound != self._bound:
            stream.forget(self.name)
            self._bound = bound
        await stream.store(
            config,
            f"{self._names.prefix}.d.{identity}",
            envelope.encoded,
            {"Nats-Msg-Id": identity, _DUE: str(int(due * 1000))},
            full,
            shrinks=False,
        )
        # Without it nobody would look; the message is safe already.
        await stream.have_consumer(self.name, _CONSUMER, {"ack_wait": nanoseconds(_PATIENCE)})
        self._pull.hurry()

    async def _find(self, stream: JetStream) -> str:
        """The consumer, if anything has been delayed yet."""
        check(await stream.ask(f"CONSUMER.INFO.{self.name}.{_CONSUMER}", {}))
        return next_subject(self.name, _CONSUMER)

    def _take(self, message: Message) -> None:
        stream = self._stream
        assert stream is not None, "messages come over a connection"
        due = message.headers.get(_DUE, "")
        left = int(due) / 1000 - time.time() if due.isdigit() else 0.0
        if left > 0 or self._is_quiet:
            delay = nanoseconds(max(left, 0.001))
            stream.connection.publish(message.reply, b'-NAK {"delay": %d}' % delay)
            self._pull.adjust()
            return
        self._moving += 1
        self._spawn(self._move(stream, message), name="a delayed message")

    async def _move(self, stream: JetStream, message: Message) -> None:
        """Append it to its queue."""
        try:
            envelope = decode_envelope(message.data)
            identity = f"due.{envelope.sender.hex()}.{envelope.seq}"
            await self._streams.push(
                stream, envelope.name, message.data, identity, identity.replace(".", "-")
            )
        except MalformedEnvelope:
            self._counters["dropped_malformed"] += 1
        except Broken:
            return
        except ChannelsError:
            delay = nanoseconds(_AGAIN_SECONDS)
            stream.connection.publish(message.reply, b'-NAK {"delay": %d}' % delay)
            return
        finally:
            self._moving -= 1
            if self._stream is not None:
                self._pull.adjust()
        stream.connection.publish(message.reply, b"+ACK")
