"""The worker of delayed messages: takes them from a channel, keeps them, sends them when due.

A message that was taken is kept in hand until its row is written, and goes back to the channel if
the worker stops before.  A row is claimed before it is sent and deleted after, so several workers
share the work, and what a killed one had claimed is sent CLAIM_SECONDS later: at least once.
"""

from __future__ import annotations

import json
import logging
import math
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from django.db import InterfaceError, OperationalError, close_old_connections
from django.utils import timezone

from channels.exceptions import ChannelFull, ChannelLayerUnavailable, MessageTooLarge
from channels.kit.options import check_options, option
from channels.kit.printable import printable
from channels.kit.process_exit import process_exit
from channels.kit.throttle import Throttle, and_more
from channels.legacy.delay.models import DelayedMessage

logger: Final = logging.getLogger("django.channels.delay")

CHANNEL: Final = "asgi.delay"
#: After which a claimed message that was not sent is due again.
CLAIM_SECONDS: Final = 60.0
#: For what is under way when the worker is told to stop.
STOP_SECONDS: Final = 10.0
#: For a message in one go, so that a stop is noticed.
WAIT_SECONDS: Final = 1.0
#: Between two log lines of one kind.
LOG_SECONDS: Final = 5.0
_KEYS: Final = ("channel", "content", "delay")
_BROKEN: Final = (OperationalError, InterfaceError)


@dataclass(frozen=True, slots=True)
class DelayOptions:
    """How a worker of delayed messages works."""

    sleep: float = option(
        1.0,
        unit="seconds",
        minimum=0.01,
        help="time between two looks for messages that are due",
    )
    max_messages: int = option(
        1_000_000,
        unit="messages",
        minimum=1,
        help="delayed messages that the table holds; no more are taken from the channel then",
    )
    batch: int = option(
        500,
        unit="messages",
        minimum=1,
        help="messages that are sent in one look; the others follow in the next",
    )

    def __post_init__(self) -> None:
        check_options(self)


class MalformedDelay(ValueError):
    """A message on the channel of delayed messages, or a row, cannot be sent by anybody."""


class Worker:
    """Takes, keeps and sends delayed messages, until it is told to stop.

    Args:
        channel_layer: A `ChannelLayerWrapper`.
        signal_handlers: Whether SIGTERM and SIGINT stop `run`; in the main thread only.
        database_sleep_duration: Seconds between two looks for messages that are due.
        options: In its place, and more.

    Attributes:
        malformed: How many messages were dropped because nobody could send them.
        termed: Whether it is told to stop.
        in_job: Whether it does anything but wait.
    """

    def __init__(
        self,
        channel_layer: Any,
        signal_handlers: bool = True,
        database_sleep_duration: float = 1,
        options: DelayOptions | None = None,
    ) -> None:
        self.channel_layer = channel_layer
        self.signal_handlers = signal_handlers
        self.options = options or DelayOptions(sleep=database_sleep_duration)
        self.malformed = 0
        self.termed = False
        self.in_job = False
        #: Taken from the channel, and not yet in the table.
        self._in_hand: DelayedMessage | None = None
        self._rows = 0
        self._next_look = -math.inf
        self._stopping = threading.Event()
        self._throttle = Throttle(LOG_SECONDS)

    def run(self) -> None:
        """Work until `request_stop`."""
        if self.signal_handlers and threading.current_thread() is threading.main_thread():
            with process_exit.serving(self, STOP_SECONDS):
                self._run()
        else:
            self._run()

    def request_stop(self) -> None:
        """End `run` after what is under way; from any thread."""
        self.termed = True
        self._stopping.set()

    def hurry(self) -> None:
        """Nothing here waits longer than a look."""

    def _run(self) -> None:
        logger.info("Listening on %s.", CHANNEL)
        while not self.termed:
            try:
                self._take()
                if time.monotonic() >= self._next_look:
                    self._next_look = time.monotonic() + self.options.sleep
                    self._look()
            except (*_BROKEN, ChannelLayerUnavailable) as error:
                self._warn("unreachable", "Delayed messages wait, trying again: %s", error)
                close_old_connections()
                self._stopping.wait(self.options.sleep)
        self._give_back()

    def _take(self) -> None:
        """Move one message from the channel into the table, waiting for one until the next look."""
        if self._in_hand is None and self._rows < self.options.max_messages:
            wait = min(max(self._next_look - time.monotonic(), 0.0), WAIT_SECONDS)
            self.in_job = False
            channel, message = self.channel_layer.receive([CHANNEL], block=True, timeout=wait)
            self.in_job = True
            if channel is not None:
                try:
                    self._in_hand = self._delayed(message)
                except MalformedDelay as error:
                    self._drop(error)
        elif self._in_hand is None:
            self._warn(
                "full",
                "The table holds %s delayed messages (max_messages): no more are taken from %s.",
                self._rows,
                CHANNEL,
            )
            self._stopping.wait(self.options.sleep)
        if self._in_hand is not None:
            self._in_hand.save()
            self._in_hand = None
            self._rows += 1

    def _delayed(self, message: Mapping[str, Any]) -> DelayedMessage:
        """The row for a message of the channel."""
        lacking = [key for key in _KEYS if key not in message]
        if lacking:
            raise MalformedDelay(f"it has no {' and no '.join(lacking)}")
        channel, content, delay = (message[key] for key in _KEYS)
        if isinstance(delay, bool) or not isinstance(delay, int | float):
            raise MalformedDelay(f"its delay is {printable(repr(delay))}, not milliseconds")
        made = DelayedMessage(channel_name=channel, content=_encoded(content))
        _checked(made, self.channel_layer)
        try:
            made.delay = max(delay, 0)
        except (OverflowError, ValueError):
            raise MalformedDelay(f"its delay of {delay} ms ends after the year 9999") from None
        return made

    def _look(self) -> None:
        """Send what is due, `batch` messages at most."""
        close_old_connections()
        until = timezone.now() + timedelta(seconds=CLAIM_SECONDS)
        due = DelayedMessage.objects.is_due().order_by("due_date", "pk")
        found = list(due[: self.options.batch])
        for row in found:
            if self._stopping.is_set():
                return
            if row.claim(until):
                self._send(row)
        if len(found) == self.options.batch:
            self._next_look = -math.inf
        self._rows = DelayedMessage.objects.count()

    def _send(self, row: DelayedMessage) -> None:
        logger.debug("Sending a delayed message to %s.", row.channel_name)
        try:
            _checked(row, self.channel_layer)
            row.send(channel_layer=self.channel_layer)
        except (MalformedDelay, MessageTooLarge, TypeError) as error:
            row.delete()
            self._drop(error)
        except ChannelLayerUnavailable:
            row.delay = self.options.sleep * 1000
            row.save()
            raise

    def _drop(self, error: Exception) -> None:
        self.malformed += 1
        self._warn("malformed", "A delayed message is dropped: %s.", error)

    def _warn(self, key: str, text: str, *arguments: object) -> None:
        held_back = self._throttle.admit(key)
        if held_back is not None:
            logger.error(text + and_more(held_back), *arguments)

    def _give_back(self) -> None:
        """Put what could not be written back into the channel."""
        row, self._in_hand = self._in_hand, None
        if row is None:
            return
        message = {
            "channel": row.channel_name,
            "content": json.loads(row.content),
            "delay": max(row.delay, 0),
        }
        try:
            self.channel_layer.send(CHANNEL, message)
        except (ChannelFull, ChannelLayerUnavailable) as error:
            logger.error("A delayed message to %s is lost: %s", row.channel_name, error)


def _encoded(content: Any) -> str:
    try:
        return json.dumps(content)
    except (TypeError, ValueError) as error:
        raise MalformedDelay(f"its content is no JSON: {error}") from None


def _checked(row: DelayedMessage, channel_layer: Any) -> None:
    """Raise MalformedDelay unless the row can be sent."""
    try:
        channel_layer.layer.require_valid_channel_name(row.channel_name)
    except TypeError as error:
        raise MalformedDelay(str(error).rstrip(".")) from None
    try:
        content = json.loads(row.content)
    except ValueError as error:
        raise MalformedDelay(f"its content is no JSON: {error}") from None
    if not isinstance(content, dict):
        raise MalformedDelay(f"its content is {printable(repr(content))}, not a dict")
