"""One message, from its channel to its consumer, and what becomes of it.

the consumer                        what happens
returns                             what it has sent leaves
raises ConsumeLater                 the message goes to the end of its channel, with a count in
                                    `__retries__`; past the bound it is dropped
raises DenyConnection               the WebSocket is refused; only on `websocket.connect`
raises a ChannelSocketException     its `run` is called with the message
raises anything else                it is logged; on a channel that is delivered at least once
                                    the message is tried again
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from django.conf import settings
from django.core.signals import got_request_exception

from channels.exceptions import ChannelFull, DenyConnection, mark_logged
from channels.kit.throttle import Throttle, and_more
from channels.legacy.exceptions import ChannelSocketException, ConsumeLater
from channels.legacy.message import Message
from channels.legacy.pending import pending_message_store
from channels.signals import consumer_finished, consumer_started
from channels.utils import name_that_thing

logger = logging.getLogger("django.channels.worker")

Content = dict[str, Any]
Callback = Callable[[str, Message], Any]

#: The key of a message that counts how often it was put back.
RETRIES: Final = "__retries__"
#: How often, and how many seconds apart, it is tried to put a message back into a full channel.
PUT_BACK_ATTEMPTS: Final = 10
PUT_BACK_SECONDS: Final = 0.05
#: Lines about messages that are dropped: one of each kind in so many seconds.
LOG_SECONDS: Final = 5.0

_thread: Final = threading.local()


@contextmanager
def consuming(sender: type[Any]) -> Iterator[None]:
    """What surrounds a consumer: signals before and after, and its messages sent at the end.

    Args:
        sender: The sender of the signals.
    """
    consumer_started.send(sender=sender, environ={})
    try:
        with pending_message_store.collecting():
            yield
    finally:
        consumer_finished.send(sender=sender)


def handle_next(channel: str, content: Content) -> bool:
    """Let a message be handled in this thread as soon as the present one is.

    Returns False where no worker is at work.
    """
    following: deque[tuple[str, Content]] | None = getattr(_thread, "following", None)
    if following is None:
        return False
    following.append((channel, content))
    return True


def _accept_unanswered(message: Message) -> None:
    """Before Channels 1.0 a socket was open unless it was closed: where the site says so it is."""
    reply = message.reply_channel
    is_asked = getattr(settings, "CHANNELS_ACCEPT_UNANSWERED", False)
    if is_asked and reply is not None and not pending_message_store.has_for(reply.name):
        reply.send({"accept": True})


class MessageHandler:
    """Hands messages to their consumers, in the thread that calls it.

    Attributes:
        counts: How many messages were handled, failed, put back, and dropped by reason.

    Args:
        channel_layer: A `ChannelLayerWrapper`.
        sender: The sender of the signals.
        callback: Called with channel and message before its consumer.
        retries: How often a message may be put back.
    """

    def __init__(
        self,
        channel_layer: Any,
        sender: type[Any],
        callback: Callback | None = None,
        retries: int = 10,
    ) -> None:
        self._layer = channel_layer
        self._sender = sender
        self._callback = callback
        self._retries = retries
        self._throttle = Throttle(LOG_SECONDS)
        self._lock = threading.Lock()
        self.counts: Counter[str] = Counter()

    def handle(self, channel: str, content: Content) -> None:
        """Handle a message, and those that its consumer asks to be handled next.

        Raises:
            Exception: What the consumer of the first message raised, logged already.
        """
        following: deque[tuple[str, Content]] = deque()
        _thread.following = following
        try:
            error = self._handle(channel, content)
            while following:
                self._handle(*following.popleft())
        finally:
            del _thread.following
        if error is not None:
            raise error

    def drop(self, reason: str, text: str, channel: str) -> None:
        """Count and log a message that nobody handles.

        Args:
            reason: For the counter "dropped_<reason>".
            text: For the log.
        """
        with self._lock:
            self.counts[f"dropped_{reason}"] += 1
            held_back = self._throttle.admit(reason)
        if held_back is not None:
            logger.error(
                "A message on channel %r is dropped: %s%s", channel, text, and_more(held_back)
            )

    def _handle(self, channel: str, content: Content) -> Exception | None:
        """Handle one message; returns what its consumer has raised."""
        try:
            message, retries = self._read(channel, content)
        except (TypeError, ValueError) as error:
            self.drop("malformed", str(error), channel)
            return None
        match = self._layer.router.match(message)
        if match is None:
            self.drop("unrouted", "no route matches it, see ROUTING.", channel)
            return None
        consumer, arguments = match
        try:
            if self._callback is not None:
                self._callback(channel, message)
            with consuming(self._sender):
                self._consume(consumer, message, arguments)
        except ConsumeLater:
            self._put_back(message, retries)
        except SystemExit:
            # It ends the consumer, and not the worker's thread.
            self._fail(consumer, channel)
        except Exception as error:
            self._fail(consumer, channel)
            mark_logged(error)
            return error
        else:
            self._count("handled")
        return None

    def _fail(self, consumer: Callable[..., Any], channel: str) -> None:
        """Report what is being raised to the log, and to those who collect Django's errors."""
        self._count("failed")
        logger.exception(
            "The consumer %s failed on a message of channel %r.", name_that_thing(consumer), channel
        )
        got_request_exception.send_robust(sender=self._sender, request=None)

    def _read(self, channel: str, content: Content) -> tuple[Message, int]:
        message = Message(content, channel, self._layer)
        retries = content.get(RETRIES, 0)
        if not isinstance(retries, int):
            raise TypeError(f"{RETRIES} must be an integer: found {type(retries).__name__}.")
        message.__doomed__ = retries >= self._retries
        return message, retries

    @staticmethod
    def _consume(consumer: Callable[..., Any], message: Message, arguments: Content) -> None:
        try:
            consumer(message, **arguments)
            if message.channel.name == "websocket.connect":
                _accept_unanswered(message)
        except DenyConnection:
            if message.channel.name != "websocket.connect":
                raise ValueError(
                    "DenyConnection was raised by a consumer of "
                    f"{message.channel.name!r}: only one of websocket.connect can deny."
                ) from None
            # Before what the consumer has sent: an accept would open what is denied.
            message.reply_channel.send({"close": True}, immediately=True)
        except ChannelSocketException as error:
            error.run(message)

    def _put_back(self, message: Message, retries: int) -> None:
        channel = message.channel.name
        if retries >= self._retries:
            self.drop("retries", f"it was put back {retries} times already.", channel)
            return
        content = {**message.content, RETRIES: retries + 1}
        for _ in range(PUT_BACK_ATTEMPTS):
            try:
                self._layer.send(channel, content)
            except ChannelFull:
                time.sleep(PUT_BACK_SECONDS)
            else:
                self._count("put_back")
                return
        self.drop("full", "it could not be put back, the channel is full.", channel)

    def _count(self, what: str) -> None:
        with self._lock:
            self.counts[what] += 1
