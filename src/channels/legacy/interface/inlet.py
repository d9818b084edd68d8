"""The way into the channel layer, and the counts of what went in and what did not."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, Final

from channels.exceptions import ChannelFull, ChannelLayerUnavailable, LocalProtocolError
from channels.kit.printable import printable
from channels.kit.throttle import Throttle, and_more
from channels.kit.types import Message
from channels.legacy.interface.options import InterfaceOptions

logger: Final = logging.getLogger("django.channels.server")

#: Between two offers to a full queue, at first and at most.
_RETRY_FIRST_SECONDS: Final = 0.02
_RETRY_MOST_SECONDS: Final = 0.5
#: One line for each kind of trouble in so many seconds.
_LOG_SECONDS: Final = 5.0


class Inlet:
    """Puts messages into the queues of a layer.

    Attributes:
        counts: Messages by channel; `full.<channel>`: what found its queue full or the layer out
            of reach, and was given up; `malformed.<protocol>`: replies that were dropped because
            they say nothing that can be done; `cut`: responses that outran their client.
    """

    def __init__(self, layer: Any, options: InterfaceOptions) -> None:
        self.layer = layer
        self.options = options
        self.counts: Counter[str] = Counter()
        self._throttle = Throttle(_LOG_SECONDS)

    async def offer(self, channel: str, message: Message) -> bool:
        """Send a message to a channel; False if that is full or the layer out of reach.

        Raises:
            MessageTooLarge: If no message of this size can be sent.
        """
        try:
            await self.layer.send(channel, message)
        except ChannelFull:
            return False
        except ChannelLayerUnavailable as error:
            self.warn("unavailable", f"The channel layer takes no messages: {error}")
            return False
        self.counts[_counted(channel)] += 1
        return True

    async def insist(
        self,
        channel: str,
        message: Message,
        seconds: float | None,
        meanwhile: Callable[[], Awaitable[bool]] | None = None,
    ) -> bool:
        """`offer` again and again, for so many seconds at most; None: until `meanwhile` ends it.

        Args:
            meanwhile: Called between two offers; False ends them.
        """
        loop = asyncio.get_running_loop()
        deadline = None if seconds is None else loop.time() + seconds
        wait = _RETRY_FIRST_SECONDS
        while not await self.offer(channel, message):
            left = wait if deadline is None else deadline - loop.time()
            if left <= 0 or (meanwhile is not None and not await meanwhile()):
                return False
            await asyncio.sleep(min(wait, left))
            wait = min(wait * 2, _RETRY_MOST_SECONDS)
        return True

    def give_up(self, channel: str) -> None:
        """Count and log a message that its queue did not take."""
        self.counts[f"full.{channel}"] += 1
        self.warn(
            channel,
            f"The queue {channel!r} is full or out of reach: is a worker running that "
            "takes its messages, and are there enough of them?",
        )

    def drop(self, protocol: str, error: LocalProtocolError) -> None:
        """Count and log a reply that cannot be understood."""
        self.counts[f"malformed.{protocol}"] += 1
        self.warn(
            f"malformed.{protocol}", f"Dropped a reply to {protocol}: {printable(str(error))}."
        )

    def warn(self, kind: str, text: str) -> None:
        """Log a line, unless one of its kind was logged a moment ago.

        Args:
            kind: One of a few words: each is remembered.
        """
        held_back = self._throttle.admit(kind)
        if held_back is not None:
            logger.warning("%s%s", text, and_more(held_back))


BODY_CHANNEL: Final = "http.request.body"
#: What the channels where workers wait are counted as.
ACKS: Final = "acks"
#: What workers of Channels 1 read.
QUEUES: Final = frozenset(
    {
        "http.request",
        "http.disconnect",
        "websocket.connect",
        "websocket.receive",
        "websocket.disconnect",
    }
)


def _counted(channel: str) -> str:
    """What a message to a channel counts as: one of a few names, whoever names the channel."""
    if channel in QUEUES:
        return channel
    return BODY_CHANNEL if channel.startswith(BODY_CHANNEL) else ACKS
