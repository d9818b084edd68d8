"""What stands in the headers of a message that was held back or put back: what becomes of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from channels.backends.rabbitmq.channel import Properties
from channels.kit.names import is_channel_name


@dataclass(frozen=True, slots=True)
class Ticket:
    """One message's."""

    channel: str
    #: How often it was leased, these leases being over.
    attempts: int = 0
    #: Milliseconds since 1970, by the sender's clock.
    due: int = 0
    #: It goes before the others of its channel.
    is_head: bool = False

    @property
    def headers(self) -> dict[str, Any]:
        return {
            "channel": self.channel,
            "attempts": self.attempts,
            "due": self.due,
            "head": self.is_head,
        }


def read_ticket(properties: Properties) -> Ticket | None:
    """A message's ticket; None if it has none."""
    headers = properties.headers or {}
    channel, attempts = headers.get("channel"), headers.get("attempts")
    due, is_head = headers.get("due"), headers.get("head")
    # Anybody who may publish can write headers: a name that none may have is no ticket.
    if is_channel_name(channel) and isinstance(attempts, int) and isinstance(due, int):
        return Ticket(channel, attempts, due, is_head is True)
    return None


def attempts_of(properties: Properties) -> int:
    """How often a message was leased before."""
    ticket = read_ticket(properties)
    return ticket.attempts if ticket is not None else 0
