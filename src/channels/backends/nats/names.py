"""What things are called in NATS.

    <prefix>.g.<group>           a group
    <prefix>.n.<node>            the inbox of a process
    <prefix>.q.<kind>.<channel>  a channel that no process owns, in the stream <prefix>_Q_<kind>

A kind is what the channels of one stream have in common: their capacity, and how long their
messages live.  Full stops divide subjects, so names have "=d" for them, "=x" for "!" and "=q" for
"?".
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from channels.backends.nats.options import NatsOptions

_ENCODED: Final = str.maketrans({".": "=d", "!": "=x", "?": "=q"})


def encode(name: str) -> str:
    """A name as one word of a subject."""
    return name.translate(_ENCODED)


@dataclass(frozen=True, slots=True)
class QueuePlan:
    """How a channel that no process owns is kept; the same in all processes of a layer.

    Attributes:
        life: Seconds for which its messages live; None: for ever.
        is_usual: They live as long as those of any channel, `expiry`.
        ack_wait: Seconds after which JetStream gives a message to another, if it hears nothing of
            the process that has it.
    """

    capacity: int
    life: float | None
    is_usual: bool
    ack_wait: float

    @property
    def kind(self) -> str:
        if self.is_usual:
            return str(self.capacity)
        return f"{self.capacity}-{'kept' if self.life is None else round(self.life * 1000)}"


class NatsNames:
    """Of one layer.

    Args:
        plan_of: How a channel that no process owns is kept.
    """

    def __init__(
        self, prefix: str, options: NatsOptions, plan_of: Callable[[str], QueuePlan]
    ) -> None:
        self.prefix = prefix
        self.stream_prefix = f"{prefix}_Q_"
        self.options = options
        self.plan_of = plan_of

    def group(self, group: str) -> str:
        return f"{self.prefix}.g.{encode(group)}"

    def node(self, node: str) -> str:
        return f"{self.prefix}.n.{node}"

    def queue(self, channel: str) -> str:
        return f"{self.prefix}.q.{self.plan_of(channel).kind}.{encode(channel)}"

    def stream(self, channel: str) -> str:
        return f"{self.stream_prefix}{self.plan_of(channel).kind}"

    def stream_subjects(self, channel: str) -> str:
        return f"{self.prefix}.q.{self.plan_of(channel).kind}.*"

    def consumer(self, channel: str) -> str:
        """Shared by all processes that read the channel; any name fits, in a bounded length."""
        return hashlib.sha256(channel.encode()).hexdigest()[:24]
