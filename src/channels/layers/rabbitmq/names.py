"""What things are called in the broker, and what they are declared with.

    <prefix>.groups        direct exchange: a group's name -> inboxes and memberships
    <prefix>.node.<node>   inbox of a process
    <prefix>.hand.<node>   what it must know for certain: receipts, and messages taken from queues
    <prefix>.q.<channel>   a channel that no process owns
    <prefix>.m.<hash>      membership of such a channel in a group
    <prefix>.names         the names of all of the last two kinds, for `flush`

"!" and "?" of channels' names are "#" and "@" here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, Final

from channels.layers.rabbitmq.options import RabbitMQOptions

_LETTERS: Final = str.maketrans("!?", "#@")
#: The longest time that the broker takes, in milliseconds.
_LONGEST: Final = 2**32 - 2
#: Seconds for which the list of names outlives its last use.
_NAMES_LIFE: Final = 7 * 86_400


def milliseconds(seconds: float) -> int:
    """As the broker takes times."""
    return max(1, min(_LONGEST, round(seconds * 1000)))


class Names:
    """Names and declarations of one layer.

    Args:
        expiry: Seconds that a message lives.
        group_expiry: Seconds that a membership lives.
    """

    def __init__(
        self,
        prefix: str,
        options: RabbitMQOptions,
        expiry: Callable[[], float],
        group_expiry: Callable[[], float],
    ) -> None:
        self.prefix = prefix
        self.groups = f"{prefix}.groups"
        self.names = f"{prefix}.names"
        self.expiry = expiry
        self._options = options
        self._group_expiry = group_expiry

    def inbox(self, node: str) -> str:
        return f"{self.prefix}.node.{node}"

    def hand(self, node: str) -> str:
        return f"{self.prefix}.hand.{node}"

    def queue(self, channel: str) -> str:
        return f"{self.prefix}.q.{channel.translate(_LETTERS)}"

    def membership(self, group: str, channel: str) -> str:
        digest = hashlib.blake2b(f"{group}:{channel}".encode(), digest_size=16)
        return f"{self.prefix}.m.{digest.hexdigest()}"

    # What each is declared with.

    def inbox_arguments(self) -> dict[str, Any]:
        return {
            "x-expires": milliseconds(self._options.window),
            "x-max-length": self._options.node_capacity,
            "x-overflow": "reject-publish",
        }

    def hand_arguments(self) -> dict[str, Any]:
        return {"x-expires": milliseconds(self._options.window)}

    def queue_arguments(self, capacity: int) -> dict[str, Any]:
        expiry = self.expiry()
        return {
            "x-expires": milliseconds(max(self._options.queue_life, 2 * expiry)),
            "x-message-ttl": milliseconds(expiry),
            "x-max-length": capacity,
            "x-overflow": "reject-publish",
            # What comes back from a reader that has gone is of the higher priority.
            "x-max-priority": 1,
        }

    def membership_arguments(self, channel: str) -> dict[str, Any]:
        """A queue that keeps nothing: it hands all on to the channel's, and ends in time."""
        return {
            "x-message-ttl": 0,
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": self.queue(channel),
            "x-expires": milliseconds(self._group_expiry()),
        }

    def names_arguments(self) -> dict[str, Any]:
        return {
            "x-expires": milliseconds(_NAMES_LIFE),
            "x-max-length": 100_000,
            "x-message-ttl": milliseconds(_NAMES_LIFE),
        }
