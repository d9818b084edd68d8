"""What things are called in the broker, and what they are declared with.

    <prefix>.groups        direct exchange: a group's name -> inboxes of the processes with members;
                           a process's name behind a colon -> its inbox
    <prefix>.node.<node>   inbox of a process; after a move to another node of the broker's cluster
                           <node> is <node>.1, and so on
    <prefix>.q.<channel>   a channel that no process owns
    <prefix>.k.<channel>   the same, if it is delivered at least once or takes dead letters: it has
                           no expiry, and only `flush` and operators delete it
    <prefix>.names         the names of these queues, for `flush`

"!" and "?" of channels' names are "#" and "@" here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from channels.backends.rabbitmq.options import RabbitMQOptions

_LETTERS: Final = str.maketrans("!?", "#@")
#: The longest time that the broker takes, in milliseconds.
_LONGEST: Final = 2**32 - 2
#: Seconds for which the list of names outlives its last use.
_NAMES_LIFE: Final = 7 * 86_400
#: A virtual host may have another type as its default.
_CLASSIC: Final[dict[str, Any]] = {"x-queue-type": "classic"}


def milliseconds(seconds: float) -> int:
    """As the broker takes times."""
    return max(1, min(_LONGEST, round(seconds * 1000)))


class QueueRules(NamedTuple):
    """How a channel that no process owns is kept."""

    capacity: int
    #: Seconds that a message lives; None: at least as long as its reader wants.
    expiry: float | None


class RabbitMQNames:
    """Names and declarations of one layer."""

    def __init__(
        self, prefix: str, options: RabbitMQOptions, rules_of: Callable[[str], QueueRules]
    ) -> None:
        self.prefix = prefix
        self.groups = f"{prefix}.groups"
        self.names = f"{prefix}.names"
        self.options = options
        self._rules_of = rules_of

    def keeps(self, channel: str) -> bool:
        """Whether a channel's messages may be of any age."""
        return self._rules_of(channel).expiry is None

    def key(self, node: str) -> str:
        """The routing key to a process's inbox; no group has such a name."""
        return f":{node}"

    def inbox(self, node: str, moves: int) -> str:
        return f"{self.prefix}.node.{node}" + (f".{moves}" if moves else "")

    def queue(self, channel: str) -> str:
        kind = "k" if self.keeps(channel) else "q"
        return f"{self.prefix}.{kind}.{channel.translate(_LETTERS)}"

    # What each is declared with.

    def inbox_arguments(self) -> dict[str, Any]:
        return {
            **_CLASSIC,
            "x-expires": milliseconds(self.options.window),
            # And the marker of `inbox`.
            "x-max-length": self.options.node_capacity + 1,
            "x-overflow": "reject-publish",
        }

    def queue_arguments(self, channel: str) -> dict[str, Any]:
        capacity, expiry = self._rules_of(channel)
        arguments = {
            **_CLASSIC,
            "x-max-length": capacity,
            "x-overflow": "reject-publish",
            # What comes back from a reader is of the higher priority.
            "x-max-priority": 1,
            "x-consumer-timeout": _LONGEST,
        }
        if expiry is not None:
            arguments["x-expires"] = milliseconds(max(self.options.queue_life, 2 * expiry))
            arguments["x-message-ttl"] = milliseconds(expiry)
        return arguments

    def names_arguments(self) -> dict[str, Any]:
        return {
            **_CLASSIC,
            "x-expires": milliseconds(_NAMES_LIFE),
            "x-max-length": 100_000,
            "x-message-ttl": milliseconds(_NAMES_LIFE),
        }
