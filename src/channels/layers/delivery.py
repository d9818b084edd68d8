"""How surely the messages of a channel are handled: what `delivery` in CONFIG may say.

    "delivery": {
        "thumbnails.*": "at-least-once",
        "mail": {"visibility_timeout": 300, "max_attempts": 3, "dead_letter": "mail.failed"},
        "*": "at-most-once",
    }

The first pattern that matches a channel holds; without one it is at most once.  Senders look at it
too: what goes to a channel of the other kind does not expire unless its `expiry` says so.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final

from channels.exceptions import InvalidChannelLayerError, InvalidOption
from channels.kit import names
from channels.kit.options import check_options, option
from channels.layers.base import compile_pattern

AT_MOST_ONCE: Final = "at-most-once"
AT_LEAST_ONCE: Final = "at-least-once"
#: `type` of what comes to a dead-letter channel.
DEAD_LETTER: Final = "dead.letter"


@dataclass(frozen=True, slots=True)
class Delivery:
    """At-least-once delivery for the channels of one pattern."""

    visibility_timeout: float = option(
        60.0,
        unit="seconds",
        minimum=0.1,
        maximum=86_400.0,
        help="a message that was taken and is not finished by then is given to another worker",
    )
    max_attempts: int = option(
        5,
        unit="attempts",
        minimum=1,
        maximum=50,
        help="then the message goes to the dead-letter channel",
    )
    retry_delay: float = option(
        1.0,
        unit="seconds",
        minimum=0.0,
        maximum=86_400.0,
        help="pause after the first failed attempt; it doubles with each further one",
    )
    max_retry_delay: float = option(
        300.0, unit="seconds", minimum=0.0, maximum=86_400.0, help="longest such pause"
    )
    expiry: float | None = option(
        None,
        unit="seconds",
        minimum=0.001,
        none="never",
        help="a message that nobody has finished is dropped after this",
    )
    #: Takes what was tried `max_attempts` times; None: it is logged and dropped.
    dead_letter: str | None = "dead-letters"

    def __post_init__(self) -> None:
        check_options(self)
        name = self.dead_letter
        if name is not None and not (
            isinstance(name, str)
            and len(name) < names.MAX_NAME_LENGTH
            and names.CHANNEL_NAME.match(name)
            and "!" not in name
        ):
            raise InvalidOption(
                f"dead_letter={name!r}: expected the name of a channel without '!', or None."
            )

    def pause_after(self, attempts: int) -> float:
        """Seconds to wait when so many attempts have failed."""
        return min(self.max_retry_delay, self.retry_delay * 2.0 ** min(attempts - 1, 40))


class Deliveries:
    """The `delivery` option of a layer, read.

    Raises:
        InvalidChannelLayerError: If it cannot be understood.
    """

    def __init__(self, given: Mapping[Any, Any] | None) -> None:
        if given is not None and not isinstance(given, Mapping):
            raise InvalidChannelLayerError(
                f"delivery={given!r}: expected a dictionary from patterns of channel names to "
                f"{AT_LEAST_ONCE!r}, {AT_MOST_ONCE!r} or a dictionary of options."
            )
        self._rules = [
            (_pattern(pattern), _delivery(pattern, value))
            for pattern, value in (given or {}).items()
        ]
        self._letters = {rule.dead_letter for _, rule in self._rules if rule is not None}

    def find(self, channel: str) -> Delivery | None:
        """How a channel's messages are delivered at least once; None: at most once."""
        if "!" in channel:
            # Of one process: who would take it when that has died?
            return None
        for pattern, delivery in self._rules:
            if pattern.match(channel):
                return delivery
        return None

    def keeps(self, channel: str) -> bool:
        """True if a channel may hold messages of any age: by `delivery`, or as dead letters."""
        return channel in self._letters or self.find(channel) is not None


def _pattern(given: Any) -> re.Pattern[str]:
    if not isinstance(given, str | re.Pattern):
        raise InvalidChannelLayerError(
            f"delivery has the key {given!r}: expected a pattern of channel names."
        )
    return compile_pattern(given)


def _delivery(pattern: Any, given: Any) -> Delivery | None:
    if given == AT_MOST_ONCE:
        return None
    if given == AT_LEAST_ONCE:
        return Delivery()
    if isinstance(given, Delivery):
        return given
    known = [field.name for field in fields(Delivery)]
    if not isinstance(given, Mapping) or not given.keys() <= set(known):
        raise InvalidChannelLayerError(
            f"delivery[{pattern!r}]={given!r}: expected {AT_LEAST_ONCE!r}, {AT_MOST_ONCE!r}, or a "
            f"dictionary with some of {', '.join(known)}."
        )
    try:
        return Delivery(**given)
    except InvalidOption as error:
        raise InvalidChannelLayerError(f"delivery[{pattern!r}]: {error}") from error
