"""What things are called in the broker, and what they are declared with.

    <prefix>.groups        direct exchange: a group's name -> inboxes and memberships; a node's name
                           behind a colon -> its inbox
    <prefix>.node.<node>   inbox of a process; after a move to another node of the broker's cluster
                           <node> is <node>.1, and so on
    <prefix>.hand.<node>   what it must know for certain: receipts, and messages taken from queues
    <prefix>.full          headers exchange, and the queue behind it: what full queues refused that
                           came to them from a group
    <prefix>.q.<channel>   a channel that no process owns
    <prefix>.k.<channel>   the same, if it is delivered at least once or takes dead letters (kept)
    <prefix>.r.<channel>   what comes back to such a channel; goes before what is in the former
    <prefix>.m.<hash>      membership of a channel that no process owns in a group
    <prefix>.c.<hash>      the same membership, to be counted: sends back what asks for the group
    <prefix>.due           delayed messages whose time has come or comes within a second
    <prefix>.later.<n>     those that wait: for 4 to the power of n seconds, then they are in `due`
    <prefix>.names         the names of all of these from `q` on, for `flush`

"!" and "?" of channels' names are "#" and "@" here.

`k` and `r` have neither an expiry nor an end: only `flush` and operators delete them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, Final

from channels.backends.rabbitmq.options import RabbitMQOptions

_LETTERS: Final = str.maketrans("!?", "#@")
#: The longest time that the broker takes, in milliseconds.
_LONGEST: Final = 2**32 - 2
#: Seconds for which the list of names outlives its last use.
_NAMES_LIFE: Final = 7 * 86_400
#: From 1/16 of a second to 12 days; what waits longer goes round again.
LEVELS: Final = range(-2, 11)


def milliseconds(seconds: float) -> int:
    """As the broker takes times."""
    return max(1, min(_LONGEST, round(seconds * 1000)))


class Names:
    """Names and declarations of one layer.

    Args:
        expiry: Seconds that a message lives.
        group_expiry: Seconds that a membership lives.
        keeps: Whether a channel's messages may be of any age.
    """

    def __init__(
        self,
        prefix: str,
        options: RabbitMQOptions,
        expiry: Callable[[], float],
        group_expiry: Callable[[], float],
        keeps: Callable[[str], bool] = lambda _: False,
    ) -> None:
        self.prefix = prefix
        self.due = f"{prefix}.due"
        self.keeps = keeps
        self.groups = f"{prefix}.groups"
        self.names = f"{prefix}.names"
        self.full = f"{prefix}.full"
        self.expiry = expiry
        self._options = options
        self._group_expiry = group_expiry

    def key(self, node: str) -> str:
        """The routing key to a node's inbox; no group has such a name."""
        return f":{node}"

    def question(self, group: str) -> str:
        """The routing key to the memberships of a group that are to be counted."""
        return f"?{group}"

    def inbox(self, node: str) -> str:
        return f"{self.prefix}.node.{node}"

    def hand(self, node: str) -> str:
        return f"{self.prefix}.hand.{node}"

    def queue(self, channel: str) -> str:
        """What is sent to a channel goes there."""
        kind = "k" if self.keeps(channel) else "q"
        return f"{self.prefix}.{kind}.{channel.translate(_LETTERS)}"

    def returned(self, channel: str) -> str:
        """What was taken from a kept channel and comes back goes there."""
        return f"{self.prefix}.r.{channel.translate(_LETTERS)}"

    def sources(self, channel: str) -> tuple[str, ...]:
        """The queues that a channel is read from: the last when the others are empty."""
        queue = self.queue(channel)
        return (self.returned(channel), queue) if self.keeps(channel) else (queue,)

    def later(self, level: int) -> str:
        return f"{self.prefix}.later.{level}"

    def membership(self, group: str, channel: str) -> str:
        return f"{self.prefix}.m.{_digest(group, channel)}"

    def counted(self, group: str, channel: str) -> str:
        return f"{self.prefix}.c.{_digest(group, channel)}"

    # What each is declared with.

    def inbox_arguments(self) -> dict[str, Any]:
        return {
            "x-expires": milliseconds(self._options.window),
            "x-max-length": self._options.node_capacity,
            "x-overflow": "reject-publish",
        }

    def hand_arguments(self) -> dict[str, Any]:
        return {"x-expires": milliseconds(self._options.window)}

    def queue_arguments(self, channel: str, capacity: int) -> dict[str, Any]:
        bound = {
            "x-max-length": capacity,
            # Refused, which a sender is told; and reported, for groups' messages have none.
            "x-overflow": "reject-publish-dlx",
            "x-dead-letter-exchange": self.full,
        }
        if self.keeps(channel):
            return {**bound, "x-consumer-timeout": _LONGEST}
        expiry = self.expiry()
        return {
            **bound,
            "x-expires": milliseconds(max(self._options.queue_life, 2 * expiry)),
            "x-message-ttl": milliseconds(expiry),
            # What comes back from a reader that has gone is of the higher priority.
            "x-max-priority": 1,
        }

    def returned_arguments(self) -> dict[str, Any]:
        """No bound: each of these was accepted once."""
        return {"x-consumer-timeout": _LONGEST}

    def later_arguments(self, level: int) -> dict[str, Any]:
        return {
            "x-message-ttl": milliseconds(4.0**level),
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": self.due,
        }

    def membership_arguments(self, channel: str) -> dict[str, Any]:
        """A queue that keeps nothing: it hands all on to the channel's, and ends in time."""
        return {
            "x-message-ttl": 0,
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": self.queue(channel),
            "x-expires": milliseconds(self._group_expiry()),
        }

    def counted_arguments(self) -> dict[str, Any]:
        """A queue that keeps nothing: what comes goes where its header CC says."""
        return {
            "x-message-ttl": 0,
            "x-dead-letter-exchange": "",
            "x-expires": milliseconds(self._group_expiry()),
        }

    def full_arguments(self) -> dict[str, Any]:
        return {
            "x-expires": milliseconds(_NAMES_LIFE),
            "x-max-length": self._options.node_capacity,
            "x-single-active-consumer": True,
        }

    def full_matches(self) -> dict[str, Any]:
        """Binds the queue `full` to its exchange."""
        return {"x-match": "all-with-x", "x-first-death-exchange": self.groups}

    def names_arguments(self) -> dict[str, Any]:
        return {
            "x-expires": milliseconds(_NAMES_LIFE),
            "x-max-length": 100_000,
            "x-message-ttl": milliseconds(_NAMES_LIFE),
        }


def _digest(group: str, channel: str) -> str:
    return hashlib.blake2b(f"{group}:{channel}".encode(), digest_size=16).hexdigest()
