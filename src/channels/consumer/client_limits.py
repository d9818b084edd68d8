"""What one client of a consumer class may do: how much it may say, and be told of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from channels.exceptions import ClientLimitExceeded
from channels.kit.limits import MIB
from channels.kit.options import check_options, option
from channels.kit.types import Message
from channels.server.message_meter import MessageMeter

#: RFC 6455 section 7.4.1: "a message that is too big for it to process".
CLOSE_TOO_BIG: Final = 1009


@dataclass(frozen=True, slots=True)
class ClientLimits:
    """What one WebSocket of a consumer class may do, beside what the server allows it."""

    message_bytes: int | None = option(
        None,
        unit="bytes",
        minimum=1,
        none="what the server allows",
        help="largest message of a client; closed with 1009",
    )
    message_rate: float | None = option(
        None,
        unit="messages per second",
        minimum=0.01,
        none="what the server allows",
        help="messages of a client, averaged over 10 seconds; closed with 1008",
    )
    message_byte_rate: int | None = option(
        None,
        unit="bytes per second",
        minimum=1,
        none="what the server allows",
        help="bytes of a client's messages, averaged over 10 seconds, though one message may have "
        "message_bytes (1 MiB where that is None); closed with 1008",
    )
    groups: int | None = option(
        None,
        unit="groups",
        minimum=1,
        none="any number",
        help="groups that the consumer's channel may be a member of; one more raises "
        "ClientLimitExceeded, which closes with 1008 if nothing catches it",
    )

    def __post_init__(self) -> None:
        check_options(self)


NO_LIMITS: Final = ClientLimits()


class ClientMeter:
    """Measures what one client says."""

    __slots__ = ("_largest", "_rates")

    def __init__(self, limits: ClientLimits) -> None:
        self._largest = limits.message_bytes
        self._rates = MessageMeter(
            limits.message_rate, limits.message_byte_rate, limits.message_bytes or MIB
        )

    def take(self, message: Message) -> None:
        """Count a client's message.

        Raises:
            ClientLimitExceeded: If it is over one of the limits.
        """
        text = message.get("text")
        size = len(text.encode() if text is not None else message.get("bytes") or b"")
        if self._largest is not None and size > self._largest:
            raise ClientLimitExceeded(
                "message_bytes",
                f"a message of {size} bytes, where {self._largest} are allowed",
                CLOSE_TOO_BIG,
            )
        if over := self._rates.take(size):
            raise ClientLimitExceeded("message_rate", over)


def meter_of(limits: ClientLimits) -> ClientMeter | None:
    """A meter for the limits that are set; None if there are none."""
    said = (limits.message_bytes, limits.message_rate, limits.message_byte_rate)
    return None if said == (None, None, None) else ClientMeter(limits)
