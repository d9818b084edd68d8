"""Asking one consumer for as many messages as are wanted, over the connection of the moment."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

from channels.backends.nats.connection import Broken, Message
from channels.backends.nats.jetstream import JetStream, nanoseconds
from channels.exceptions import ChannelsError

#: Seconds for which a request for messages stands.
_REQUEST_SECONDS: Final = 5.0
#: Of a request whose time is over.
_TIMED_OUT: Final = 408


class Pull:
    """Requests to one consumer.

    Args:
        find: Sees to it that the consumer is there; gives the subject to ask on.
        forget: The consumer is gone.
        wanted: How many messages may come now, those that were asked for included.
        take: Given each message.
        spawn: Starts a task of the transport.
        on_idle: Called when nothing is asked for any more.
        retry_seconds: Wait after `find` was refused.
    """

    def __init__(
        self,
        name: str,
        *,
        find: Callable[[JetStream], Awaitable[str]],
        forget: Callable[[JetStream], None],
        wanted: Callable[[], int],
        take: Callable[[Message], None],
        spawn: Callable[..., asyncio.Task[Any]],
        on_idle: Callable[[], None] = lambda: None,
        retry_seconds: float = 0.5,
    ) -> None:
        self._name = name
        self._find = find
        self._forget = forget
        self._wanted = wanted
        self._on_message = take
        self._spawn = spawn
        self._on_idle = on_idle
        self._retry_seconds = retry_seconds
        self._stream: JetStream | None = None
        #: Messages that were asked for and have not come.
        self._asked = 0
        #: When the server should have said that nothing has come.
        self._asked_until = 0.0
        self._is_watched = False
        self._is_starting = False
        self._is_closed = False
        self._refused = asyncio.Event()
        self._subject = ""
        self._subscription = 0

    @property
    def is_idle(self) -> bool:
        return not self._asked and not self._is_starting

    def open(self, stream: JetStream) -> None:
        """Connected: ask for what is wanted."""
        self._stream = stream
        self.adjust()

    def shut(self) -> None:
        """The connection broke."""
        self._stream = None
        self._asked = self._subscription = 0

    def close(self) -> None:
        """Ask for nothing more; what is on its way still comes."""
        self._is_closed = True
        if self._stream is not None and self._subscription:
            self._stream.connection.unsubscribe(self._subscription)
            self._subscription = 0

    def hurry(self) -> None:
        """What `find` was refused may be there now."""
        self._refused.set()
        self.adjust()

    def adjust(self) -> None:
        """What is wanted may have changed."""
        stream = self._stream
        missing = self._wanted() - self._asked
        if stream is None or self._is_starting or self._is_closed or missing <= 0:
            return
        if not self._subscription:
            self._is_starting = True
            self._spawn(self._start(stream), name=self._name)
            return
        self._asked += missing
        body = {"batch": missing, "expires": nanoseconds(_REQUEST_SECONDS)}
        inbox = self._inbox(self._subscription)
        stream.connection.publish(self._subject, json.dumps(body).encode(), inbox)
        loop = asyncio.get_running_loop()
        self._asked_until = loop.time() + _REQUEST_SECONDS
        if not self._is_watched:
            self._is_watched = True
            loop.call_later(_REQUEST_SECONDS + 1.0, self._doubt)

    def _inbox(self, number: int) -> str:
        return f"_INBOX.{id(self):x}.{number}"

    async def _start(self, stream: JetStream) -> None:
        try:
            self._subject = await self._find(stream)
        except Broken:
            return
        except ChannelsError:
            # JetStream says no; it may say yes later.
            self._refused.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._retry_seconds):
                    await self._refused.wait()
        else:
            if stream is self._stream and not self._is_closed:
                connection = stream.connection
                # The subject bears the subscription's own number, which is the next.
                number = connection.next_number
                connection.subscribe(self._inbox(number), partial(self._take, number))
                self._subscription = number
        finally:
            self._is_starting = False
            self.adjust()

    def _doubt(self) -> None:
        """A server that has lost the stream does not answer at all: begin anew."""
        loop, stream, self._is_watched = asyncio.get_running_loop(), self._stream, False
        if not self._asked or stream is None:
            return
        if (left := self._asked_until - loop.time()) > 0:
            self._is_watched = True
            loop.call_later(left + 1.0, self._doubt)
        else:
            self._begin_anew(stream)
            self.adjust()

    def _begin_anew(self, stream: JetStream) -> None:
        self._forget(stream)
        stream.connection.unsubscribe(self._subscription)
        self._subscription = self._asked = 0

    def _take(self, number: int, message: Message) -> None:
        if self._stream is None:
            return
        if message.status:
            # What was said to a subscription that is no more says nothing of the present one.
            if number == self._subscription:
                self._take_status(message, self._stream)
            return
        self._asked = max(0, self._asked - 1)
        self._on_message(message)

    def _take_status(self, message: Message, stream: JetStream) -> None:
        """A request is over: its time is, or its consumer is gone."""
        pending = message.headers.get("Nats-Pending-Messages", "")
        self._asked = max(0, self._asked - int(pending)) if pending.isdigit() else 0
        if message.status != _TIMED_OUT:
            self._begin_anew(stream)
        if self._wanted() > 0:
            self.adjust()
        elif self.is_idle:
            self._on_idle()
